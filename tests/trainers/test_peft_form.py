"""What is exported says through peft what it says here: every family, its mean and its draws."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from posterior.blob import Blob
from posterior.families import FAMILIES, make_family
from posterior.family import ONE_TASK, Draw, Tensors
from posterior.hierarchy import Hierarchy, known_tasks
from posterior.point import Point
from tests.trainers.conftest import SPEC
from tests.trainers.languages import TEXTS as SENTENCES
from tests.trainers.languages import small_llama, small_spec
from tests.trainers.orders import LEARN, TOPICS, order
from trainers.model import HEAD, AdaptedModel, ModelSpec, encoder_folder, warm_start
from trainers.peft_form import FACTS, FILES, NoPeftForm, Origin, files_of
from trainers.single import NotSingle, Whose, drawn, whose
from trainers.update import Schedule
from trainers.window import FamilySpec, Local

pytestmark = pytest.mark.slow  # peft loads the real encoder again and again

SHA = "ab" * 32
LABELS = tuple(sorted(TOPICS))
TEXTS = ["kernel module compiled on the box", "win cheap cash now, or never again", "a"]
CASES = {
    **{name: FamilySpec(name=name) for name in sorted(FAMILIES)},
    "blob, B frozen": FamilySpec(name="blob", options={"b": "frozen"}),
    "blob, B anchored": FamilySpec(name="blob", options={"b": "anchored"}),
    "bora, points": FamilySpec(name="bora", options={"fit": "map"}),
    "bhpeft, ups frozen": FamilySpec(name="bhpeft", options={"up": "frozen"}),
    "of the user's own": FamilySpec(name="examples.row_gaussian:RowGaussian"),
}
STILL = ("point", "bora, points")  # families without a draw
FAR = replace(LEARN, schedule=Schedule(epochs=2, batch=8, lr=0.3))  # adapters move enough to be seen


def origin(**more: Any) -> Origin:
    said: dict[str, Any] = {
        "snapshot": SHA,
        "chain": "main",
        "window": 1,
        "labels": LABELS,
        "chain_seed": 1,
        "draw": None,
        "draws": 3,
        "whose": Whose(None),
        "panel": False,
    }
    return Origin(**said | more)


def written(folder: Path, model: AdaptedModel, weights: Draw, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for name, data in files_of(model, weights, origin(**more)).items():
        (folder / name).write_bytes(data)
    return folder


@torch.no_grad()
def ours(model: AdaptedModel, texts: Sequence[str], draw: Draw) -> Tensor:
    """Return the class logits of texts, one by one."""
    return torch.cat([model.logits([model.activate(text)], draw) for text in texts])


@torch.no_grad()
def theirs(base: Any, spec: ModelSpec, folder: Path, texts: Sequence[str]) -> Tensor:
    """Return them by peft, transformers and what the folder says, and nothing of ours."""
    told, head = json.loads((folder / FACTS).read_text()), load_file(folder / "head.safetensors")
    adapted = peft.PeftModel.from_pretrained(base, folder).eval()
    tokenizer, out = AutoTokenizer.from_pretrained(encoder_folder(spec)), []
    for text in texts:
        tokens = tokenizer(text, truncation=True, max_length=told["max_tokens"], return_tensors="pt")
        hidden = adapted(**tokens).last_hidden_state
        pooled = {"mean": hidden.mean(1), "first": hidden[:, 0], "last": hidden[:, -1]}[
            told["head"]["pooling"]
        ]
        assert told["head"]["normalised"]
        x = torch.nn.functional.normalize(pooled, dim=-1) * told["head"]["scale"]
        out.append(x @ head["rows"].T + head["bias"])
    adapted.unload()
    return torch.cat(out)


@pytest.fixture(scope="module")
def base() -> Any:
    return AutoModel.from_pretrained(encoder_folder(SPEC), dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def bare(model: AdaptedModel) -> Tensor:
    """Return the features where nothing is adapted, (texts, d)."""
    return torch.stack([model.views(*model.enter(text))[-1] for text in TEXTS])


class Learned:
    """A family after one window, and what it foretold of the next."""

    def __init__(self, model: AdaptedModel, spec: FamilySpec) -> None:
        first = order(0, {}, known=False, family=spec)
        self.tensors: Tensors = Local(model).carry_out(replace(first, learn=FAR)).tensors
        self.family = make_family(spec.name, spec.options)
        self.state = self.family.restore(self.tensors)
        self.whose = whose(self.family, self.state, named=None, new=False)
        self.spec, self.model = spec, model

    def drawn(self, number: int | None, *, window: int = 1) -> Draw:
        return drawn(self.family, self.state, self.whose, number=number, chain_seed=1, window=window)

    def foretold(self) -> tuple[tuple[str, ...], Tensor]:
        asked = order(1, self.tensors, known=True, family=self.spec)
        outcome = Local(self.model).carry_out(replace(asked, members=()))
        return asked.arrivals, torch.tensor(outcome.forecasts, dtype=torch.float64)


@pytest.fixture(scope="module", params=CASES)
def learned(request: pytest.FixtureRequest, model: AdaptedModel) -> Learned:
    return Learned(model, CASES[request.param])


def test_the_mean_says_through_peft_what_it_says_here(
    learned: Learned, model: AdaptedModel, base: Any, bare: Tensor, tmp_path: Path
) -> None:
    draw = learned.drawn(None)
    said = ours(model, TEXTS, draw)
    folder = written(tmp_path, model, draw)
    torch.testing.assert_close(theirs(base, SPEC, folder, TEXTS), said, atol=1e-5, rtol=0)
    unadapted = bare @ draw[HEAD][0, :, :-1].T + draw[HEAD][0, :, -1]
    assert float((said - unadapted).abs().max()) > 1e-3  # the adapter has its say


def test_draws_are_those_that_foretell(
    learned: Learned, model: AdaptedModel, base: Any, tmp_path: Path
) -> None:
    """Their mixture, by peft, is the forecast that the loop made with this posterior as head."""
    if not learned.family.noise(learned.family.open(learned.state, [ONE_TASK])):
        with pytest.raises(NotSingle, match="the same at every draw"):
            learned.drawn(0)
        return
    texts, forecasts = learned.foretold()
    draws = [learned.drawn(k) for k in range(LEARN.draws)]
    said = [
        theirs(base, SPEC, written(tmp_path / str(k), model, draw, draw=k), texts[:4])
        for k, draw in enumerate(draws)
    ]
    for logits, draw in zip(said, draws, strict=True):
        torch.testing.assert_close(logits, ours(model, texts[:4], draw), atol=1e-5, rtol=0)
    mixed = torch.softmax(torch.stack(said).double(), dim=-1).mean(dim=0)
    torch.testing.assert_close(mixed, forecasts[:4], atol=1e-5, rtol=0)
    apart = [said[0] - said[1], said[0] - ours(model, texts[:4], learned.drawn(None))]
    assert all(float(gap.abs().max()) > 1e-2 for gap in apart)


def test_an_export_is_a_warm_start_at_the_same_weights(
    learned: Learned, model: AdaptedModel, tmp_path: Path
) -> None:
    draw = learned.drawn(None)
    folder = written(tmp_path, model, draw)
    found = warm_start(folder, model.slots(2))
    assert set(found) == set(draw) - {HEAD}
    assert all(torch.equal(weights, draw[name][0]) for name, weights in found.items())


def test_a_chain_that_starts_warm_has_its_centres_there(model: AdaptedModel, tmp_path: Path) -> None:
    draw = Learned(model, CASES["blob"]).drawn(None)
    warm = AdaptedModel(replace(SPEC, warm_start=str(written(tmp_path, model, draw))))
    centres = warm.centres(LABELS)
    start = Blob().base(warm.slots(2), seed=9, centres=centres)
    assert all(torch.equal(start.mean[name], draw[name][0]) for name in centres)
    assert len(centres) == len(draw) - 1


def test_the_same_number_in_another_window_is_another_draw(model: AdaptedModel) -> None:
    learned = Learned(model, CASES["blob"])
    here, there = learned.drawn(2), learned.drawn(2, window=2)
    assert all(torch.equal(here[name], learned.drawn(2)[name]) for name in here)
    assert not any(torch.equal(here[name], there[name]) for name in here)


def test_scale_and_rank_that_are_no_integers_of_each_other(base: Any, tmp_path: Path) -> None:
    """One class, other sites of unequal widths, another way to pool: nothing is taken from a default."""
    spec = replace(
        SPEC,
        rank=3,
        alpha=0.7,
        pooling="first",
        max_tokens=5,
        sites=r"layer\.[45]\.(output\.dense|attention\.self\.key)$",
    )
    model = AdaptedModel(spec)
    draw = random_draw(model, classes=1, size=0.1)
    folder = written(tmp_path, model, draw, labels=("one",))
    said = ours(model, TEXTS, draw)
    torch.testing.assert_close(theirs(base, spec, folder, TEXTS), said, atol=1e-5, rtol=1e-5)


def random_draw(model: AdaptedModel, *, classes: int, size: float) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {s.name: size * torch.randn(1, *s.shape, generator=rng) for s in model.slots(classes)}


def test_half_precision_stays_with_the_base(tmp_path: Path) -> None:
    spec = replace(SPEC, dtype="bfloat16")
    model = AdaptedModel(spec)
    draw = random_draw(model, classes=2, size=0.1)
    folder = written(tmp_path, model, draw)
    told = json.loads((folder / FACTS).read_text())
    half = AutoModel.from_pretrained(encoder_folder(spec), dtype=getattr(torch, told["base"]["dtype"])).eval()
    adapted = peft.PeftModel.from_pretrained(half, folder).eval()
    tokens = AutoTokenizer.from_pretrained(encoder_folder(spec))(TEXTS[0], return_tensors="pt")
    with torch.no_grad():
        found = adapted(**tokens).last_hidden_state.float()
        hidden, _ = model.hidden([model.activate(TEXTS[0])], draw)
        with adapted.disable_adapter():
            without = adapted(**tokens).last_hidden_state.float()
    apart, say = (found - hidden).square().mean(), (found - without).square().mean()
    assert float(apart) < 1e-3 * float(say)  # a few roundings of half precision, which differ by machine


class Language:
    """The tiny language model under one objective, its weights drawn at random."""

    def __init__(self, home: Path, objective: str) -> None:
        small_llama(home / "llama")
        self.model = AdaptedModel(small_spec(home / "llama", objective=objective))
        self.draw = random_draw(self.model, classes=2, size=0.3)
        self.folder = written(home / "out", self.model, self.draw)
        base = AutoModelForCausalLM.from_pretrained(home / "llama", dtype=torch.float32)
        self.peft = peft.PeftModel.from_pretrained(base, self.folder).eval()


@torch.no_grad()
@pytest.mark.parametrize("objective", ["answer", "tokens"])
def test_a_language_model_s_own_logits_are_ours(objective: str, tmp_path: Path) -> None:
    language = Language(tmp_path, objective)
    model = language.model
    for text in SENTENCES:
        ids = model.tokens(text).unsqueeze(0)
        hidden, _ = model.hidden([model.activate(text)], language.draw)
        with language.peft.disable_adapter():
            without = language.peft(input_ids=ids).logits
        found = language.peft(input_ids=ids).logits
        torch.testing.assert_close(found, model.out.logits(hidden), atol=1e-5, rtol=1e-5)
        assert float((found - without).abs().max()) > 0.1


@torch.no_grad()
def test_answers_are_the_rows_of_what_follows_the_question(tmp_path: Path) -> None:
    language = Language(tmp_path, "answer")
    told, head = json.loads((language.folder / FACTS).read_text()), load_file(language.folder / FILES[2])
    tokenizer = AutoTokenizer.from_pretrained(language.model.spec.encoder)
    ask = tokenizer(told["ask"], add_special_tokens=False)["input_ids"]
    for text in SENTENCES:
        ids = [*tokenizer(text, truncation=True, max_length=told["max_tokens"] - len(ask))["input_ids"], *ask]
        seen = language.peft(input_ids=torch.tensor([ids]), output_hidden_states=True)
        x = seen.hidden_states[-1][:, -1] * told["head"]["scale"]
        found = x @ head["rows"].T + head["bias"]
        torch.testing.assert_close(found, ours(language.model, [text], language.draw), atol=1e-5, rtol=1e-5)
    assert (told["head"]["pooling"], told["head"]["normalised"]) == ("last", False)


def test_a_language_model_asked_for_classes_is_an_encoder(tmp_path: Path) -> None:
    small_llama(tmp_path / "llama")
    spec = small_spec(tmp_path / "llama", pooling="last")
    model = AdaptedModel(spec)
    draw = random_draw(model, classes=2, size=0.3)
    folder = written(tmp_path / "out", model, draw)
    assert json.loads((folder / FACTS).read_text())["base"]["load_with"] == "AutoModel"
    base = AutoModel.from_pretrained(tmp_path / "llama", dtype=torch.float32).eval()
    said = ours(model, SENTENCES, draw)
    torch.testing.assert_close(theirs(base, spec, folder, SENTENCES), said, atol=1e-5, rtol=1e-5)


def test_tokens_have_no_rows(tmp_path: Path) -> None:
    language = Language(tmp_path, "tokens")
    assert sorted(path.name for path in language.folder.iterdir()) == sorted({*FILES} - {"head.safetensors"})
    assert json.loads((language.folder / FACTS).read_text())["head"] is None


def test_what_the_folder_says_of_itself(model: AdaptedModel) -> None:
    draw = random_draw(model, classes=2, size=0.1)
    told = json.loads(files_of(model, draw, origin(draw=2, panel=True, whose=Whose("süd/east")))[FACTS])
    assert told["adapter"] == "main-1-abababababab-task-s-d-east-" + told["adapter"][-12:]
    assert told["adapter"].endswith("-draw2")
    assert (told["format"], told["snapshot"], told["chain"], told["window"]) == (1, SHA, "main", 1)
    assert told["weights"] == {"kind": "draw", "number": 2, "of": 3, "chain_seed": 1}
    assert told["head"]["labels"] == list(LABELS)
    assert told["base"]["encoder"] == SPEC.encoder
    assert "class rows alone" in told["panel"]
    assert (told["task"], told["max_tokens"]) == ("süd/east", 16)


def test_no_two_weights_have_one_name() -> None:
    named = [Whose(None), Whose(""), Whose(None, new=True), Whose("new-task"), Whose("a/b"), Whose("a-b")]
    names = [
        origin(whose=task, draw=draw, snapshot=sha).name
        for task in named
        for draw in (None, 0, 1)
        for sha in ("1" * 64, "2" * 64)
    ]
    assert len(set(names)) == len(names)
    assert all(set(name) <= {*"abcdefghijklmnopqrstuvwxyz0123456789-"} for name in names)


@pytest.mark.parametrize("part", ["adapter", "prefix"])
def test_what_has_no_place_in_a_peft_folder_is_refused(part: str) -> None:
    model = AdaptedModel(replace(SPEC, parts=("lora", part)))  # type: ignore[arg-type] # a part by its name
    with pytest.raises(NoPeftForm, match=rf"adapts by {part}.*model\.parts"):
        files_of(model, random_draw(model, classes=2, size=0.1), origin())


def test_signs_of_every_token_are_refused_and_their_mean_is_not(model: AdaptedModel) -> None:
    learned = Learned(model, FamilySpec(name="blob", options={"flipout": True}))
    files_of(model, learned.drawn(None), origin())
    with pytest.raises(NoPeftForm, match="export the mean"):
        files_of(model, learned.drawn(0), origin(draw=0))


def tasked(model: AdaptedModel, tasks: Sequence[str]) -> tuple[Any, Hierarchy]:
    """Return BoRA's belief after a window whose members are of these tasks in turn."""
    spec = FamilySpec(name="bora", options={"apart": 2.0})
    asked = order(0, {}, known=False, family=spec)
    told = tuple(tasks[i % len(tasks)] for i in range(len(asked.members)))
    outcome = Local(model).carry_out(replace(asked, learn=FAR, member_tasks=told))
    family = make_family(spec.name, spec.options)
    return family, family.restore(outcome.tensors)


