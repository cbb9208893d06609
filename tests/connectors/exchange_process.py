"""A member of a group that answers records by writing them in capitals, and may die at a step.

python -m tests.connectors.exchange_process BOOTSTRAP SOURCE ANSWERS GROUP STEP AT
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

from connectors.kafka_client import KafkaClient, TopicWish
from connectors.kafka_exchange import ExchangeRules, KafkaExchange, Undone
from connectors.letters import Outgoing

PATIENCE = 3  # empty looks in a row before the end is believed


def main(at: int, bootstrap: str, source: str, answers: str, group: str, step: str) -> None:
    passed = 0

    def crash(reached: str) -> None:
        nonlocal passed
        passed += reached == step
        if reached == step and passed == at:
            os.kill(os.getpid(), signal.SIGKILL)

    rules = ExchangeRules(
        topics=(source,), writes=(TopicWish(name=answers),), group=group, session_ms=3_000, open_ms=2_000
    )
    exchange = KafkaExchange(KafkaClient(bootstrap=bootstrap), rules, crash=crash)
    quiet = 0
    while quiet < PATIENCE:
        records = exchange.take(timeout_ms=300, max_records=5)
        quiet = 0 if records or not exchange.at_end() else quiet + 1
        with suppress(Undone):
            exchange.give(
                [Outgoing(topic=answers, key=r.key, value=(r.value or b"").upper()) for r in records]
            )
    exchange.close()


if __name__ == "__main__":
    main(int(sys.argv[6]), *sys.argv[1:6])
