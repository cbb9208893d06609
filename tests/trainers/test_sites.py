"""LoRA, adapter and prefix against layers written out by hand, on a BERT and on a Llama."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from posterior.blob import Blob
from posterior.family import ONE_TASK, Draw, Slot
from posterior.flipout import SIGNS
from tests.trainers.conftest import SPEC
from trainers.model import HEAD, AdaptedModel, ModelSpec, _take_prefixes, encoder_folder
from trainers.noise import key, normals
from trainers.sites import Lora, NoSuchSite, prefixed

TEXTS = ["the meeting of the users group is on thursday in the usual place at eight", "cheap", "a b"]
ALL = replace(SPEC, parts=("lora", "adapter", "prefix"), prefix_length=3, adapter_size=5)
LAYER = "encoder.layer.5."
Matrices = dict[str, Tensor]


@pytest.fixture(scope="module")
def hybrid() -> AdaptedModel:
    return AdaptedModel(ALL)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> AdaptedModel:
    """Return a small Llama with two query heads to a key head, adapted in its last two layers."""
    folder = tmp_path_factory.mktemp("llama")
    for path in encoder_folder(SPEC).glob("*token*"):
        shutil.copy(path, folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=30522,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=True,
        initializer_range=0.3,
    )
    LlamaModel(config).save_pretrained(folder)
    spec = ModelSpec(
        encoder=str(folder),
        parts=("lora", "adapter", "prefix"),
        sites=r"layers\.[23]\.self_attn\.(q|v)_proj$",
        adapter_sites=r"layers\.[23]\.mlp$",
        prefix_sites=r"layers\.[23]\.self_attn$",
        prefix_length=3,
        max_tokens=16,
    )
    return AdaptedModel(spec)


def random_draw(model: AdaptedModel, n: int, *, seed: int = 0, size: float = 0.3) -> dict[str, Tensor]:
    """Return weights of n sequences, and a head whose logits are the features themselves."""
    rng = torch.Generator().manual_seed(seed)
    draw = {s.name: size * torch.randn(n, *s.shape, generator=rng) for s in model.slots(1)}
    return draw | {HEAD: torch.cat([torch.eye(model.dim), torch.zeros(model.dim, 1)], dim=1).unsqueeze(0)}


def row(draw: Draw, i: int) -> Matrices:
    return {k: v[i if v.shape[0] > 1 else 0] for k, v in draw.items()}


def features(model: AdaptedModel, draw: Draw) -> Tensor:
    with torch.no_grad():
        return model.logits([model.activate(t) for t in TEXTS], draw)


def pooled(hidden: Tensor) -> Tensor:
    unit: Tensor = functional.normalize(hidden.mean(dim=0), dim=0) * float(hidden.shape[1]) ** 0.5
    return unit


def lora(layer: Any, x: Tensor, w: Matrices, name: str, scale: float) -> Tensor:
    out: Tensor = layer(x) + scale * (x @ w[f"{name}.A"].T) @ w[f"{name}.B"].T
    return out


def attended(q: Tensor, k: Tensor, v: Tensor, heads: int, seen: Tensor) -> Tensor:
    """Attend head by head: q (T, heads * d), k and v (S, kv heads * d), seen (T, S)."""
    wide = q.shape[1] // heads
    groups = heads // (k.shape[1] // wide)
    out = []
    for head in range(heads):
        mine, theirs = (slice(h * wide, (h + 1) * wide) for h in (head, head // groups))
        scores = (q[:, mine] @ k[:, theirs].T / wide**0.5).masked_fill(~seen, -torch.inf)
        out.append(torch.softmax(scores, dim=1) @ v[:, theirs])
    return torch.cat(out, dim=1)


def bert_layer(layer: Any, x: Tensor, w: Matrices) -> Tensor:
    """Return one layer's output for one text, (T, d), every part written out."""
    own, at = layer.attention.self, f"{LAYER}attention.self"
    q = lora(own.query, x, w, f"{at}.query", ALL.alpha / ALL.rank)
    v = torch.cat([w[f"{at}.prefix.V"], lora(own.value, x, w, f"{at}.value", ALL.alpha / ALL.rank)])
    k = torch.cat([w[f"{at}.prefix.K"], own.key(x)])
    mixed = attended(q, k, v, 12, torch.ones(len(x), len(k), dtype=torch.bool))
    after = layer.attention.output
    y = after.LayerNorm(after.dense(mixed) + x)
    inner = functional.gelu(layer.intermediate.dense(y))
    beside = torch.relu(y @ w[f"{LAYER}intermediate.adapter.A"].T) @ w[f"{LAYER}intermediate.adapter.B"].T
    out: Tensor = layer.output.LayerNorm(layer.output.dense(inner) + 4.0 * beside + y)
    return out


