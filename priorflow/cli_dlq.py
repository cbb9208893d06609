"""`priorflow dlq`: records that could not be used, and late ones."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Final

import typer

from priorflow.invocation import Invocation

if TYPE_CHECKING:
    from priorflow.config import Settings

GROUP: Final = "dlq"
HELP: Final = "List, show and requeue dead letters; have their topic compacted."

At = Annotated[str, typer.Argument(metavar="POSITION", help="topic[partition]@offset, as listed.")]
Stage = Annotated[str | None, typer.Option(help="Only those refused at this stage.")]
Late = Annotated[bool, typer.Option("--late", help="The late topic instead of the dead letters.")]


def ls(
    at: Invocation,
    stage: Stage = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only so many, the last.")] = None,
    late: Late = False,
) -> None:
    """List dead letters by where they came from: the stage that refused them, and why."""
    settings, console = at.settings(), at.console()
    from connectors.dead_letters import list_letters
    from priorflow.cluster import client
    from priorflow.letter_rows import picked, row

    topic = _topic(settings, late=late)
    with console.progress(f"reading {topic}"):
        letters = picked(list_letters(client(settings), topic), stage=stage)
    rows = [row(letter) for letter in (letters if last is None else letters[-last:])]
    console.table(f"{len(letters)} letters in {topic}", rows, event="letter")


def show(
    at: Invocation,
    position: At,
    late: Late = False,
    raw: Annotated[bool, typer.Option("--raw", help="Its bytes and nothing else.")] = False,
) -> None:
    """Show one letter with its bytes, key and headers."""
    settings = at.settings()
    from connectors.dead_letters import show_letter
    from priorflow.cluster import client
    from priorflow.letter_rows import parse_position, portrait

    wanted = parse_position(position)
    letter, record = show_letter(client(settings), _topic(settings, late=late), wanted)
    if raw:
        sys.stdout.buffer.write(record.value or b"")
        sys.stdout.buffer.flush()
    else:
        at.console().show(portrait(letter, record), event="letter")


def requeue(
    at: Invocation,
    positions: Annotated[
        list[str] | None, typer.Argument(metavar="[POSITION]...", help="Which; or use --all.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that were not sent again before.")] = False,
    stage: Stage = None,
    late: Late = False,
) -> None:
    """Send letters again to the topic they came from, once; they are not judged late there.

    What made them bad must be mended first (the mapping, a limit, the vocabulary): else they return.
    """
    if bool(positions) == everything:
        msg = "name the positions to send again, or say --all"
        raise typer.BadParameter(msg)
    settings, console = at.settings(), at.console()
    from connectors.dead_letters import list_letters, requeue_letters
    from priorflow.cluster import client
    from priorflow.letter_rows import parse_position, picked

    topic, cluster = _topic(settings, late=late), client(settings)
    wanted = [parse_position(text) for text in positions or ()]
    if everything or stage is not None:
        letters = picked(list_letters(cluster, topic), stage=stage)
        wanted = [x.position for x in letters if everything or x.position in wanted]
    with console.progress("sending again"):
        sent = requeue_letters(cluster, topic, wanted)
    before = len(set(wanted)) - len(sent)
    text = f"{len(sent)} sent again" + (f", {before} were before" if before else "")
    console.say(text, event="requeued", requeued=[str(p) for p in sent], before=before)


def compact(at: Invocation, late: Late = False) -> None:
    """Have a topic of an earlier release compacted, so that `erase` reaches it; no letter is lost by it.

    Letters of the former form are filed anew first. Only with every run and score on this release.
    """
    settings, console = at.settings(), at.console()
    import time

    from connectors.buried_letters import compact as have_compacted
    from priorflow.cluster import client

    topic = _topic(settings, late=late)
    with console.progress(f"filing {topic} anew"):
        anew = have_compacted(client(settings), topic, now_ms=time.time_ns() // 1_000_000)
    text = f"{topic} is compacted; {anew} letters and marks were filed anew for that"
    console.say(text, event="compacted", topic=topic, anew=anew)


def _topic(settings: Settings, *, late: bool) -> str:
    topics = settings.kafka.topics
    return topics.late if late else topics.dead_letters


COMMANDS: Final[Mapping[str, Callable[..., None]]] = {
    "ls": ls,
    "show": show,
    "requeue": requeue,
    "compact": compact,
}
