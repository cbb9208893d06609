"""A frozen Hugging Face encoder with sites for draws. The only file that knows transformers.

The encoder is cut below the first adapted layer. The *prefix* never changes, so its activations are
computed once per text, ONE TEXT AT A TIME and without padding: forward bits differ between batch
shapes, and only an activation that is a function of the text alone may be cached, shared between
processes and met again by replay. The *top* runs in batches with the draw applied at its sites (see
`trainers.sites`), and class rows read its pooled output:

    logits = head [h ; 1]                               h: pooled, unit length times sqrt(d)

The frozen weights and their activations may be bfloat16; draws, pooling and class rows stay float32.
"""

from __future__ import annotations

import copy
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
from transformers import AttentionInterface, AttentionMaskInterface, AutoModel, AutoTokenizer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.utils import logging as transformers_logging

from posterior.family import Draw, Part, Slot
from trainers.sites import NoSuchSite, Site, adapter_sites, lora_sites, prefix_sites, prefixed

HEAD = "head"
_PACKAGE = "package:"
_PREFIXED: Final = "priorflow_prefixed"  # transformers' scaled dot-product attention, taking a prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Which encoder, which parts at which sites, how texts become features."""

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
    pooling: Literal["mean", "first"] = "mean"
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


class _Stop(Exception):
    """Control flow, never seen outside: the prefix ends here."""

    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden


@final
class AdaptedModel:
    """The encoder cut in two, with hooks that apply the draw of the moment."""

    def __init__(self, spec: ModelSpec) -> None:
        """Load the encoder, freeze it and find the sites."""
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call] # ours tell the operator what takes long
        folder = encoder_folder(spec)
        self.spec = spec
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModel.from_pretrained(folder, dtype=getattr(torch, spec.dtype))
        model.eval().requires_grad_(False)
        model.config.use_cache = False
        self.dim: int = model.config.hidden_size
        self.sites = _sites(model, spec)
        stack, first = _locate(model, [site.name for site in self.sites])
        layers = _layers(model, stack)
        self._bottom, self._top = model, _above(model, stack, first)
        layers[first].register_forward_pre_hook(_stop_at_input, with_kwargs=True)
        self._hidden: Tensor | None = None
        self.centres: dict[str, Tensor] = {}
        self._draw: Draw = {}
        _layers(self._top, stack)[0].register_forward_pre_hook(self._enter, with_kwargs=True)
        if "prefix" in spec.parts:
            _take_prefixes(self._top)
        for site in self.sites:
            site.attach(lambda name: self._top.get_submodule(_renumber(name, stack, first)), self._drawn)
        self._warm()

    def _drawn(self) -> Draw:
        return self._draw

    def _warm(self) -> None:
        if self.spec.warm_start is None:
            return
        if "lora" not in self.spec.parts:
            msg = f"{self.spec.warm_start}: a warm start holds LoRA weights, but the model has no such part"
            raise ValueError(msg)
        self.centres = warm_start(Path(self.spec.warm_start), self.slots(0))

    def slots(self, classes: int) -> tuple[Slot, ...]:
        """Return the slots of all sites and of a head with this many class rows."""
        adapted = [slot for site in self.sites for slot in site.slots]
        return (*adapted, Slot(HEAD, (classes, self.dim + 1), "head"))

    @torch.no_grad()
    def activate(self, text: str) -> Tensor:
        """Return the prefix's activation of one text, (tokens, d): a function of the text alone."""
        ids = self._tokenizer(text, truncation=True, max_length=self.spec.max_tokens, return_tensors="pt")
        try:
            self._bottom(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"])
        except _Stop as reached:
            return reached.hidden[0].clone()
        msg = "the encoder ended before the first adapted layer was reached"
        raise NoSuchSite(msg)

    def logits(self, activations: Sequence[Tensor], draw: Draw) -> Tensor:
        """Run the top over a batch of activations; returns (batch, classes)."""
        hidden, mask = _pad(activations)
        with self._drawing(hidden, draw):
            out = self._top(inputs_embeds=hidden, attention_mask=mask).last_hidden_state
        out = out.float()
        pooled = out[:, 0] if self.spec.pooling == "first" else _mean(out, mask)
        unit = nn.functional.normalize(pooled, dim=-1) * self.dim**0.5
        features = torch.cat([unit, torch.ones_like(unit[:, :1])], dim=-1)
        head = draw[HEAD]
        return (features.unsqueeze(1) @ head.transpose(1, 2)).squeeze(1)

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


def warm_start(folder: Path, slots: Sequence[Slot]) -> dict[str, Tensor]:
    """Read LoRA weights of a PEFT folder for our slots; the file's names end in our site names."""
    weights = load_file(folder / "adapter_model.safetensors")
    kinds = {"down": "lora_A", "up": "lora_B"}
    found: dict[str, Tensor] = {}
    for slot in slots:
        if slot.role not in kinds:
            continue
        tail = f"{slot.name.rsplit('.', 1)[0]}.{kinds[slot.role]}.weight"
        match = [v for k, v in weights.items() if k.endswith(tail)]
        if len(match) != 1 or tuple(match[0].shape) != slot.shape:
            shapes = [tuple(m.shape) for m in match]
            msg = f"{folder}: expected one {tail} of shape {slot.shape}, found {shapes}"
            raise ValueError(msg)
        found[slot.name] = match[0].float()
    return found


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


def _locate(model: nn.Module, names: Sequence[str]) -> tuple[str, int]:
    """Return the name of the stack of layers that holds all sites, and the first adapted index."""
    stacks = [n for n, m in model.named_modules() if isinstance(m, nn.ModuleList)]
    for stack in sorted(stacks, key=len):
        if names and all(n.startswith(f"{stack}.") for n in names):
            return stack, min(int(n.removeprefix(f"{stack}.").split(".")[0]) for n in names)
    msg = f"no one stack of layers holds all of {list(names)}; there are {stacks}"
    raise NoSuchSite(msg)


def _take_prefixes(top: Any) -> None:
    """Let attentions of this model take prefixes; without one they compute what they did, bit for bit."""
    AttentionInterface.register(_PREFIXED, prefixed(sdpa_attention_forward))
    AttentionMaskInterface.register(_PREFIXED, sdpa_mask)
    top.set_attn_implementation(_PREFIXED)
    if top.config._attn_implementation != _PREFIXED:  # noqa: SLF001 - transformers only logs its refusal
        msg = f"{type(top).__name__} computes attention in a way of its own, which takes no prefix"
        raise NoSuchSite(msg)


def _layers(model: nn.Module, stack: str) -> list[nn.Module]:
    found = model.get_submodule(stack)
    assert isinstance(found, nn.ModuleList)
    return list(found)


def _above(model: nn.Module, stack: str, first: int) -> nn.Module:
    """Return a model that shares all weights but holds only the layers from `first` on."""
    shared = {id(p): p for p in (*model.parameters(), *model.buffers())}
    top = copy.deepcopy(model, memo=shared)
    parent, _, leaf = stack.rpartition(".")
    layers = _layers(top, stack)
    setattr(top.get_submodule(parent), leaf, nn.ModuleList(layers[first:]))
    return top


def _renumber(name: str, stack: str, first: int) -> str:
    index, _, rest = name.removeprefix(f"{stack}.").partition(".")
    return f"{stack}.{int(index) - first}.{rest}"


def _stop_at_input(_: nn.Module, args: Any, kwargs: Any) -> None:
    raise _Stop(kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])


def _pad(activations: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    hidden = nn.utils.rnn.pad_sequence(list(activations), batch_first=True)
    lengths = torch.tensor([a.shape[0] for a in activations])
    mask = (torch.arange(hidden.shape[1])[None, :] < lengths[:, None]).long()
    return hidden, mask


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)