@torch.no_grad()
def test_all_parts_on_a_bert_layer_written_out(hybrid: AdaptedModel) -> None:
    """Each text alone and unpadded, against all of them in one padded batch with a draw each."""
    draw = random_draw(hybrid, len(TEXTS))
    layer = hybrid._bottom.get_submodule("encoder.layer.5")
    by_hand = [pooled(bert_layer(layer, hybrid.activate(text), row(draw, i))) for i, text in enumerate(TEXTS)]
    torch.testing.assert_close(features(hybrid, draw), torch.stack(by_hand), atol=1e-4, rtol=1e-4)


def llama_layer(model: Any, index: int, x: Tensor, w: Matrices) -> Tensor:
    layer, at = model.layers[index], f"layers.{index}."
    own, y = layer.self_attn, layer.input_layernorm(x)
    q, v = (lora(getattr(own, n), y, w, f"{at}self_attn.{n}", 2.0) for n in ("q_proj", "v_proj"))
    cos, sin = model.rotary_emb(x[None], torch.arange(len(x))[None])
    heads, kv = (t.unflatten(1, (-1, 8)).transpose(0, 1)[None] for t in (q, own.k_proj(y)))
    q, k = (t[0].transpose(0, 1).flatten(1) for t in apply_rotary_pos_emb(heads, kv, cos, sin))
    prefix_k, prefix_v = (w[f"{at}self_attn.prefix.{n}"] for n in "KV")
    seen = torch.ones(len(x), len(x) + 3, dtype=torch.bool).tril(3)  # the prefix, and what came before
    x = x + own.o_proj(attended(q, torch.cat([prefix_k, k]), torch.cat([prefix_v, v]), 4, seen))
    y = layer.post_attention_layernorm(x)
    beside = torch.relu(y @ w[f"{at}mlp.adapter.A"].T) @ w[f"{at}mlp.adapter.B"].T
    out: Tensor = x + layer.mlp(y) + 4.0 * beside
    return out


@torch.no_grad()
@pytest.mark.parametrize("texts", [[0], [1], [0, 1, 2]], ids=["unpadded", "one word", "padded"])
def test_all_parts_on_a_causal_model_with_grouped_heads(llama: AdaptedModel, texts: list[int]) -> None:
    """Unpadded batches come without a mask, which then must be causal beyond the prefix."""
    draw = random_draw(llama, len(texts))
    whole, by_hand = llama._bottom, []
    for i, text in enumerate(texts):
        hidden, weights = llama.activate(TEXTS[text]), row(draw, i)
        for index in (2, 3):
            hidden = llama_layer(whole, index, hidden, weights)
        by_hand.append(pooled(whole.get_submodule("norm")(hidden)))
    found = llama.logits([llama.activate(TEXTS[t]) for t in texts], draw)
    torch.testing.assert_close(found, torch.stack(by_hand), atol=1e-4, rtol=1e-4)


@pytest.fixture(params=["hybrid", "llama"])
def either(request: pytest.FixtureRequest) -> AdaptedModel:
    model: AdaptedModel = request.getfixturevalue(request.param)
    return model


def test_one_sequence_s_draw_leaves_the_others_bit_for_bit(either: AdaptedModel) -> None:
    draw, other = random_draw(either, 3), random_draw(either, 3, seed=1)
    before = features(either, draw)
    for slot in either.slots(1)[:-1]:
        changed = draw[slot.name].clone()
        changed[1] = other[slot.name][1]
        after = features(either, draw | {slot.name: changed})
        assert torch.equal(after[[0, 2]], before[[0, 2]]), slot
        assert not torch.allclose(after[1], before[1], atol=1e-4), slot


def test_a_shared_draw_is_each_one_s_draw(either: AdaptedModel) -> None:
    draw = random_draw(either, 1)
    each = {k: v.expand(3, *v.shape[1:]) for k, v in draw.items()}
    torch.testing.assert_close(features(either, draw), features(either, each), atol=1e-5, rtol=1e-4)


def test_every_slot_and_every_row_of_it_is_reached_by_a_gradient(either: AdaptedModel) -> None:
    draw = {k: v.requires_grad_() for k, v in random_draw(either, 3).items()}
    out = either.logits([either.activate(t) for t in TEXTS], draw)
    slots = [s.name for s in either.slots(1)]
    gradients = torch.autograd.grad(out.square().sum(dim=0)[0], [draw[n] for n in slots])
    for name, gradient in zip(slots, gradients, strict=True):
        assert bool((gradient.flatten(1).abs().amax(dim=1) > 0).all()), name