def test_of_several_tasks_one_is_named(model: AdaptedModel, base: Any, tmp_path: Path) -> None:
    family, state = tasked(model, ["north", "", "south/east"])
    assert known_tasks(state) == ["", "north", "south/east"]
    with pytest.raises(NotSingle, match=r"name one; there are '' \(of.*'north', 'south/east'"):
        whose(family, state, named=None, new=False)
    with pytest.raises(NotSingle, match="there is no task 'nroth'; there are"):
        whose(family, state, named="nroth", new=False)
    said = {}
    for task in known_tasks(state):
        meant = whose(family, state, named=task, new=False)
        draw = drawn(family, state, meant, number=None, chain_seed=1, window=1)
        opened = family.open(state, known_tasks(state))
        rows = family.mean(opened, known_tasks(state))[HEAD][known_tasks(state).index(task)]
        torch.testing.assert_close(draw[HEAD][0], rows)
        folder = written(tmp_path, model, draw, whose=meant)
        said[task] = theirs(base, SPEC, folder, TEXTS)
        torch.testing.assert_close(said[task], ours(model, TEXTS, draw), atol=1e-5, rtol=0)
    assert not torch.allclose(said["north"], said["south/east"], atol=1e-3)


def test_a_new_task_s_mean_is_the_shared_centre(model: AdaptedModel) -> None:
    """By the joint law written out: E x_new = E Theta, the messages' shifts over the sum of precisions."""
    family, state = tasked(model, ["north", "south"])
    meant = whose(family, state, named=None, new=True)
    draw = drawn(family, state, meant, number=None, chain_seed=1, window=1)
    for slot, centre in state.mean.items():
        tau, precision = state.tau[slot].double(), torch.ones(centre.shape, dtype=torch.float64)
        pull = torch.zeros_like(precision)
        for task in ("north", "south"):
            own = state.precision[f"{task}/{slot}"].double()
            precision = precision + own * tau / (own + tau)
            pull = pull + tau * state.shift[f"{task}/{slot}"].double() / (own + tau)
        theta = centre.double() + state.log_sd[slot].double().exp() * pull / precision
        torch.testing.assert_close(draw[slot][0].double(), theta, atol=1e-6, rtol=1e-5)


