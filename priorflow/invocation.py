"""How a command was called: the options that every command takes, before or after its name.

A command is a function whose first parameter is an `Invocation`; `command` gives it the common
options. Nothing heavy is imported here: the configuration is read when a command asks for it.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from priorflow.console import Console, console_for

if TYPE_CHECKING:
    from priorflow.config import Settings

PANEL: Final = "Common options"

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file (YAML).", rich_help_panel=PANEL),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Set one setting; repeatable.", rich_help_panel=PANEL),
]
JsonLines = Annotated[
    bool | None,
    typer.Option(
        "--json/--no-json", help="JSON lines; the default without a terminal.", rich_help_panel=PANEL
    ),
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Tracebacks instead of one line.", rich_help_panel=PANEL)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """The common options of one call."""

    config: Path | None = None
    sets: tuple[str, ...] = ()
    json_lines: bool | None = None
    debug: bool = False

    def given(
        self,
        config: Path | None,
        sets: list[str] | None,
        json_lines: bool | None,
        debug: bool,
    ) -> Invocation:
        """Return these options with those given after the command's name on top."""
        return replace(
            self,
            config=config or self.config,
            sets=(*self.sets, *(sets or ())),
            json_lines=self.json_lines if json_lines is None else json_lines,
            debug=self.debug or debug,
        )

    def settings(self, overrides: Mapping[str, Any] | None = None) -> Settings:
        """Read the configuration; a command's own options (`overrides`, None left out) win."""
        from priorflow.config import load  # noqa: PLC0415 - pydantic only when it is needed

        own = {name: value for name, value in (overrides or {}).items() if value is not None}
        return load(self.config, overrides={**_pairs(self.sets), **own})

    def console(self) -> Console:
        """Return whom to tell."""
        return console_for(json_lines=self.json_lines)


def _pairs(sets: tuple[str, ...]) -> dict[str, Any]:
    if not sets:
        return {}
    import yaml  # noqa: PLC0415 - only where --set is used

    from priorflow.config import ConfigError  # noqa: PLC0415 - pydantic only when it is needed

    pairs = {}
    for pair in sets:
        name, equals, value = pair.partition("=")
        if not equals:
            msg = f"--set {pair}: write NAME=VALUE, such as --set window.size=200"
            raise ConfigError(msg)
        try:
            pairs[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as broken:
            msg = f"--set {name}: the value is not YAML; put it in quotes"
            raise ConfigError(msg) from broken
    return pairs


def root(
    context: typer.Context,
    config: ConfigFile = None,
    sets: Sets = None,
    json_lines: JsonLines = None,
    debug: Debug = False,
) -> None:
    """Keep the options given before the command's name."""
    context.obj = Invocation().given(config, sets, json_lines, debug)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Return the function with the common options in place of its `Invocation` parameter."""
    hints = typing.get_type_hints(function, include_extras=True)
    (_, *own) = inspect.signature(function).parameters.values()
    common = inspect.signature(root, eval_str=True).parameters.values()

    @functools.wraps(function)
    def run(
        context: typer.Context,
        config: ConfigFile,
        sets: Sets,
        json_lines: JsonLines,
        debug: Debug,
        **rest: Any,
    ) -> None:
        before = context.obj if isinstance(context.obj, Invocation) else Invocation()
        function(before.given(config, sets, json_lines, debug), **rest)

    parameters = [*(p.replace(annotation=hints[p.name]) for p in own), *common]
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    run.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined] # read by typer
    run.__annotations__ = {p.name: p.annotation for p in keyword}
    return run