def test_where_no_prefix_is_given_attention_is_what_it_was_bit_for_bit() -> None:
    model = AdaptedModel(SPEC)
    draw = random_draw(model, 3)
    before = features(model, draw)
    config: Any = model._top.config
    assert config._attn_implementation == "sdpa"
    _take_prefixes(model._top)
    assert torch.equal(features(model, draw), before)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_a_mask_is_widened_in_its_own_kind(dtype: torch.dtype) -> None:
    """Key 1 of the attention's own two is hidden: taking it away altogether changes nothing."""
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, n, 4, generator=rng) for n in (3, 2, 2))
    prefix = (torch.randn(1, 5, 8, generator=rng), torch.randn(1, 5, 8, generator=rng))
    hidden = torch.tensor([[[[True, False]]]])
    mask = hidden if dtype == torch.bool else torch.zeros(1, 1, 1, 2).masked_fill(~hidden, -torch.inf)
    attend: Callable[..., Any] = prefixed(sdpa_attention_forward)
    module = nn.Module()
    masked = attend(module, q, k, v, mask.expand(1, 1, 3, 2), prefix=prefix, is_causal=False)[0]
    without = attend(module, q, k[:, :, :1], v[:, :, :1], None, prefix=prefix, is_causal=False)[0]
    torch.testing.assert_close(masked, without)


def test_slots_come_part_by_part_whatever_the_order_they_were_asked_in(hybrid: AdaptedModel) -> None:
    roles = [slot.role for slot in hybrid.slots(2)]
    assert roles == [
        *["down", "up"] * 2,
        *["adapter_down", "adapter_up"],
        *["prefix_key", "prefix_value"],
        "head",
    ]
    turned = AdaptedModel(replace(ALL, parts=("prefix", "lora", "adapter")))
    assert turned.slots(2) == hybrid.slots(2)
    assert Slot(f"{LAYER}attention.self.prefix.V", (3, 384), "prefix_value") in hybrid.slots(2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"adapter_sites": r"layer\.5\.output$"}, "no feed-forward block; there are .*layer.0.intermediate"),
        ({"adapter_sites": r"layer\.9"}, "no feed-forward block"),
        ({"prefix_sites": r"layer\.5\.output"}, "no attention; there are .*layer.0.attention.self"),
        ({"sites": r"(layer\.5|pooler).*dense$"}, "no one stack of layers holds all of .*pooler"),
    ],
)
def test_what_cannot_be_adapted_is_named(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(NoSuchSite, match=said):
        AdaptedModel(replace(ALL, **wrong))  # type: ignore[arg-type]


def test_a_warm_start_needs_the_part_it_is_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds LoRA weights, but the model has no such part"):
        AdaptedModel(replace(SPEC, parts=("adapter",), warm_start=str(tmp_path)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_site_computes_in_float32_and_rounds_the_sum_once(dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(0)
    layer = nn.Linear(16, 16).to(dtype)
    x = torch.randn(2, 5, 16, generator=rng).to(dtype)
    site = Lora(name="q", inputs=16, outputs=16, rank=4, scale=2.0)
    draw = {slot.name: torch.randn(2, *slot.shape, generator=rng) for slot in site.slots}
    plain = layer(x)
    site.attach(lambda _: layer, lambda: draw)
    delta = 2.0 * ((x.float() @ draw["q.A"].transpose(1, 2)) @ draw["q.B"].transpose(1, 2))
    assert torch.equal(layer(x), (plain.float() + delta).to(dtype))


def test_flipout_s_signs_are_each_text_s_own(hybrid: AdaptedModel) -> None:
    """Neither its neighbours nor the padding that they need change what a text sees."""
    family = Blob(flipout=True, sd_up=0.3)
    state = family.base(hybrid.slots(2), seed=1, centres={})
    keys = [key(1, i) for i in range(len(TEXTS))]
    noise, hidden = normals(family.noise(state), keys), [hybrid.activate(t) for t in TEXTS]
    whole = family.sample(state, noise, [ONE_TASK] * len(TEXTS))
    together = hybrid.logits(hidden, whole)
    for i, (text, one) in enumerate(zip(hidden, keys, strict=True)):
        alone = family.sample(state, normals(family.noise(state), [one]), [ONE_TASK])
        torch.testing.assert_close(hybrid.logits([text], alone)[0], together[i], atol=1e-4, rtol=1e-4)
    plain = {k: v for k, v in whole.items() if k != SIGNS}
    assert not torch.allclose(hybrid.logits(hidden, plain), together, atol=1e-3)
