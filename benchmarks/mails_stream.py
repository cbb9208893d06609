"""The demo's mails as the windows that its chain closes, its settings, and the code that decides a run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import yaml

from connectors.codec import decoder
from connectors.mails import fetch_mails, load_mails
from priorflow import config
from priorflow.config import Settings
from priorflow.demo import DEMO
from priorflow.demo_stream import histories
from priorflow.rules import codec_rules, intake_rules
from stream.intake import Intake
from stream.plan import Member
from stream.record import Position, RawRecord

ROOT: Final = Path(__file__).resolve().parent.parent


def demo_settings(home: Path) -> Settings:
    """Return the demo's settings, learning in this process."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / "priorflow.yaml"
    path.write_text(yaml.safe_dump({"home": str(ROOT / ".priorflow"), **DEMO}), encoding="utf-8")
    return config.load(path, overrides={"learn.workers": 0, "learn.threads": 1})


def demo_windows(settings: Settings) -> dict[int, tuple[Member, ...]]:
    """Return the windows that the demo's chain closes, by `Snapshot.index`."""
    lanes = histories(
        load_mails(fetch_mails(settings.assets_folder)), settings.kafka.topics, seed=settings.chain.seed
    )
    intake, decode, out = Intake(intake_rules(settings), list(lanes)), decoder(codec_rules(settings)), {}
    for lane, records in lanes.items():
        for offset, (key, value, headers, time_ms) in enumerate(records):
            raw = RawRecord(Position(*lane, offset), time_ms, key, value, tuple(headers))
            intake.offer(decode(raw))
    for floor in intake.end_floors():
        intake.floor(floor)
    while (closing := intake.next_closing()) is not None:
        whole = intake.foretold(closing, {})
        intake.settled(whole, learned=True)
        if closing.kind == "window":
            out[intake.index] = closing.members
    return out


def code_sha256() -> str:
    """Hash what decides a run: all code of the belief and of the learner."""
    digest = hashlib.sha256()
    for path in (*sorted((ROOT / "posterior").glob("*.py")), *sorted((ROOT / "trainers").glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()