def test_before_any_task_the_shared_centre_and_with_one_that_one(model: AdaptedModel) -> None:
    family, state = tasked(model, ["north"])
    assert whose(family, state, named=None, new=False) == Whose("north")
    start = family.base(model.slots(0), seed=1, centres={})
    assert whose(family, start, named=None, new=False) == Whose(None, new=True)
    with pytest.raises(NotSingle, match=r"there is no task 'north'\. --new-task"):
        whose(family, start, named="north", new=False)


def test_where_all_tasks_have_the_same_weights_none_is_named(model: AdaptedModel) -> None:
    state = Point().base(model.slots(2), seed=1, centres={})
    assert whose(Point(), state, named=None, new=False) == Whose(None)
    for named, new in (("north", False), (None, True)):
        with pytest.raises(NotSingle, match="the same weights for all tasks"):
            whose(Point(), state, named=named, new=new)


def test_a_merged_class_is_named_once_for_each_of_its_rows(model: AdaptedModel, tmp_path: Path) -> None:
    draw = Learned(model, FamilySpec(name="point")).drawn(None)
    folder = written(tmp_path, model, draw, labels=("talk", "talk"))
    assert json.loads((folder / FACTS).read_text())["head"]["labels"] == ["talk", "talk"]
    assert torch.equal(load_file(folder / "head.safetensors")["rows"], draw[HEAD][0, :, :-1])
