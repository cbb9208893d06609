"""The settings that decide what is believed, apart from those that decide where and how it runs.

`learning_settings` is what a snapshot records: two runs that agree on it, on the records and on
the plan's runtime reach the same posterior. Hosts, paths, secrets, limits that stop a run, gates
and the number of worker processes are not in it; files enter by the sha256 of their bytes.
"""

from __future__ import annotations

import hashlib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from posterior.families import FAMILIES, PARTS, family_class, make_family
from posterior.family import Part
from priorflow.config import ConfigError, Settings
from priorflow.nearest import nearest
from trainers.model import ModelSpec, encoder_folder
from trainers.update import Schedule
from trainers.window import FamilySpec, LearnSpec

FORMAT: Final = 1
_ENCODER_FILES: Final = ("*.safetensors", "config.json", "tokenizer*.json", "*vocab*", "*merges*")
# What says nothing under an objective; `classes` itself goes unsaid, as it did before there was a choice.
_UNASKED: Final = {"classes": ("objective", "ask"), "answer": ("pooling",), "tokens": ("pooling", "ask")}
_WARM_FILES: Final = ("*.safetensors", "adapter_config.json")


def model_spec(settings: Settings) -> ModelSpec:
    """Return the model section as trainers take it."""
    warm = settings.model.warm_start
    section = settings.model.model_dump(exclude={"warm_start", "parts"})
    return ModelSpec(
        **section, parts=parts_of(settings), warm_start=None if warm is None else str(warm.absolute())
    )


def parts_of(settings: Settings) -> tuple[Part, ...]:
    """Return the parts that are adapted: what was said, else what the family is about."""
    said = settings.model.parts
    return said if said is not None else PARTS.get(settings.family.name, ("lora",))


def family_spec(settings: Settings) -> FamilySpec:
    """Return the family with all its options, defaults included, so that they are on record."""
    name = settings.family.name
    try:
        family_class(name)
    except ValueError as unknown:
        hint = "" if ":" in name else _hint(name, sorted(FAMILIES))
        msg = f"family.name: {unknown if not hint else f'there is no {name!r}{hint}'}"
        raise ConfigError(msg) from unknown
    said = dict(_checked_options(name, settings.family.options()))
    try:
        made = make_family(name, said)
    except ValueError as wrong:
        msg = f"family: {wrong}"
        raise ConfigError(msg) from wrong
    effective = asdict(made) if is_dataclass(made) and not isinstance(made, type) else said
    return FamilySpec(name=name, options={k: v for k, v in effective.items() if k != "name"})


def learn_spec(settings: Settings) -> LearnSpec:
    """Return the learn section as trainers take it."""
    learn = settings.learn
    return LearnSpec(
        schedule=Schedule(
            epochs=learn.epochs,
            batch=learn.batch,
            lr=learn.lr,
            warmup=learn.warmup,
            temperature=learn.temperature,
            kl_schedule=learn.kl_schedule,
            draws=learn.train_draws,
            curvature_sample=learn.curvature_sample,
        ),
        draws=learn.draws,
        beta=learn.beta,
        beta_grid=learn.beta_grid,
        beta_sample=learn.beta_sample,
        panel=learn.panel and settings.model.objective == "classes",
        token_correlation=learn.token_correlation,
    )


def learning_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that determine the posterior, as canonical JSON values."""
    family = family_spec(settings)
    warm = settings.model.warm_start
    return {
        "format": FORMAT,
        "seed": settings.chain.seed,
        "topics": settings.kafka.topics.model_dump(include={"events", "labels"}),
        "records": _record_settings(settings),
        "window": settings.window.model_dump(),
        "model": {
            **_model_settings(settings),
            "encoder": encoder_sha256(encoder_path(settings)),
            "warm_start": None if warm is None else folder_sha256(warm, _WARM_FILES),
        },
        "family": {"name": family.name, "options": dict(family.options)},
        "learn": _learn_settings(settings),
    }


def recorded_model(settings: Mapping[str, Any], encoder: str) -> ModelSpec:
    """Return the model that learning settings tell of, read from `encoder`; what they leave unsaid acts not.

    Without its warm start, from which only a chain's root is made.
    """
    said = {k: v for k, v in settings["model"].items() if k not in {"encoder", "warm_start", "parts"}}
    return ModelSpec(**said, encoder=encoder, parts=tuple(settings["model"].get("parts", ("lora",))))


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Yield the dotted names on which two sets of learning settings differ, with both values."""
    for key in sorted({*ours, *theirs}):
        mine, other = ours.get(key), theirs.get(key)
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            yield from differences(mine, other, f"{at}{key}.")
        elif mine != other:
            yield f"{at}{key}: {mine!r}, was {other!r}"


