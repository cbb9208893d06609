"""`priorflow export --peft`: from a chain in the ledger to a folder that peft loads, or to an error."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from connectors.blobs import open_blobs
from connectors.ledger import open_ledger
from posterior.experts import ROWS
from posterior.family import Tensors
from posterior.snapshot import Snapshot
from posterior.tensors import from_bytes, to_bytes
from priorflow import peft_folder
from priorflow.cli import call
from priorflow.config import Settings
from priorflow.console import Silent
from priorflow.exit_codes import ExitCode
from priorflow.export import Wanted, export_peft
from priorflow.learning import family_spec, model_spec
from priorflow.peft_card import CARD
from priorflow.peft_folder import FolderHeld, put, require_free
from priorflow.run import chain_of, execute
from priorflow.serving.version import answer_spec
from stream.plan import sha256_json
from tests.app.streams import archived, real_settings, small_stream
from tests.connectors.chain_builder import CIRCUMSTANCE, OWNER, Writer, learned, progress, root
from tests.trainers.orders import TOPICS
from tests.trainers.orders import order as order_of
from trainers.activations import Activations
from trainers.answer import answerer_of
from trainers.model import AdaptedModel, encoder_folder, warm_start
from trainers.peft_form import FACTS, FILES
from trainers.window import Local
from trainers.window import root as base_prior

pytestmark = pytest.mark.slow  # real encoders, for every family

DOCS = Path(__file__).parents[2] / "docs"
MAILS = ["kernel module compiled on the box", "win cheap cash now"]
LABELS = tuple(sorted(TOPICS))


@dataclass
class Chain:
    """A chain with real tensors: a root, a learned window (the champion), a progress row, another window."""

    settings: Settings
    said: Mapping[str, Any]
    rows: list[Snapshot]

    def export(self, folder: Path, *arguments: str, **sets: Any) -> int:
        pairs = [f"--set={name}={json.dumps(value)}" for name, value in {**self.said, **sets}.items()]
        return call(["export", "--peft", str(folder), *pairs, *arguments])


def begun(
    home: Path, model: AdaptedModel, tasks: Sequence[str] = ("",), /, promoted: bool = True, **more: Any
) -> Chain:
    said = {"home": str(home), "model.max_tokens": 16, "model.rank": 4, "mlflow.enabled": False} | more
    settings = real_settings(home, None, **said | {"learn.draws": 3})
    said |= {"window.size": 30, "learn.epochs": 1, "learn.draws": 3, "learn.beta_sample": 8}
    said |= {"gate.min_labels": 10}
    chain, spec, blobs = chain_of(settings), family_spec(settings), open_blobs(settings.blobs_url)
    ledger = open_ledger(settings.ledger_url, blobs)
    ledger.create(chain)
    fence = ledger.acquire("main", owner=OWNER, ttl_s=60)
    tensors: Tensors = base_prior(model, spec, chain_seed=chain.seed)
    first = replace(
        root(blobs), posterior=blobs.put(to_bytes(tensors)), settings=sha256_json(dict(chain.settings))
    )
    ledger.commit(fence, first, CIRCUMSTANCE)
    writer, rows = Writer(ledger, blobs, fence, first), [first]
    for window in range(2):
        asked = order_of(window, tensors, known=window > 0, family=spec)
        told = tuple(tasks[i % len(tasks)] for i in range(len(asked.members)))
        tensors = Local(model).carry_out(replace(asked, member_tasks=told)).tensors
        row = learned(blobs, writer.head, writer.begin())
        rows.append(writer.commit(replace(row, posterior=blobs.put(to_bytes(tensors)), labels=LABELS)))
        if window == 0:
            rows.append(writer.commit(progress(blobs, writer.head)))
    rows.append(writer.commit(progress(blobs, writer.head)))
    if promoted:
        ledger.decide("main", at_ms=1, actor="gate", action="promote", snapshot=rows[1].sha, evidence={})
    ledger.release(fence)
    ledger.close()
    return Chain(settings, said, rows)


@pytest.fixture(scope="module")
def model() -> AdaptedModel:
    torch.set_num_threads(1)
    return AdaptedModel(model_spec(real_settings(Path(), None, **{"model.rank": 4})))


@pytest.fixture(scope="module")
def chain(model: AdaptedModel, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return begun(tmp_path_factory.mktemp("home"), model)


@pytest.fixture(scope="module")
def regions(model: AdaptedModel, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    said: dict[str, Any] = {"family.name": "bora", "records.format": "mapped"}
    return begun(tmp_path_factory.mktemp("regions"), model, ("north", "south/east"), **said)


def facts(folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / FACTS).read_text())
    return told


def error(capsys: pytest.CaptureFixture[str]) -> str:
    return str(json.loads(capsys.readouterr().err.splitlines()[-1])["text"])


def documented() -> str:
    """Return the lines of Python that the page shows."""
    page = (DOCS / "operations.md").read_text(encoding="utf-8")
    section = page.partition("## An adapter for other programs")[2]
    return section.partition("```python\n")[2].partition("```")[0]


def logits(folder: Path, encoder: Path, text: str) -> torch.Tensor:
    """Run the lines of the page."""
    names = {"FOLDER": folder, "ENCODER": encoder, "text": text}
    with torch.no_grad():
        exec(compile(documented(), "operations.md", "exec"), names)
    found: torch.Tensor = names["logits"]  # type: ignore[assignment] # what the lines made
    return found[0]


def answers(chain: Chain, row: Snapshot, text: str, *, draws: int) -> torch.Tensor:
    """Return log p of the classes as the server has it, but for the share of a new one."""
    settings = chain.settings
    model = AdaptedModel(model_spec(settings))
    answerer = answerer_of(
        model,
        Activations(model),
        replace(answer_spec(settings), draws=draws, pi_new=0.01),
        open_blobs(settings.blobs_url).get(row.posterior),
        labels=row.labels,
        window=row.index,
    )
    said = answerer.answer(text).probabilities
    p = torch.tensor([said[label] for label in row.labels], dtype=torch.float64)
    return p / p.sum()


def test_the_lines_of_the_page_say_what_the_server_says(chain: Chain, tmp_path: Path) -> None:
    assert chain.export(tmp_path / "mean") == ExitCode.OK
    encoder = encoder_folder(model_spec(chain.settings))
    for text in MAILS:
        found = torch.softmax(logits(tmp_path / "mean", encoder, text).double(), dim=-1)
        torch.testing.assert_close(found, answers(chain, chain.rows[1], text, draws=0), atol=1e-6, rtol=0)


def test_draws_together_say_what_the_server_says(chain: Chain, tmp_path: Path) -> None:
    encoder, said = encoder_folder(model_spec(chain.settings)), []
    for number in range(3):
        folder = tmp_path / str(number)
        assert chain.export(folder, "--draw", str(number)) == ExitCode.OK
        assert facts(folder)["weights"] == {"kind": "draw", "number": number, "of": 3, "chain_seed": 1}
        said.append(torch.softmax(logits(folder, encoder, MAILS[0]).double(), dim=-1))
    wanted = answers(chain, chain.rows[1], MAILS[0], draws=3)
    torch.testing.assert_close(torch.stack(said).mean(dim=0), wanted, atol=1e-6, rtol=0)
    assert float((said[0] - said[1]).abs().max()) > 1e-3


def test_which_snapshot(chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The champion unless said otherwise; the head is the row that learned, whatever has moved since."""
    _, champion, _, head, _ = chain.rows
    wanted = [((), champion), (("--alias", "head"), head), ((head.sha[:8],), head)]
    for i, (arguments, row) in enumerate(wanted):
        assert chain.export(tmp_path / str(i), *arguments) == ExitCode.OK
        told = facts(tmp_path / str(i))
        assert (told["snapshot"], told["window"], told["chain"]) == (row.sha, row.index, "main")
        assert told["adapter"] == f"main-{row.index}-{row.sha[:12]}"
        *missing, said = map(json.loads, capsys.readouterr().out.splitlines())
        assert (said["event"], said["adapter"]) == ("exported", told["adapter"])
        assert [line["what"] for line in missing] == ["draws", "threshold"]
        assert "over draws 0 to 2" in missing[0]["text"]
    weights = [load_file(tmp_path / str(i) / FILES[1]) for i in range(3)]
    assert all(torch.equal(weights[1][k], weights[2][k]) for k in weights[1])
    assert not any(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_a_chain_that_starts_from_the_folder_has_its_centres_there(chain: Chain, tmp_path: Path) -> None:
    export_peft(chain.settings, Wanted(), tmp_path / "out")
    settings = real_settings(tmp_path, None, **{"model.rank": 4, "model.warm_start": str(tmp_path / "out")})
    warm = AdaptedModel(model_spec(settings))
    held = from_bytes(open_blobs(chain.settings.blobs_url).get(chain.rows[1].posterior))
    centres = warm.centres(())
    assert len(centres) == 4
    assert all(torch.equal(weights, held[f"mean/{name}"]) for name, weights in centres.items())
    assert set(warm_start(tmp_path / "out", warm.slots(0))) == set(centres)


def test_of_tasks_with_weights_of_their_own_one_is_named(
    regions: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert regions.export(tmp_path / "none") == ExitCode.USAGE
    assert "name one; there are 'north', 'south/east'" in error(capsys)
    assert regions.export(tmp_path / "none", "--task", "west") == ExitCode.USAGE
    assert "there is no task 'west'" in error(capsys)
    assert regions.export(tmp_path / "none", "--task", "north", "--new-task") == ExitCode.USAGE
    assert not (tmp_path / "none").exists()
    for name, argument in {"a": "--task=south/east", "b": "--task=north", "c": "--new-task"}.items():
        assert regions.export(tmp_path / name, argument) == ExitCode.OK
    told = [facts(tmp_path / name) for name in "abc"]
    assert [t["task"] for t in told] == ["south/east", "north", None]
    assert [t["new_task"] for t in told] == [False, False, True]
    assert len({t["adapter"] for t in told}) == 3
    rows = [load_file(tmp_path / name / "head.safetensors")["rows"] for name in "abc"]
    between = (rows[2] - rows[0]).norm() + (rows[2] - rows[1]).norm()
    assert float(between) < 1.5 * float((rows[0] - rows[1]).norm())  # the shared centre is in the middle


def test_a_panel_is_left_out_and_said_to_be(
    model: AdaptedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: dict[str, Any] = {"family.name": "point"}
    chain = begun(tmp_path / "home", model, **said)
    row, blobs = chain.rows[3], open_blobs(chain.settings.blobs_url)
    assert chain.export(tmp_path / "plain", row.sha[:8]) == ExitCode.OK
    assert facts(tmp_path / "plain")["panel"] is None
    capsys.readouterr()
    learn = replace(order_of(2, {}, known=True, family=family_spec(chain.settings)).learn, panel=True)
    asked = order_of(2, from_bytes(blobs.get(row.posterior)), known=True, family=family_spec(chain.settings))
    tensors = Local(model).carry_out(replace(asked, learn=learn)).tensors
    ledger = open_ledger(chain.settings.ledger_url, blobs)
    fence = ledger.acquire("main", owner=OWNER, ttl_s=60)
    writer = Writer(ledger, blobs, fence, chain.rows[-1])
    last = learned(blobs, writer.head, writer.begin())
    writer.commit(replace(last, posterior=blobs.put(to_bytes(tensors)), labels=LABELS))
    ledger.close()
    assert chain.export(tmp_path / "out", "--alias", "head") == ExitCode.OK
    assert "class rows alone" in facts(tmp_path / "out")["panel"]
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["event"], line.get("what")) for line in told] == [
        ("left_out", "panel"),
        ("left_out", "threshold"),
        ("exported", None),
    ]
    card = (tmp_path / "out" / CARD).read_text()
    for line in told[:-1]:  # a point has no draws that differ
        assert line["text"].removeprefix("not in the folder: ")[1:] in card
    heard = tensors["pool/classes"][: len(ROWS)].sum()
    assert f"class rows alone have {float(heard):.0%} of the weight" in card
    assert "panel" not in (tmp_path / "plain" / CARD).read_text()


@pytest.mark.parametrize(
    ("arguments", "sets", "said"),
    [
        (["--draw", "0"], {"family.name": "point"}, "family.name: 'point', was 'blob'"),
        ([], {"model.rank": 2}, "model.rank: 2, was 4"),
        ([], {"model.sites": "query$"}, "model.sites"),
        (["ffffff"], {}, "no snapshot begins with 'ffffff'"),
        (["--chain", "mian"], {}, "there are: main"),
        (["--task", "north"], {}, "the same weights for all tasks"),
        (["--new-task"], {}, "the same weights for all tasks"),
        ([], {"home": "nowhere"}, "there is no ledger"),
    ],
)
def test_what_cannot_be_exported_is_told(
    chain: Chain,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sets: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert chain.export(tmp_path / "out", *arguments, **sets) == ExitCode.USAGE
    assert said in error(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", ["--draw=-1", "--alias=top", "abcdef --alias=head", "abcdef --chain=x"])
def test_a_wrong_command_line_is_status_2(chain: Chain, tmp_path: Path, arguments: str) -> None:
    assert chain.export(tmp_path / "out", *arguments.split()) == ExitCode.USAGE
    assert call(["export"]) == ExitCode.USAGE
    assert list(tmp_path.iterdir()) == []


def test_a_root_knows_no_class(chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert chain.export(tmp_path / "out", chain.rows[0].sha[:10]) == ExitCode.USAGE
    assert "window 0 knows no class yet" in error(capsys)


def test_nobody_promoted(model: AdaptedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said: dict[str, Any] = {"family.name": "point"}
    chain = begun(tmp_path / "home", model, promoted=False, **said)
    ledger = open_ledger(chain.settings.ledger_url, open_blobs(chain.settings.blobs_url))
    ledger.create(replace(chain_of(chain.settings), name="other"))
    ledger.close()
    assert chain.export(tmp_path / "out") == ExitCode.USAGE
    assert "nobody was promoted yet; --alias head" in error(capsys)
    assert chain.export(tmp_path / "out", "--chain", "other", "--alias", "head") == ExitCode.USAGE
    assert "has no snapshot yet" in error(capsys)
    assert chain.export(tmp_path / "out", "--alias", "head", "--draw", "0") == ExitCode.USAGE
    assert "the same at every draw" in error(capsys)
    assert chain.export(tmp_path / "out", "--alias", "head") == ExitCode.OK


def test_parts_that_are_no_lora_are_refused(
    model: AdaptedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said: dict[str, Any] = {"family.name": "bhpeft", "model.rank": 4}
    three = AdaptedModel(model_spec(real_settings(tmp_path, None, **said)))
    assert begun(tmp_path / "three", three, **said).export(tmp_path / "out") == ExitCode.USAGE
    assert "adapts by adapter and prefix" in error(capsys)
    alone = begun(tmp_path / "alone", model, **said | {"model.parts": ["lora"]})
    assert alone.export(tmp_path / "out") == ExitCode.OK


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_another_adapter_is_overwritten_only_by_force(
    chain: Chain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    assert chain.export(folder) == ExitCode.OK
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    assert chain.export(folder) == ExitCode.OK  # the same again is no other
    capsys.readouterr()
    for arguments in (["--alias", "head"], ["--draw", "1"]):
        assert chain.export(folder, *arguments) == ExitCode.USAGE
        assert "holds the adapter 'main-1-" in error(capsys)
        assert {name: (folder / name).read_bytes() for name in names(folder)} == before
    assert chain.export(folder, "--alias", "head", "--force") == ExitCode.OK
    assert facts(folder)["snapshot"] == chain.rows[3].sha
    assert names(folder) == sorted({*FILES, CARD})
    assert chain.rows[3].sha in (folder / CARD).read_text()
    assert names(tmp_path) == ["out"]


def test_what_no_export_wrote_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    put(tmp_path / "ours", {FACTS: b'{"adapter": "one"}'})
    (tmp_path / "ours" / "README.md").write_text("mine")
    put(tmp_path / "half", {FILES[0]: b"{}"})
    left = {"file": "file", "full": "thesis.txt", "ours": "README.md", "half": FILES[0]}
    for name, strange in left.items():
        with pytest.raises(FolderHeld, match=rf"holds '{strange}', which no export wrote"):
            require_free(tmp_path / name, "one", force=True)
    with pytest.raises(FolderHeld, match="is a file, so there can be no folder"):
        require_free(tmp_path / "file" / "a" / "b", "one", force=True)
    put(tmp_path / "broken", {FACTS: b"{"})
    with pytest.raises(FolderHeld, match="names no adapter"):
        require_free(tmp_path / "broken", "one", force=True)
    (tmp_path / "empty").mkdir()
    require_free(tmp_path / "empty", "one", force=False)
    put(tmp_path / "empty", {FACTS: b"{}"})
    assert names(tmp_path / "empty") == [FACTS]


class Dies(BaseException):
    """Somebody pulled the plug, or pressed Ctrl-C."""


STEPS = {
    "a file": (peft_folder, "_write", 1),
    "the last file": (peft_folder, "_write", 2),
    "the flush": (peft_folder, "_sync", 1),
    "setting the old aside": (Path, "rename", 1),
    "putting the new in place": (Path, "rename", 2),
}


@pytest.mark.parametrize("step", STEPS)
def test_dying_anywhere_leaves_the_old_folder(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, name, at = STEPS[step]
    folder, old, new = tmp_path / "out", {FACTS: b"old", FILES[0]: b"old"}, {FACTS: b"new", FILES[0]: b"new"}
    put(folder, old)
    real, left = getattr(place, name), itertools.count(1)

    def dies(*given: Any) -> Any:
        if next(left) == at:
            raise Dies
        return real(*given)

    with monkeypatch.context() as patched:
        patched.setattr(place, name, dies)
        with pytest.raises(Dies):
            put(folder, new)
    assert {path: (folder / path).read_bytes() for path in names(folder)} == old
    assert names(tmp_path) == ["out"]
    put(folder, new)
    assert {path: (folder / path).read_bytes() for path in names(folder)} == new
    assert names(tmp_path) == ["out"]


@pytest.mark.slow
def test_a_chain_that_a_run_made(tmp_path: Path) -> None:
    """The whole application: learned from an archive, promoted by the gate, exported, loaded by peft."""
    archive = archived(small_stream(), tmp_path / "archive")
    settings = real_settings(tmp_path / "home", archive, **{"learn.panel": False})
    execute(settings, until_end=True, console=Silent())
    origin = export_peft(settings, Wanted(alias="head", draw=1), tmp_path / "out").origin
    assert (origin.window, origin.draws, set(origin.labels)) == (4, 2, {"linux", "money"})
    base = AutoModel.from_pretrained(encoder_folder(model_spec(settings)), dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "out").eval()
    tokens = AutoTokenizer.from_pretrained(encoder_folder(model_spec(settings)))("cash", return_tensors="pt")
    assert adapted(**tokens).last_hidden_state.shape[-1] == 384
    champion = export_peft(settings, Wanted(), tmp_path / "champion").origin
    assert 1 <= champion.window < 4  # the gate promotes who foretold a window, so the head is not judged yet
