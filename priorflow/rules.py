"""What the stream, the codec and the gates are told of the settings."""

from __future__ import annotations

from connectors.codec import CodecRules, Mapped
from priorflow.config import Settings
from stream.breaker import BreakerRules
from stream.clock import ClockRules
from stream.intake import IntakeRules
from stream.labels import Horizons
from stream.window import WindowRules
from trainers.bounds import Bounds


def intake_rules(settings: Settings) -> IntakeRules:
    """Return the rules by which records become windows."""
    records = settings.records
    vocabulary = records.label_vocabulary
    return IntakeRules(
        clock=clock_rules(settings),
        horizons=Horizons(
            label_ms=records.label_horizon,
            dedup_ms=records.dedup_horizon,
            capacity=records.pending_capacity,
        ),
        window=WindowRules(kind=settings.window.kind, size=settings.window.size),
        breaker=BreakerRules(share=records.breaker.share, over=records.breaker.over, run=records.breaker.run),
        late=records.late,
        label_vocabulary=None if vocabulary is None else frozenset(vocabulary),
        max_classes=records.max_classes,
        progress_every=settings.window.progress_every,
    )


def codec_rules(settings: Settings) -> CodecRules:
    """Return what is read from where."""
    records, topics = settings.records, settings.kafka.topics
    mapped = records.format == "mapped"
    return CodecRules(
        events_topic=topics.events,
        labels_topic=topics.labels,
        max_bytes=records.max_bytes,
        mapped=Mapped(**records.mapping.model_dump()) if mapped else None,
    )


def bounds(settings: Settings) -> Bounds:
    """Return what is asked of a candidate."""
    return Bounds(**settings.gate.model_dump(exclude={"enabled", "rollback"}))


def clock_rules(settings: Settings) -> ClockRules:
    """Return which event times are waited for and which are not believed."""
    clock = settings.records.clock
    return ClockRules(
        out_of_order_ms=settings.records.out_of_order,
        max_ahead_ms=clock.max_ahead,
        max_behind_ms=clock.max_behind,
        not_before_ms=clock.not_before,
        not_after_ms=clock.not_after,
    )
