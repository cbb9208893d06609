"""A causal language model that is cut, asked for classes, answers and tokens: against transformers alone."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaForCausalLM,
    LlamaModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from posterior.blob import Blob
from posterior.families import FAMILIES
from posterior.family import ONE_TASK, Tensors
from posterior.gaussian_lowrank import GaussianLowRank
from tests.trainers.languages import (
    TEXTS,
    WORDS,
    adapted,
    logits_of,
    save_words,
    small_config,
    small_llama,
    small_spec,
)
from trainers.activations import Activations
from trainers.evaluate import draws_of
from trainers.language import NextToken, NextTokens
from trainers.model import HEAD, AdaptedModel, Objective
from trainers.noise import key
from trainers.question import WhichClass
from trainers.unembedding import NoPlainOutput
from trainers.update import InProcess, Job, Schedule, _gradient, _rows
from trainers.window import FamilySpec, LearnSpec, Local, Order, root

SCALE = 2.0  # alpha / rank
KAPPA = 0.4
MEMBERS = tuple((text, "linux") for text in TEXTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("llama")
    small_llama(made)
    return made


@pytest.fixture(scope="module")
def whole(folder: Path) -> LlamaForCausalLM:
    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def tokens(folder: Path) -> AdaptedModel:
    return AdaptedModel(small_spec(folder, objective="tokens"))


@pytest.fixture(scope="module")
def answer(folder: Path) -> AdaptedModel:
    return AdaptedModel(small_spec(folder, objective="answer"))


def ids_of(text: str) -> list[int]:
    return [2 + WORDS.index(word) for word in text.split()]


def random_draw(model: AdaptedModel, n: int, *, seed: int = 0, classes: int = 2) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return {s.name: 0.3 * torch.randn(n, *s.shape, generator=rng) for s in model.slots(classes)}


def one(draw: dict[str, Tensor], i: int) -> dict[str, Tensor]:
    return {k: v[i] for k, v in draw.items()}


@torch.no_grad()
def test_prefix_and_top_make_the_model_padded_on_the_right(
    tokens: AdaptedModel, whole: LlamaForCausalLM
) -> None:
    """All texts in one batch of unequal lengths with a draw each, against each alone with merged weights."""
    draw = random_draw(tokens, len(TEXTS))
    hidden, mask = tokens.hidden([tokens.activate(t) for t in TEXTS], draw)
    assert mask.sum(dim=1).tolist() == [7, 2, 1, 8]
    for i, text in enumerate(TEXTS):
        by_hand = logits_of(whole, adapted(whole, one(draw, i), SCALE), ids_of(text))
        found = tokens.out.logits(hidden[i, : len(by_hand)])
        torch.testing.assert_close(found, by_hand, atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_layers_of_two_kinds_keep_their_kind_above_the_cut(tmp_path: Path) -> None:
    """Layer 1 sees two tokens back and layer 3 all: a top that counts its layers from 0 would swap them."""
    torch.manual_seed(0)
    config = Qwen3Config(
        **{k: v for k, v in small_config().to_dict().items() if k in _SHARED},
        head_dim=8,
        use_sliding_window=True,
        sliding_window=2,
        layer_types=["full_attention", "sliding_attention", "full_attention", "sliding_attention"],
    )
    made = Qwen3ForCausalLM(config)
    made.save_pretrained(tmp_path)
    save_words(tmp_path)
    model = AdaptedModel(small_spec(tmp_path, objective="tokens", sites=r"layers\.3\.self_attn\.q_proj$"))
    draw = {s.name: torch.zeros(1, *s.shape) for s in model.slots(0)}
    hidden, _ = model.hidden([model.activate(TEXTS[0])], draw)
    ids = model.tokens(TEXTS[0])
    assert len(set(ids.tolist())) > 4  # of equal tokens, any window shows the same
    by_hand = made(input_ids=ids.unsqueeze(0)).logits[0]
    torch.testing.assert_close(model.out.logits(hidden[0]), by_hand, atol=2e-4, rtol=1e-4)


_SHARED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "initializer_range",
)


@torch.no_grad()
def test_the_last_real_token_is_pooled(folder: Path, whole: LlamaForCausalLM) -> None:
    model = AdaptedModel(small_spec(folder, pooling="last"))
    draw = {s.name: torch.zeros(1, *s.shape) for s in model.slots(1)}
    draw[HEAD] = torch.cat([torch.eye(model.dim), torch.zeros(model.dim, 1)], dim=1).unsqueeze(0)
    found = model.logits([model.activate(t) for t in TEXTS], draw)
    last = [whole.model(input_ids=torch.tensor([ids_of(t)])).last_hidden_state[0, -1] for t in TEXTS]
    by_hand = torch.stack([functional.normalize(h, dim=0) * 32**0.5 for h in last])
    torch.testing.assert_close(found, by_hand, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_answer_begins_as_the_model_s_own(answer: AdaptedModel, whole: LlamaForCausalLM) -> None:
    """Zero shot: the base prior's mean gives the labels' words the logits the model gives them."""
    labels = ("spam", "linux", "news")
    base = Blob().base(answer.slots(3), seed=1, centres=answer.centres(labels))
    found = answer.logits([answer.activate(t) for t in TEXTS], Blob().mean(base, [ONE_TASK]))
    plain: dict[str, Tensor] = dict(whole.named_parameters())
    rows = [logits_of(whole, plain, [*ids_of(t), *ids_of(":")])[-1, ids_of(" ".join(labels))] for t in TEXTS]
    torch.testing.assert_close(found, torch.stack(rows), atol=2e-4, rtol=1e-4)


def test_a_draw_doubts_an_answer_without_drowning_it(answer: AdaptedModel) -> None:
    """Class rows meet features of a fifth of the length they have elsewhere."""
    features = answer.features([answer.activate(t) for t in TEXTS], random_draw(answer, 1))
    assert 0.12 < float(features.square().mean().sqrt()) < 0.3


def test_a_text_is_cut_but_never_what_is_asked(answer: AdaptedModel) -> None:
    long = " ".join(["kernel"] * 30)
    assert answer.tokens(long).tolist() == ids_of(" ".join(["kernel"] * 11 + [":"]))


def test_new_classes_leave_the_others_centres(answer: AdaptedModel) -> None:
    two, three = answer.centres(("spam", "linux"))[HEAD], answer.centres(("spam", "linux", "news"))[HEAD]
    assert torch.equal(three[:2], two)
    assert answer.centres(())[HEAD].shape == (0, 33)


LEARN = LearnSpec(draws=2, beta_sample=8, token_correlation=KAPPA)


def order(index: int, labels: tuple[str, ...], before: tuple[str, ...], parent: Tensors) -> Order:
    return Order(
        window=index,
        family=FamilySpec(name="blob"),
        learn=replace(LEARN, schedule=Schedule(epochs=2, batch=4)),
        chain_seed=1,
        seed=7 + index,
        parent=parent,
        labels_before=before,
        labels=labels,
        arrivals=tuple(TEXTS),
        members=tuple((text, labels[i % len(labels)]) for i, text in enumerate(TEXTS * 2)),
    )


@pytest.mark.parametrize("objective", ["classes", "answer"])
def test_views_have_the_length_that_a_panel_supposes(folder: Path, objective: Objective) -> None:
    """Its constants are about a mean square of 1, whatever length class rows of an answer want."""
    views = Activations(AdaptedModel(small_spec(folder, objective=objective))).sight(TEXTS).views
    torch.testing.assert_close(views.square().mean(dim=2), torch.ones(views.shape[:2]))


def test_classes_that_appear_start_at_their_own_words(answer: AdaptedModel) -> None:
    """A chain of two windows: the new row lies a step from its own centre, the old ones went on."""
    local, start = Local(answer), root(answer, FamilySpec(name="blob"), chain_seed=1)
    first = local.carry_out(order(0, ("spam", "linux"), (), start))
    both = ("spam", "linux", "news")
    second = local.carry_out(order(1, both, ("spam", "linux"), first.tensors))
    centres, mean = answer.centres(both)[HEAD], second.tensors["mean/head"]
    gaps = (mean - centres).norm(dim=1)
    assert mean.shape == centres.shape
    assert float(gaps.max()) < 0.25 * float((centres[0] - centres[2]).norm())
    assert not torch.equal(first.tensors["mean/head"], centres[:2])


def test_a_label_the_tokenizer_makes_nothing_of_is_refused(answer: AdaptedModel) -> None:
    with pytest.raises(ValueError, match="makes nothing of the label ' '"):
        answer.centres((" ",))


def test_a_model_without_an_output_embedding_is_asked_for_classes_only(tmp_path: Path) -> None:
    torch.manual_seed(0)
    LlamaModel(small_config()).save_pretrained(tmp_path)
    save_words(tmp_path)
    with pytest.raises(NoPlainOutput, match=r"no output embedding.*lm_head.*for classes only"):
        AdaptedModel(small_spec(tmp_path, objective="tokens"))


def test_a_model_that_caps_its_logits_is_asked_for_classes_only(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shared = {k: v for k, v in small_config().to_dict().items() if k in _SHARED}
    config = Gemma2Config(**shared, head_dim=8, final_logit_softcapping=2.0)
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    save_words(tmp_path)
    with pytest.raises(NoPlainOutput, match="in a way of its own"):
        AdaptedModel(small_spec(tmp_path, objective="tokens"))


FAMILY = Blob()


def learned(tokens: AdaptedModel) -> tuple[NextToken, float]:
    found, evidence = NextTokens(tokens, Activations(tokens), KAPPA).evidence(MEMBERS, ("linux",))
    assert isinstance(found, NextToken)
    return found, evidence


def test_the_objective_is_the_evidence_lower_bound_written_out(
    tokens: AdaptedModel, whole: LlamaForCausalLM
) -> None:
    """gradient of [kappa sum_texts sum_tokens nll + KL] / (kappa tokens), by transformers and by hand.

    Fails if N_t counts texts, if nll is not shifted by one, if kappa weighs the wrong side or if the mean
    is over texts and not over tokens.
    """
    likelihood, evidence = learned(tokens)
    count = sum(len(text.split()) - 1 for text in TEXTS)
    assert evidence == pytest.approx(KAPPA * count)
    prior = FAMILY.base(tokens.slots(0), seed=1, centres={})
    rng = torch.Generator().manual_seed(3)
    at = {k: 0.5 * torch.randn(v.shape, generator=rng) for k, v in FAMILY.origin(prior).items()}
    job = Job(
        family=FAMILY,
        prior=prior,
        likelihood=likelihood,
        tasks=[ONE_TASK] * len(TEXTS),
        schedule=Schedule(),
        evidence=evidence,
        seed=5,
        ranks=InProcess(),
    )
    _, found = _gradient(job, prior, at, range(len(TEXTS)), 0, pace=1.0)

    leaves = {k: v.clone().requires_grad_() for k, v in at.items()}
    state = FAMILY.place(prior, leaves, shape=prior)
    cost = FAMILY.kl(state, prior).float()
    for i, text in enumerate(TEXTS):
        draw = FAMILY.sample(state, job.noise(state, [key(5, 0, i, 0)]), [ONE_TASK])
        ids = ids_of(text)
        logits = logits_of(whole, adapted(whole, one(dict(draw), 0), SCALE), ids)
        for t in range(1, len(ids)):
            cost = cost - KAPPA * torch.log_softmax(logits[t - 1], dim=0)[ids[t]]
    by_hand = torch.autograd.grad(cost / (KAPPA * count), list(leaves.values()))
    for name, gradient in zip(leaves, by_hand, strict=True):
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-3, msg=name)


def test_rows_of_curvature_are_the_gauss_newton_matrix_on_average(
    tokens: AdaptedModel, whole: LlamaForCausalLM
) -> None:
    """E[g g'] times N_t/N against kappa sum_t J_t' (diag p - p p') J_t, along one direction."""
    likelihood, evidence = learned(tokens)
    family = GaussianLowRank()
    state = family.open(family.base(tokens.slots(0), seed=1, centres={}), [ONE_TASK])
    rng = torch.Generator().manual_seed(1)
    slots = tokens.slots(0)
    weights = {s.name: 0.3 * torch.randn(s.shape, generator=rng) for s in slots}
    along = {s.name: torch.randn(s.shape, generator=rng) for s in slots}
    text = 0
    ids = ids_of(TEXTS[text])

    def logits(step: Tensor) -> Tensor:
        moved = {k: v + step * along[k] for k, v in weights.items()}
        return logits_of(whole, adapted(whole, moved, SCALE), ids)[:-1]

    slope = (logits(torch.tensor(1e-2)) - logits(torch.tensor(-1e-2))).detach() / 2e-2
    p = torch.softmax(logits(torch.zeros(())), dim=-1).detach()
    exact = ((p * slope.square()).sum(dim=1) - (p * slope).sum(dim=1).square()).sum()

    signs = torch.randn(600, likelihood.outputs, generator=rng).sign()
    n = 60
    leaves = {k: v.expand(n, *v.shape).clone().requires_grad_() for k, v in weights.items()}
    squares = []
    for start in range(0, len(signs), n):
        value = likelihood.bend([text] * n, leaves, signs[start : start + n])
        g = torch.autograd.grad(value, list(leaves.values()))
        moves = [(a * along[k]).flatten(1).sum(dim=1) for a, k in zip(g, leaves, strict=True)]
        squares.append(torch.stack(moves).sum(dim=0).square())
    drawn = torch.cat(squares).detach() * (evidence / len(TEXTS))
    error = float(drawn.std()) / math.sqrt(len(drawn))
    assert abs(float(drawn.mean()) - KAPPA * float(exact)) < 4 * error
    assert error < 0.1 * KAPPA * float(exact)
    job = Job(
        family=family,
        prior=state,
        likelihood=likelihood,
        tasks=[ONE_TASK] * len(TEXTS),
        schedule=Schedule(),
        evidence=evidence,
        seed=5,
        ranks=InProcess(),
    )
    assert _rows(job, state, range(len(TEXTS)), 0).shape[0] == len(TEXTS)


@torch.no_grad()
def test_a_forecast_is_what_the_mixture_says_of_the_whole_text(
    tokens: AdaptedModel, whole: LlamaForCausalLM
) -> None:
    state = FAMILY.base(tokens.slots(0), seed=1, centres={})
    draws = draws_of(FAMILY, state, tasks=[ONE_TASK] * 4, count=3, seed=2)
    question = NextTokens(tokens, Activations(tokens), KAPPA)
    found = question.foretell(TEXTS, [ONE_TASK] * 4, draws)
    for i, text in enumerate(TEXTS):
        ids, logs = ids_of(text), []
        for draw in draws:
            weights = adapted(whole, one(dict(draw([ONE_TASK])), 0), SCALE)
            said = torch.log_softmax(logits_of(whole, weights, ids), dim=-1)
            logs.append(sum(float(said[t - 1, ids[t]]) for t in range(1, len(ids))))
        nats = math.log(3) - float(torch.logsumexp(torch.tensor(logs), dim=0))
        assert found[i].tolist() == pytest.approx([nats, len(ids) - 1], abs=1e-4)


WIDE = {"point": {"scale": 0.3}}  # what a family's own steps are to reach the tiny model's weights


@pytest.mark.parametrize("name", FAMILIES)
def test_tokens_are_foretold_before_they_are_learned_and_better_after(folder: Path, name: str) -> None:
    """Over a base in bfloat16, with a belief in float32."""
    model = AdaptedModel(small_spec(folder, objective="tokens", dtype="bfloat16"))
    wide = FamilySpec(name=name, options=WIDE.get(name, {"sd_up": 0.3}))
    start, local = root(model, wide, chain_seed=1), Local(model)
    assert all("head" not in name for name in start)
    asked = replace(order(0, ("linux",), (), start), family=wide)
    first = local.carry_out(replace(asked, members=asked.members * 20))
    assert first.columns == ("nats", "tokens")
    assert {v.dtype for v in first.tensors.values()} <= {torch.float32, torch.float64, torch.int64}
    then = replace(order(1, ("linux",), ("linux",), first.tensors), family=wide)
    second = local.carry_out(then)
    costs = [sum(row[0] for row in outcome.forecasts) for outcome in (first, second)]
    assert costs[1] < 0.8 * costs[0]
    assert set(second.beta_nll) <= {"1.0", "0.999", "0.99", "0.9", "0.5", "0.0"}


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_are_learned_by_every_family(answer: AdaptedModel, name: str) -> None:
    model, family = answer, FamilySpec(name=name, options=WIDE.get(name, {"sd_up": 0.3}))
    start, labels = root(model, family, chain_seed=1), ("spam", "linux")
    asked = replace(order(0, labels, (), start), family=family)
    first = Local(model).carry_out(replace(asked, members=asked.members * 20))
    second = Local(model).carry_out(replace(order(1, labels, labels, first.tensors), family=family))
    assert all(row[i % 2] > 0.5 for i, row in enumerate(second.forecasts)), "a text always had one label"


def test_a_frozen_b_waits_for_no_second_label_where_tokens_are_learned(tokens: AdaptedModel) -> None:
    """Labels say when a text may be learned; waiting for another one would forget A in every window."""
    family = FamilySpec(name="blob", options={"b": "frozen", "sd_up": 0.3})
    asked = replace(order(0, ("linux",), (), root(tokens, family, chain_seed=1)), family=family)
    assert Local(tokens).carry_out(replace(asked, members=asked.members * 5)).tensors["flags/b_frozen"] == 1


def test_the_more_a_token_counts_the_further_a_window_moves(tokens: AdaptedModel) -> None:
    wide = FamilySpec(name="blob", options={"sd_up": 0.3})
    asked = replace(order(0, ("linux",), (), root(tokens, wide, chain_seed=1)), family=wide)
    little, much = (
        Local(tokens).carry_out(replace(asked, learn=replace(asked.learn, token_correlation=kappa)))
        for kappa in (0.02, 1.0)
    )
    assert much.kl > 2 * little.kl


def test_texts_of_one_token_teach_nothing(tokens: AdaptedModel) -> None:
    start = root(tokens, FamilySpec(name="blob"), chain_seed=1)
    alone = (("cheap", "linux"),)
    outcome = Local(tokens).carry_out(replace(order(0, ("linux",), (), start), members=alone))
    assert outcome.steps == 0
    assert all(torch.equal(v, start[k]) for k, v in outcome.tensors.items())


def test_a_class_counts_once_and_a_text_by_its_tokens(answer: AdaptedModel, tokens: AdaptedModel) -> None:
    _, by_class = WhichClass(answer, Activations(answer)).evidence(MEMBERS, ("linux",))
    _, by_token = NextTokens(tokens, Activations(tokens), 1.0).evidence(MEMBERS, ("linux",))
    assert (by_class, by_token) == (4.0, 14.0)


def test_workers_change_rounding_only(tokens: AdaptedModel) -> None:
    start = root(tokens, FamilySpec(name="blob"), chain_seed=1)
    one_rank, two = (Local(tokens, world=w).carry_out(order(0, ("linux",), (), start)) for w in (1, 2))
    assert one_rank.forecasts == two.forecasts
    for name, value in one_rank.tensors.items():
        torch.testing.assert_close(value, two.tensors[name], atol=1e-4, rtol=1e-3)


def test_an_empty_text_has_an_activation(tokens: AdaptedModel) -> None:
    assert tokens.activate("").shape == (1, 32)
