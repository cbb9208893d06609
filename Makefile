# Everything a person needs: `make demo`, `make test`, `make check`. `make help` lists the rest.
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
STAMP := .venv/.priorflow-ready
FAST := not (kafka or ray or mlflow or postgres or slow)

.DEFAULT_GOAL := help
.PHONY: help setup demo lint check test soak test-browser bench mutants format pins clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## virtual environment, pinned dependencies, encoder, Kafka, mails
	@$(BIN)/priorflow assets fetch

# The stamp makes the second run a matter of milliseconds; a changed pin or setting makes it run again.
$(STAMP): pyproject.toml constraints.txt infra/setup.sh
	@infra/setup.sh $(PYTHON)
	@touch $@

demo: setup  ## the main job, end to end, on the real parts
	@$(BIN)/priorflow demo

lint: $(STAMP)  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint  ## the same, and the fast tests
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "$(FAST)"

test: setup  ## every test, those on the real Kafka, Ray, MLflow and PostgreSQL included, none skipped
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --no-skips

soak: setup  ## the kills of docs/guarantees.md in their full number (10 minutes)
	$(BIN)/pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --no-skips --soak \
		tests/app/test_faults.py tests/app/test_faults_random.py tests/app/test_faults_workers.py

test-browser: setup  ## the pages in a real browser (Debian's chromium, installed if it is missing)
	@command -v chromium >/dev/null || sudo apt-get install --yes chromium
	$(BIN)/pytest -q -m browser --no-skips

bench: setup  ## what it costs, measured: history, pipeline, memory (25 minutes, on a quiet machine)
	@for name in history pipeline memory; do OMP_NUM_THREADS=1 $(BIN)/python benchmarks/$$name.py || exit 1; done

mutants: $(STAMP)  ## plant deliberate bugs in belief and learner: a law must catch each
	$(BIN)/python -m tests.mutants --processes $(WORKERS)

format: $(STAMP)  ## format, and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

pins: $(STAMP)  ## resolve constraints.txt anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --extra broker --extra demo --extra dev \
		--no-header --no-annotate --no-emit-index-url pyproject.toml | sed 's/ *;.*//' > .venv/pins.txt
	mv .venv/pins.txt constraints.txt

clean:  ## remove the environment and everything generated
	rm -rf .venv .priorflow
