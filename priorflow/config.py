"""One configuration: a YAML file, the environment on top, `--set` on top of that.

    Settings        everything, frozen; sections in `sections*.py`
    load            read, merge, check; ConfigError names key, place and the nearest right name
    PRIORFLOW_KAFKA__BOOTSTRAP=host:9092   is kafka.bootstrap;   PRIORFLOW_HOME is home

The file is `--config`, else PRIORFLOW_CONFIG, else `priorflow.yaml` where one runs, else none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError

from priorflow.nearest import elsewhere, nearest
from priorflow.sections import (
    ChainSettings,
    FamilySettings,
    LearnSettings,
    LedgerSettings,
    MlflowSettings,
    ModelSettings,
)
from priorflow.sections_decisions import DecisionSettings
from priorflow.sections_gate import GateSettings
from priorflow.sections_kafka import EMBEDDED, KafkaSettings
from priorflow.sections_records import RecordSettings, WindowSettings
from priorflow.sections_serving import ServeSettings
from priorflow.yaml_file import Located, YamlError, read_yaml

PREFIX: Final = "PRIORFLOW_"
NESTING: Final = "__"
DEFAULT_FILE: Final = Path("priorflow.yaml")
_ARCHIVE: Final = "archive:"
_SECRET: Final = re.compile(r"_(KEY|PASSWORD|SECRET)(_FILE)?$")

Path_ = tuple[str | int, ...]


class ConfigError(Exception):
    """The configuration cannot be used; the message has one line for each thing to put right."""


def _source(value: str) -> str:
    if value != "kafka" and not (value.startswith(_ARCHIVE) and value != _ARCHIVE):
        msg = "write kafka, or archive:FOLDER"
        raise ValueError(msg)
    return value


class Settings(BaseSettings):
    """All settings of priorflow."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=NESTING,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    home: Path = Path(".priorflow")
    """Folder for everything that is generated; relative to where one runs."""
    chain: ChainSettings = ChainSettings()
    source: Annotated[str, AfterValidator(_source)] = "kafka"
    """`kafka`, or `archive:FOLDER` for records kept by `archive`."""
    archive: Path | None = None
    """Folder that keeps every record that is read, for replay (JSON lines if it ends in .jsonl)."""
    kafka: KafkaSettings = KafkaSettings()
    records: RecordSettings = RecordSettings()
    window: WindowSettings = WindowSettings()
    model: ModelSettings = ModelSettings()
    family: FamilySettings = FamilySettings()
    learn: LearnSettings = LearnSettings()
    ledger: LedgerSettings = LedgerSettings()
    mlflow: MlflowSettings = MlflowSettings()
    gate: GateSettings = GateSettings()
    decisions: DecisionSettings = DecisionSettings()
    serve: ServeSettings = ServeSettings()

    @property
    def home_folder(self) -> Path:
        """The home folder, absolute."""
        return self.home.expanduser().absolute()

    @property
    def assets_folder(self) -> Path:
        """Where fetched files are kept: the broker's jars, the demo's mails."""
        return self.home_folder / "assets"

    @property
    def broker_folder(self) -> Path:
        """Where the embedded broker keeps its data."""
        return self.home_folder / "broker"

    @property
    def archive_path(self) -> Path | None:
        """The archive that is read instead of Kafka, or None."""
        named = self.source.removeprefix(_ARCHIVE)
        return None if named == self.source else Path(named)

    @property
    def embedded(self) -> bool:
        """Whether the cluster is the broker in the home folder."""
        return self.kafka.bootstrap == EMBEDDED

    @property
    def ledger_url(self) -> str:
        """The ledger's SQLAlchemy address, with its password: never print it."""
        if self.ledger.url_file is not None:
            return self.ledger.url_file.read_text(encoding="utf-8").strip()
        if self.ledger.url is not None:
            return self.ledger.url.get_secret_value()
        return f"sqlite:///{self.home_folder / 'ledger.db'}"

    @property
    def blobs_url(self) -> str:
        """The folder or fsspec address of the blobs."""
        return self.ledger.blobs or str(self.home_folder / "blobs")

    @property
    def tracking_uri(self) -> str:
        """The MLflow store, with its password: never print it."""
        if self.mlflow.tracking_uri is not None:
            return self.mlflow.tracking_uri.get_secret_value()
        return f"sqlite:///{self.home_folder / 'mlflow.db'}"

    def shown(self) -> dict[str, Any]:
        """Return the effective settings as JSON values, secrets masked."""
        return self.model_dump(mode="json")


