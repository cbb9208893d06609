"""Small causal language models with random weights, and a tokenizer of a few words for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trainers.model import ModelSpec

WORDS = "the kernel boots again after a patch win cheap cash now label linux money spam news :".split()  # noqa: SIM905 - as it is read
TEXTS = [
    "the kernel boots again after a patch",
    "win cash",
    "cheap",
    "the cash boots now after the news again",
]
SITES = r"layers\.[23]\.self_attn\.(q|v)_proj$"


def small_config(**more: Any) -> LlamaConfig:
    """Return two query heads to a key head, four layers, and an output embedding of its own."""
    said: dict[str, Any] = {
        "vocab_size": len(WORDS) + 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
        "tie_word_embeddings": False,
    }
    return LlamaConfig(**said | more)


def save_words(folder: Path) -> None:
    """Write a tokenizer that knows `WORDS`."""
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<s>", "?", *WORDS])}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    made: Any = PreTrainedTokenizerFast
    made(tokenizer_object=words, unk_token="?", eos_token="<s>").save_pretrained(folder)


def small_llama(folder: Path, *, seed: int = 0) -> None:
    """Write a random Llama and its tokenizer."""
    torch.manual_seed(seed)
    made = LlamaForCausalLM(small_config())
    made.model.norm.weight.data.uniform_(0.5, 2.0)
    made.save_pretrained(folder)
    save_words(folder)


def small_spec(folder: Path, **more: Any) -> ModelSpec:
    """Return how the last two layers are adapted."""
    said: dict[str, Any] = {"sites": SITES, "rank": 3, "alpha": 6.0, "max_tokens": 12, "ask": " :"}
    return ModelSpec(encoder=str(folder), **said | more)


def adapted(
    model: LlamaForCausalLM, weights: dict[str, torch.Tensor], scale: float
) -> dict[str, torch.Tensor]:
    """Return all weights of the model with W0 + scale B A in place of W0, for functional calls."""
    merged: dict[str, torch.Tensor] = dict(model.named_parameters())
    for name in sorted({k.rpartition(".")[0] for k in weights if k.endswith(".A")}):
        key = f"model.{name}.weight"
        merged[key] = merged[key] + scale * weights[f"{name}.B"] @ weights[f"{name}.A"]
    return merged


def logits_of(model: LlamaForCausalLM, merged: dict[str, torch.Tensor], ids: Sequence[int]) -> torch.Tensor:
    """Return the logits at every token of one text, (tokens, V), by transformers alone."""
    out = torch.func.functional_call(model, merged, kwargs={"input_ids": torch.tensor([list(ids)])})
    logits: torch.Tensor = out.logits[0]
    return logits
