"""`priorflow assets`: what is fetched once: Kafka, and the demo's mails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from priorflow.invocation import Invocation

GROUP: Final = "assets"
HELP: Final = "Fetch what the embedded broker and the demo need."


def fetch(at: Invocation) -> None:
    """Fetch Kafka's jars and the demo's mails, each checked against a locked sha256, and find Java.

    What is there already is only checked; the encoder comes with its package.
    """
    settings, console = at.settings(), at.console()
    import os

    from connectors.kafka_jars import fetch_jars
    from connectors.kafka_java import find_java
    from connectors.mails import fetch_mails
    from priorflow.cluster import telling

    java = find_java(os.environ)
    with console.progress("Kafka's jars") as progress:
        jars = fetch_jars(settings.assets_folder, told=telling(progress))
    with console.progress("the mails"):
        mails = fetch_mails(settings.assets_folder)
    facts = {"jars": str(jars), "mails": str(mails), "java": str(java.path)}
    text = f"Kafka, the mails and Java {java.major} are in place"
    console.say(text, event="assets", **facts)


COMMANDS: Final[Mapping[str, Callable[..., None]]] = {"fetch": fetch}
