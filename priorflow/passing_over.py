"""What was erased from chains that read a topic, as the ledger has it now: `score` passes it over.

The log may hold an erased event for long, and hands it out again to a group whose positions are lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from posterior.snapshot import LedgerError
from priorflow.config import Settings
from priorflow.console import Console
from priorflow.opening import absent_file
from priorflow.serving.books import Books
from stream.erasure import NOTHING, LeftOut
from trainers.loop import forgotten_of


@final
class PassingOver:
    """Looked up as often as one asks; for one thread."""

    def __init__(self, settings: Settings, console: Console) -> None:
        self._settings, self._console, self._books = settings, console, Books(settings)
        self._counted: Mapping[str, int] = {}
        self._gone: LeftOut | None = None
        self._trouble: str | None = None

    def now(self) -> LeftOut | None:
        """Return what is to be passed over: what was last known while the ledger cannot be asked.

        None where it has not been asked yet, and cannot be: then nobody knows what may be answered.
        """
        if (
            self._gone is None and absent_file(self._settings.ledger_url) is not None
        ):  # only the registry is known here
            return NOTHING
        try:
            self._look()
        except LedgerError as failed:
            self._tell(str(failed))
        else:
            self._trouble = None
        return self._gone

    def close(self) -> None:
        """Let go of the ledger."""
        self._books.close()

    def _look(self) -> None:
        ledger, _ = self._books.ledger()
        counted = {chain.name: len(ledger.erasures(chain.name)) for chain in ledger.chains()}
        if self._gone is None or counted != self._counted:  # a history may be long
            topics = {self._settings.kafka.topics.events}
            self._gone, self._counted = LeftOut(forgotten_of(ledger, topics)), counted

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            stands = (
                "nothing is answered until it can" if self._gone is None else "what was last known counts"
            )
            text = f"what was erased cannot be looked up, so {stands}: {trouble}"
            self._console.warn(text, event="erasures", trouble=trouble)
            self._trouble = trouble
