"""The command line. Each group of commands has its file; this one puts them together.

Importing it costs a tenth of a second: commands import what they need when they are called. Errors
become one line and an exit status (`priorflow.exit_codes`) here and nowhere else.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from priorflow import (
    cli_assets,
    cli_broker,
    cli_config,
    cli_dlq,
    cli_erasure,
    cli_export,
    cli_labels,
    cli_promotion,
    cli_run,
    cli_serve,
    cli_snapshots,
    cli_state,
)
from priorflow.exit_codes import MEANING, ExitCode, code_for
from priorflow.invocation import ConfigFile, Debug, JsonLines, Sets, command, root
from priorflow.masking import without_passwords

EPILOG: Final = "Exit status:\n\n" + "\n\n".join(f"{int(c)}  {m}" for c, m in MEANING.items())


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version  # noqa: PLC0415 - slow, and rarely asked

        typer.echo(version("priorflow"))
        raise typer.Exit


def _root(
    context: typer.Context,
    config: ConfigFile = None,
    sets: Sets = None,
    json_lines: JsonLines = None,
    debug: Debug = False,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Yesterday's posterior is today's prior: transformers that keep learning from a stream."""
    root(context, config, sets, json_lines, debug)


def build() -> typer.Typer:
    """Return the application with all its commands."""
    app = typer.Typer(
        name="priorflow",
        callback=_root,
        epilog=EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for module in (cli_run, cli_serve, cli_promotion, cli_erasure, cli_export, cli_state):
        for name, function in module.COMMANDS.items():
            app.command(name)(command(function))
    for module in (cli_snapshots, cli_labels, cli_broker, cli_dlq, cli_assets, cli_config):
        group = typer.Typer(no_args_is_help=True, help=module.HELP)
        for name, function in module.COMMANDS.items():
            group.command(name)(command(function))
        app.add_typer(group, name=module.GROUP)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(call(given))


def call(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; errors are told on stderr."""
    try:
        build()(list(arguments), prog_name="priorflow")
    except SystemExit as left:
        return _left(left.code, arguments)
    except BaseException as error:  # noqa: BLE001 - whatever ends a command becomes a status
        code = code_for(error)
        _tell(error, code, arguments)
        return code
    return ExitCode.OK


def _left(status: object, arguments: Sequence[str]) -> int:
    """Read how typer ended a call: 130 for an interrupt, and 1 only for a reader that went away."""
    if status == ExitCode.INTERRUPTED:
        _tell(KeyboardInterrupt(), ExitCode.INTERRUPTED, arguments)
    if status == ExitCode.BUG:  # `priorflow snapshots ls | head` has seen enough
        return ExitCode.OK
    return status if isinstance(status, int) else ExitCode.OK


def _tell(error: BaseException, code: ExitCode, arguments: Sequence[str]) -> None:
    if "--debug" in arguments:
        traceback.print_exception(error)
    text = without_passwords(str(error)) or type(error).__name__
    if code is ExitCode.BUG:
        text = f"internal error: {type(error).__name__}: {text} (--debug shows where)"
    if code is ExitCode.INTERRUPTED:
        text = "interrupted; the next run goes on from the last commit"
    if "--json" in arguments or ("--no-json" not in arguments and not sys.stdout.isatty()):
        text = json.dumps({"event": "error", "exit": int(code), "text": text}, ensure_ascii=False)
    else:
        text = "\n".join(f"priorflow: {line}" for line in text.splitlines())
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
