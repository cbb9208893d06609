"""A frozen Hugging Face model with sites for draws. The only file that knows transformers.

The model, an encoder or a causal language model, is cut below the first adapted layer. The *prefix*
never changes, so its activations are computed once per text, ONE TEXT AT A TIME and without padding:
forward bits differ between batch shapes, and only an activation that is a function of the text alone may
be cached, shared between processes and met again by replay. The *top* runs in batches with the draw
applied at its sites (see `trainers.sites`), and class rows read its pooled output:

    logits = head [h ; 1]                               h: pooled, unit length times sqrt(d)

A causal language model may be asked for classes through its own output embedding instead, or for its next
tokens and no class at all (see `trainers.unembedding`, `trainers.language`).

The frozen weights and their activations may be bfloat16; draws, pooling and class rows stay float32.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, final

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.utils import logging as transformers_logging

from posterior.family import Draw, Part, Slot
from trainers import cut
from trainers.sites import NoSuchSite, Site, adapter_sites, lora_sites, prefix_sites, prefixed
from trainers.unembedding import Unembedding, unembedding

Objective = Literal["classes", "answer", "tokens"]
HEAD = "head"
PEFT_WEIGHTS: Final = "adapter_model.safetensors"
_PEFT_KINDS: Final = {"down": "lora_A", "up": "lora_B"}
_PACKAGE = "package:"
VIEWED: Final = (0, 4, 5)  # sixths of the way up where a panel looks; and at what the last layer leads to
MOST_PIECES: Final = 512  # of a text, told to a head that counts them; the model itself reads `max_tokens`
_PREFIXED: Final = "priorflow_prefixed"  # transformers' scaled dot-product attention, taking a prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Which model, which parts at which sites, what it is asked and how texts become features.

    `ask` is put behind every text and never cut; the objective `answer` looks for what follows it.
    """

    encoder: str
    dtype: Literal["float32", "bfloat16"] = "float32"
    parts: tuple[Part, ...] = ("lora",)
    sites: str = r"layer\.5\.attention\.self\.(query|value)$"
    rank: int = 8
    alpha: float = 16.0
    adapter_sites: str = r"layer\.5\.intermediate$"
    adapter_size: int = 8
    adapter_scale: float = 4.0
    prefix_sites: str = r"layer\.5\.attention\.self$"
    prefix_length: int = 8
    max_tokens: int = 64
    objective: Objective = "classes"
    ask: str = "\nLabel:"
    pooling: Literal["mean", "first", "last"] = "mean"
    warm_start: str | None = None  # a PEFT folder


def encoder_folder(spec: ModelSpec) -> Path:
    """Return the encoder's folder; `package:NAME/sub/folder` looks inside an installed package."""
    if not spec.encoder.startswith(_PACKAGE):
        return Path(spec.encoder)
    name, _, inside = spec.encoder.removeprefix(_PACKAGE).partition("/")
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        msg = f"the package {name!r}, which should hold the encoder, is not installed"
        raise FileNotFoundError(msg)
    return Path(found.submodule_search_locations[0]) / inside


def encoder_sha256(spec: ModelSpec) -> str:
    """Hash the encoder's weights, so that a snapshot says which base it adapts."""
    digest = hashlib.sha256()
    for path in sorted(encoder_folder(spec).glob("*.safetensors")):
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


