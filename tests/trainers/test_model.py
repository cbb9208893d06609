"""The encoder cut in two says what the whole encoder says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from posterior.family import Draw
from tests.trainers.conftest import SPEC
from tests.trainers.orders import answers
from trainers.model import HEAD, AdaptedModel, ModelSpec, encoder_folder, warm_start
from trainers.sites import NoSuchSite
from trainers.window import FamilySpec, Local, root

TEXTS = ["the meeting of the users group is on thursday in the usual place at eight", "cheap", "a b"]


def zero_sites(model: AdaptedModel) -> dict[str, torch.Tensor]:
    return {slot.name: torch.zeros(1, *slot.shape) for slot in model.slots(2)}


def identity_head(model: AdaptedModel) -> torch.Tensor:
    """Return a head whose logits are the features themselves."""
    return torch.cat([torch.eye(model.dim), torch.zeros(model.dim, 1)], dim=1).unsqueeze(0)


def features(model: AdaptedModel, texts: list[str], draw: Draw) -> torch.Tensor:
    with torch.no_grad():
        return model.logits([model.activate(t) for t in texts], draw)


def whole(texts: list[str], adapter: Path | None = None) -> torch.Tensor:
    """Compute the features with transformers (and peft) alone."""
    folder = encoder_folder(SPEC)
    base = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    encoder = base if adapter is None else peft.PeftModel.from_pretrained(base, adapter).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(
        texts, padding=True, truncation=True, max_length=SPEC.max_tokens, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = encoder(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1).float()
    pooled = (hidden * mask).sum(1) / mask.sum(1)
    unit: torch.Tensor = torch.nn.functional.normalize(pooled, dim=-1)
    scaled: torch.Tensor = unit * float(hidden.shape[-1]) ** 0.5
    return scaled


def test_prefix_and_top_make_the_encoder(model: AdaptedModel) -> None:
    draw = zero_sites(model) | {HEAD: identity_head(model)}
    torch.testing.assert_close(features(model, TEXTS, draw), whole(TEXTS), atol=2e-5, rtol=1e-4)


def test_an_activation_is_a_function_of_its_text(model: AdaptedModel) -> None:
    """Bits, not closeness: a cached activation must be the one replay computes."""
    alone = AdaptedModel(SPEC).activate(TEXTS[0])
    for text in TEXTS:
        model.activate(text)
    assert torch.equal(model.activate(TEXTS[0]), alone)


def test_each_sequence_has_its_own_draw(model: AdaptedModel) -> None:
    rng = torch.Generator().manual_seed(0)
    shared = {s.name: 0.3 * torch.randn(1, *s.shape, generator=rng) for s in model.slots(2)}
    other = {s.name: 0.3 * torch.randn(1, *s.shape, generator=rng) for s in model.slots(2)}
    both = {k: torch.cat([v, other[k], v]) for k, v in shared.items()}
    mixed = features(model, TEXTS, both)
    torch.testing.assert_close(mixed[0], features(model, TEXTS, shared)[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mixed[1], features(model, TEXTS, other)[1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(mixed[1], features(model, TEXTS, shared)[1], atol=1e-3)


def test_sites_may_lie_in_several_layers() -> None:
    spec = ModelSpec(encoder=SPEC.encoder, max_tokens=16, sites=r"layer\.[45]\.output\.dense$")
    model = AdaptedModel(spec)
    names = [slot.name for slot in model.slots(1)]
    assert names == [
        "encoder.layer.4.output.dense.A",
        "encoder.layer.4.output.dense.B",
        "encoder.layer.5.output.dense.A",
        "encoder.layer.5.output.dense.B",
        HEAD,
    ]
    draw = zero_sites(model) | {HEAD: identity_head(model)}
    torch.testing.assert_close(features(model, TEXTS, draw), whole(TEXTS), atol=2e-5, rtol=1e-4)


def test_a_pattern_without_a_site_says_what_there_is() -> None:
    with pytest.raises(NoSuchSite, match=r"layer.*9.*matches no linear layer.*encoder\.layer\.0"):
        AdaptedModel(ModelSpec(encoder=SPEC.encoder, sites=r"layer\.9\.nothing"))


def test_a_peft_folder_warm_starts_the_same_features(model: AdaptedModel, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=SPEC.rank,
        lora_alpha=int(SPEC.alpha),
        target_modules=r".*layer\.5\.attention\.self\.(query|value)",
        init_lora_weights=False,
    )
    base = AutoModel.from_pretrained(encoder_folder(SPEC), dtype=torch.float32)
    peft.get_peft_model(base, config).save_pretrained(str(tmp_path))
    weights = warm_start(tmp_path, model.slots(2))
    draw = {k: v.unsqueeze(0) for k, v in weights.items()} | {HEAD: identity_head(model)}
    torch.testing.assert_close(features(model, TEXTS, draw), whole(TEXTS, tmp_path), atol=2e-5, rtol=1e-4)


def test_a_warm_start_of_another_rank_is_refused(model: AdaptedModel, tmp_path: Path) -> None:
    base = AutoModel.from_pretrained(encoder_folder(SPEC), dtype=torch.float32)
    config = peft.LoraConfig(r=2, target_modules=r".*layer\.5\.attention\.self\.(query|value)")
    peft.get_peft_model(base, config).save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match=r"expected one .*lora_A.*shape \(4, 384\).*\(2, 384\)"):
        warm_start(tmp_path, model.slots(2))


def test_a_base_in_bfloat16_says_nearly_the_same_and_answers_in_float32(model: AdaptedModel) -> None:
    half = AdaptedModel(replace(SPEC, dtype="bfloat16", parts=("lora", "adapter", "prefix")))
    assert half.activate(TEXTS[0]).dtype == torch.bfloat16
    lora = {s.name: torch.full((1, *s.shape), 0.01) for s in model.slots(2)} | {HEAD: identity_head(model)}
    other = AdaptedModel(replace(SPEC, parts=("lora", "adapter", "prefix")))
    draw = {s.name: torch.full((1, *s.shape), 0.01) for s in half.slots(2)} | lora
    found = features(half, TEXTS, draw)
    assert found.dtype == torch.float32
    cosines = torch.nn.functional.cosine_similarity(found, features(other, TEXTS, draw))
    assert float(cosines.min()) > 0.999


def test_a_base_in_bfloat16_learns() -> None:
    family = FamilySpec(name="blob", options={"sd_head": 0.1})
    half = AdaptedModel(replace(SPEC, dtype="bfloat16"))
    first, _, last = answers(Local(half), root(half, family, chain_seed=1), family)
    assert all(v.dtype == torch.float32 for v in last.tensors.values())
    assert last.nll < first.nll
    assert sum(row[i % 2] > 0.5 for i, row in enumerate(last.forecasts)) >= 20