def load(path: Path | None = None, *, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read and check the configuration; `overrides` maps dotted names to values and wins."""
    chosen = path or _default_file()
    file = _read(chosen) if chosen is not None else Located({}, {}, "")
    over = _nested(overrides or {})
    wrong = [*_unknown_environment(), *_empty_secrets()]
    if wrong:
        raise ConfigError("\n".join(wrong))
    try:
        said = {key: value for key, value in file.data.items() if value is not None}
        return Settings(**_merge(_merge(said, EnvSettingsSource(Settings)()), over))
    except SettingsError as unreadable:  # a JSON value in the environment that is not JSON
        msg = f"environment: {unreadable}; lists and sections are written as JSON there"
        raise ConfigError(msg) from None
    except ValidationError as invalid:
        problems = [_problem(error, file, over) for error in invalid.errors(include_input=False)]
        raise ConfigError("\n".join(problems)) from invalid


def _default_file() -> Path | None:
    named = os.environ.get(f"{PREFIX}CONFIG")
    if named:
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.is_file() else None


def _read(path: Path) -> Located:
    try:
        return read_yaml(path)
    except OSError as missing:
        msg = f"{path}: cannot be read ({missing.strerror}); name another file with --config"
        raise ConfigError(msg) from missing
    except YamlError as broken:
        raise ConfigError(str(broken)) from broken


def _nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in dotted.items():
        at, parts = out, name.split(".")
        for part in parts[:-1]:
            at = at.setdefault(part, {})
        at[parts[-1]] = value
    return out


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        beneath = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(beneath, Mapping)
        merged[key] = _merge(beneath, value) if both else value  # type: ignore[arg-type] # both are mappings
    return merged


def _unknown_environment() -> Iterator[str]:
    """Name nested variables of sections that do not exist.

    Names without the nesting mark are left alone: orchestrators set PRIORFLOW_PORT and the like for
    a service of our name.
    """
    sections = tuple(Settings.model_fields)
    for name in sorted(os.environ):
        section, mark, rest = name.upper().removeprefix(PREFIX).partition(NESTING)
        if name.upper().startswith(PREFIX) and mark and section.lower() not in sections:
            near = nearest(section.lower(), sections)
            hint = f"; did you mean {PREFIX}{near.upper()}{NESTING}{rest}?" if near else ""
            yield f"environment {name}: there is no section {section.lower()!r}{hint}"


def _empty_secrets() -> Iterator[str]:
    """Name variables that were to hold a secret and hold nothing.

    Elsewhere an empty variable says nothing; here it would leave a door open that somebody meant to lock.
    """
    for name, value in sorted(os.environ.items()):
        if name.upper().startswith(PREFIX) and _SECRET.search(name.upper()) and not value.strip():
            yield f"environment {name}: is empty; give it the secret, or unset it where none is meant"


def _problem(error: ErrorDetails, file: Located, over: Mapping[str, Any]) -> str:
    """Say one problem: where it was written, the dotted name, and what would be right."""
    loc = error["loc"]
    name = ".".join(map(str, loc))
    where = _origin(loc, file, over)
    if error["type"] == "extra_forbidden":
        return f"{where}{name}: unknown key{_suggestion(loc)}"
    said = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    verb = "" if error["type"] == "value_error" else "should be "
    plain = error["msg"].startswith("Input should be")
    return f"{where}{name}: {verb if plain else ''}{said}"


def _origin(loc: Path_, file: Located, over: Mapping[str, Any]) -> str:
    at: Any = over
    for part in loc:
        at = at.get(part) if isinstance(at, Mapping) else None
    if at is not None:
        return "--set "
    variable = (PREFIX + NESTING.join(map(str, loc))).upper()
    match = [name for name in os.environ if name.upper() == variable]
    if match:
        return f"environment {match[0]}: "
    return file.place(loc)


def _suggestion(loc: Path_) -> str:
    section: type[BaseModel] = Settings
    for part in loc[:-1]:
        inner = section.model_fields[str(part)].annotation if part in section.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return ""
        section = inner
    wrong, known = str(loc[-1]), tuple(section.model_fields)
    near = nearest(wrong, known)
    if near:
        return f"; did you mean {near!r}?"
    other = elsewhere(wrong, Settings)
    return f"; did you mean {other!r}?" if other else f"; there are {', '.join(known)}"


def describe(section: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted name and description of every setting, for reference pages and help."""
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from describe(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.description or ""