def folder_sha256(folder: Path, patterns: tuple[str, ...]) -> str:
    """Hash the names and bytes of the files of a folder that match; ConfigError if none does."""
    found = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in found):
        msg = f"{folder}: holds no weights (*.safetensors)"
        raise ConfigError(msg)
    digest = hashlib.sha256()
    for path in found:
        with path.open("rb") as stream:
            digest.update(f"{path.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def encoder_sha256(folder: Path) -> str:
    """Hash what an encoder's folder says of texts: weights, shape, tokenizer."""
    return folder_sha256(folder, _ENCODER_FILES)


def encoder_path(settings: Settings) -> Path:
    """Return the encoder's folder; ConfigError if its package is not installed."""
    try:
        return encoder_folder(model_spec(settings))
    except FileNotFoundError as missing:
        msg = f"model.encoder: {missing}"
        raise ConfigError(msg) from missing


def _model_settings(settings: Settings) -> dict[str, Any]:
    """Return what acts: a part that is absent has no settings, and what any LoRA in float32 is goes unsaid.

    The latter keeps the chains going that were begun before there was a choice.
    """
    model, parts = settings.model, parts_of(settings)
    absent = tuple(f"{part}_" for part in ("adapter", "prefix") if part not in parts)
    absent += () if "lora" in parts else ("sites", "rank", "alpha")
    chosen = {k: v for k, v in model.model_dump().items() if not k.startswith(absent)}
    for name in ("encoder", "warm_start", "parts", "dtype", *_UNASKED[model.objective]):
        del chosen[name]
    chosen |= {} if parts == ("lora",) else {"parts": list(parts)}
    return chosen | ({} if model.dtype == "float32" else {"dtype": model.dtype})


def _learn_settings(settings: Settings) -> dict[str, Any]:
    """Return what decides the belief; an even KL and no panel go unsaid, as before there was a choice."""
    unsaid = {"workers", "world", "threads"}
    unsaid |= {"kl_schedule"} if settings.learn.kl_schedule == "constant" else set()
    unsaid |= set() if settings.model.objective == "tokens" else {"token_correlation"}
    unsaid |= set() if learn_spec(settings).panel else {"panel"}
    return _plain(settings.learn.model_dump(exclude=unsaid))


def _record_settings(settings: Settings) -> dict[str, Any]:
    records = settings.records
    chosen = _plain(records.model_dump(exclude={"breaker", "idle", "mapping", "label_vocabulary"}))
    vocabulary = records.label_vocabulary
    return {
        **chosen,
        "label_vocabulary": None if vocabulary is None else sorted(vocabulary),
        "mapping": records.mapping.model_dump() if records.format == "mapped" else None,
    }


def _plain(section: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in section.items()}


def _checked_options(name: str, said: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    maker = family_class(name)
    known = {f.name for f in fields(maker)} - {"name"} if isinstance(maker, type) else set()
    kinds = typing.get_type_hints(maker)
    for option, value in said.items():
        if option not in known:
            msg = f"family.{option}: {name!r} has no such option{_hint(option, known)}"
            raise ConfigError(msg)
        try:
            yield option, TypeAdapter(kinds[option]).validate_python(value)
        except ValidationError as wrong:
            said_wrong = wrong.errors(include_input=False)[0]["msg"]
            msg = f"family.{option}: {said_wrong}"
            raise ConfigError(msg) from wrong


def _hint(wrong: str, known: typing.Collection[str]) -> str:
    near = nearest(wrong, known)
    return f"; did you mean {near!r}?" if near else f"; there are {', '.join(sorted(known))}"
