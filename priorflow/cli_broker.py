"""`priorflow broker`: the embedded Kafka broker in the home folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from priorflow.invocation import Invocation

if TYPE_CHECKING:
    from connectors.kafka_broker import Running

GROUP: Final = "broker"
HELP: Final = "Start, stop and look at the embedded Kafka broker."


def start(at: Invocation) -> None:
    """Start the broker and return once it answers; it goes on running, and data is kept."""
    settings, console = at.settings(), at.console()
    from priorflow.cluster import start_broker

    running = start_broker(settings, console)
    how = "runs already" if running.adopted else "runs"
    console.say(f"Kafka {how} at {running.bootstrap} (pid {running.pid})", event="broker", **_facts(running))


def stop(at: Invocation) -> None:
    """Stop the broker; its data stays."""
    settings, console = at.settings(), at.console()
    from connectors import kafka_broker

    with console.progress("stopping Kafka"):
        ran = kafka_broker.stop(settings.broker_folder)
    console.say("Kafka has stopped" if ran else "no Kafka ran", event="broker", running=False)


def status(at: Invocation) -> None:
    """Tell whether the broker runs, and where."""
    settings, console = at.settings(), at.console()
    from connectors import kafka_broker

    running = kafka_broker.status(settings.broker_folder)
    if running is None:
        text = f"no Kafka runs in {settings.broker_folder}; `priorflow broker start` starts it"
        console.say(text, event="broker", running=False)
        return
    text = f"Kafka runs at {running.bootstrap} (pid {running.pid})"
    console.say(text, event="broker", **_facts(running))


def _facts(running: Running) -> dict[str, Any]:
    return {
        "running": True,
        "bootstrap": running.bootstrap,
        "pid": running.pid,
        "cluster": running.cluster,
        "folder": str(running.folder),
    }


COMMANDS: Final[Mapping[str, Callable[..., None]]] = {"start": start, "stop": stop, "status": status}