@final
class AdaptedModel:
    """The model cut in two, with hooks that apply the draw of the moment."""

    def __init__(self, spec: ModelSpec) -> None:
        """Load the model, freeze it and find the sites."""
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call] # ours tell the operator what takes long
        folder = encoder_folder(spec)
        self.spec = spec
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        whole, missing = _loaded(folder, spec)
        model = whole if spec.objective == "classes" else whole.base_model
        self.dim: int = model.config.hidden_size
        self.inside = _inside(whole, model)
        self.sites = _sites(model, spec)
        stack, first = cut.locate(model, [site.name for site in self.sites])
        self._out = None if spec.objective == "classes" else unembedding(whole, stack, missing)
        self._bottom, self._top = model, cut.above(model, stack, first)
        self._passing: list[Tensor] | None = None
        self._view_at(stack, first)
        cut.layers_of(model, stack)[first].register_forward_pre_hook(cut.stop_at_input, with_kwargs=True)
        self._hidden: Tensor | None = None
        self._draw: Draw = {}
        cut.layers_of(self._top, stack)[0].register_forward_pre_hook(self._enter, with_kwargs=True)
        if "prefix" in spec.parts:
            _take_prefixes(self._top)
        for site in self.sites:
            site.attach(lambda name: self._top.get_submodule(cut.renumber(name, stack, first)), self._drawn)
        self._asked: list[int] = self._tokenizer(spec.ask, add_special_tokens=False)["input_ids"]
        self._warm = self._warm_start()

    def _view_at(self, stack: str, first: int) -> None:
        """Look at what enters the first layer and two near the end, before the prefix is stopped there."""
        whole, top = cut.layers_of(self._bottom, stack), cut.layers_of(self._top, stack)
        for place in sorted({len(whole) * sixths // 6 for sixths in VIEWED}):
            layer = whole[place] if place <= first else top[place - first]
            layer.register_forward_pre_hook(self._look, with_kwargs=True)

    def _look(self, _: nn.Module, args: Any, kwargs: Any) -> None:
        if self._passing is not None:
            hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            self._passing.append(self._unit(hidden.float().mean(dim=1))[0])

    def _drawn(self) -> Draw:
        return self._draw

    def _warm_start(self) -> dict[str, Tensor]:
        if self.spec.warm_start is None:
            return {}
        if "lora" not in self.spec.parts:
            msg = f"{self.spec.warm_start}: a warm start holds LoRA weights, but the model has no such part"
            raise ValueError(msg)
        return warm_start(Path(self.spec.warm_start), self.slots(0))

    @property
    def out(self) -> Unembedding:
        """The output embedding, which the objectives of a language model need."""
        assert self._out is not None, self.spec.objective
        return self._out

    def slots(self, classes: int) -> tuple[Slot, ...]:
        """Return the slots of all sites and, unless tokens are asked for, of a head of so many rows."""
        adapted = tuple(slot for site in self.sites for slot in site.slots)
        if self.spec.objective == "tokens":
            return adapted
        return (*adapted, Slot(HEAD, (classes, self.dim + 1), "head"))

    def centres(self, labels: Sequence[str]) -> dict[str, Tensor]:
        """Return where base priors lie that start from known weights, the classes being these.

        A class row belongs to its label's text, so that more classes leave the others' rows alone.
        """
        if self.spec.objective != "answer":
            return self._warm
        return self._warm | {HEAD: self.out.rows([self._answer(label) for label in labels])}

    def _answer(self, label: str) -> int:
        """Return the first token of a label as it is written behind `ask`."""
        asked, answered = (
            self._tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (self.spec.ask, f"{self.spec.ask} {label}")
        )
        shared = [a == b for a, b in zip(asked, answered, strict=False)]
        at = shared.index(False) if False in shared else len(shared)
        if at == len(answered):
            msg = f"the tokenizer makes nothing of the label {label!r}, so it cannot be an answer"
            raise ValueError(msg)
        return int(answered[at])

    def tokens(self, text: str) -> Tensor:
        """Return the token ids of a text as the model meets it, (tokens,)."""
        ask = self._asked if self.spec.objective == "answer" else []
        most = max(1, self.spec.max_tokens - len(ask))
        ids = self._tokenizer(text, truncation=True, max_length=most)["input_ids"]
        return torch.tensor([*ids, *ask] or [self._tokenizer.eos_token_id or 0])  # nothing is a text too

    @property
    def vocabulary(self) -> int:
        """How many pieces there are."""
        return max(len(self._tokenizer), int(self._bottom.config.vocab_size))

    def pieces(self, text: str) -> Tensor:
        """Return the ids of the different pieces of a text, sorted."""
        ids = self._tokenizer(text, add_special_tokens=False, truncation=True, max_length=MOST_PIECES)
        return torch.tensor(sorted(set(ids["input_ids"])), dtype=torch.int64)

    def activate(self, text: str) -> Tensor:
        """Return the prefix's activation of one text, (tokens, d): a function of the text alone."""
        return self.enter(text)[0]

    @torch.no_grad()
    def enter(self, text: str) -> tuple[Tensor, list[Tensor]]:
        """Return the prefix's activation of one text and the views of it on the way, (d,) each."""
        ids = self.tokens(text).unsqueeze(0)
        try:
            with self._looking() as passed:
                self._bottom(input_ids=ids, attention_mask=torch.ones_like(ids))
        except cut.Stop as reached:
            return reached.hidden[0].clone(), passed
        msg = "the model ended before the first adapted layer was reached"
        raise NoSuchSite(msg)

    @torch.no_grad()
    def views(self, activation: Tensor, passed: Sequence[Tensor]) -> Tensor:
        """Return what the model makes of one text where nothing is adapted, (views, d): the text's alone.

        What enters the layers at `VIEWED`, its mean over tokens, and what the last one leads to, pooled; all
        at unit mean square. `passed` is what `enter` saw.
        """
        with self._looking() as above:
            last = self._unit(self._pooled(*self.hidden([activation], {})))[0]
        return torch.stack([*passed, *above, last]).clone()

    @contextmanager
    def _looking(self) -> Iterator[list[Tensor]]:
        passed: list[Tensor] = []
        self._passing = passed
        try:
            yield passed
        finally:
            self._passing = None

    def hidden(self, activations: Sequence[Tensor], draw: Draw) -> tuple[Tensor, Tensor]:
        """Run the top over a batch of activations; returns last states (batch, tokens, d) and the mask."""
        hidden, mask = cut.padded(activations)
        with self._drawing(hidden, draw):
            out = self._top(inputs_embeds=hidden, attention_mask=mask).last_hidden_state
        return out.float(), mask

    def logits(self, activations: Sequence[Tensor], draw: Draw) -> Tensor:
        """Run the top and the class rows over a batch of activations; returns (batch, classes)."""
        features = self.features(activations, draw)
        features = torch.cat([features, torch.ones_like(features[:, :1])], dim=-1)
        head = draw[HEAD]
        return (features.unsqueeze(1) @ head.transpose(1, 2)).squeeze(1)

    def features(self, activations: Sequence[Tensor], draw: Draw) -> Tensor:
        """Return what class rows are asked with, (batch, features)."""
        pooled = self._pooled(*self.hidden(activations, draw))
        return self.out.features(pooled) if self.spec.objective == "answer" else self._unit(pooled)

    def _pooled(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return cut.pooled(hidden, mask, "last" if self.spec.objective == "answer" else self.spec.pooling)

    def _unit(self, pooled: Tensor) -> Tensor:
        unit: Tensor = nn.functional.normalize(pooled, dim=-1) * self.dim**0.5
        return unit

    @contextmanager
    def _drawing(self, hidden: Tensor, draw: Draw) -> Iterator[None]:
        self._hidden, self._draw = hidden, draw
        try:
            yield
        finally:
            self._hidden, self._draw = None, {}

    def _enter(self, _: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        if "hidden_states" in kwargs:
            return args, {**kwargs, "hidden_states": self._hidden}
        return (self._hidden, *args[1:]), kwargs


def peft_name(slot: Slot) -> str | None:
    """Return how a PEFT folder names a slot's weights below the model; None where LoRA has no such slot."""
    kind = _PEFT_KINDS.get(slot.role)
    return None if kind is None else f"{slot.name.rpartition('.')[0]}.{kind}.weight"


def warm_start(folder: Path, slots: Sequence[Slot]) -> dict[str, Tensor]:
    """Read LoRA weights of a PEFT folder for our slots; the file's names end in our site names."""
    weights = load_file(folder / PEFT_WEIGHTS)
    found: dict[str, Tensor] = {}
    for slot in slots:
        tail = peft_name(slot)
        if tail is None:
            continue
        match = [v for k, v in weights.items() if k.endswith(tail)]
        if len(match) != 1 or tuple(match[0].shape) != slot.shape:
            shapes = [tuple(m.shape) for m in match]
            msg = f"{folder}: expected one {tail} of shape {slot.shape}, found {shapes}"
            raise ValueError(msg)
        found[slot.name] = match[0].float()
    return found


def _inside(whole: nn.Module, model: nn.Module) -> str:
    """Return what the names of sites lack in the model that was loaded: "", or such as "model."."""
    return next(f"{name}." if name else "" for name, module in whole.named_modules() if module is model)


def _loaded(folder: Path, spec: ModelSpec) -> tuple[Any, list[str]]:
    """Return the frozen model, with its output embedding if that is asked for, and what the files lack."""
    make: Any = AutoModel if spec.objective == "classes" else AutoModelForCausalLM
    model, told = make.from_pretrained(folder, dtype=getattr(torch, spec.dtype), output_loading_info=True)
    model.eval().requires_grad_(False)
    model.config.use_cache = False
    return model, sorted(told["missing_keys"])


def _sites(model: Any, spec: ModelSpec) -> list[Site]:
    """Return the sites of all parts, LoRA's first; the order is that of the slots, hence of the noise."""
    found: list[Site] = []
    if "lora" in spec.parts:
        found += lora_sites(model, spec.sites, rank=spec.rank, alpha=spec.alpha)
    if "adapter" in spec.parts:
        found += adapter_sites(
            model,
            spec.adapter_sites,
            width=model.config.hidden_size,
            size=spec.adapter_size,
            scale=spec.adapter_scale,
        )
    if "prefix" in spec.parts:
        found += prefix_sites(model, spec.prefix_sites, length=spec.prefix_length)
    return found


def _take_prefixes(top: Any) -> None:
    """Let attentions of this model take prefixes; without one they compute what they did, bit for bit."""
    AttentionInterface.register(_PREFIXED, prefixed(sdpa_attention_forward))
    AttentionMaskInterface.register(_PREFIXED, sdpa_mask)
    top.set_attn_implementation(_PREFIXED)
    if top.config._attn_implementation != _PREFIXED:  # noqa: SLF001 - transformers only logs its refusal
        msg = f"{type(top).__name__} computes attention in a way of its own, which takes no prefix"
        raise NoSuchSite(msg)
