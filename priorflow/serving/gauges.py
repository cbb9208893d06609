"""What a scraper reads: how many answers, how fast, by which version. The only file that knows prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from priorflow.serving.desk import Desk, Told
from priorflow.serving.shadow import Shadow
from priorflow.serving.watcher import Watcher

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@final
class Gauges:
    """The meters of one server, in a register of their own."""

    media_type: Final = CONTENT_TYPE_LATEST

    def __init__(self, desk: Desk, watcher: Watcher, shadow: Shadow | None = None) -> None:
        self._register = CollectorRegistry()
        if shadow is not None:
            self._register.register(_Shadowed(shadow))
        self._requests = Counter(
            "priorflow_requests_total", "Requests to /predict by status.", ["status"], registry=self._register
        )
        self._answers = Counter(
            "priorflow_answers_total", "Answers by snapshot.", ["snapshot"], registry=self._register
        )
        self._withheld = Counter(
            "priorflow_abstentions_total", "Answers too unsure for the risk.", registry=self._register
        )
        self._seconds = Histogram(
            "priorflow_request_seconds",
            "From request to answer, of answered ones.",
            buckets=_SECONDS,
            registry=self._register,
        )
        self._gauge("priorflow_texts_waiting", "Texts in line.", lambda: desk.waiting)
        self._gauge("priorflow_ready", "1 if a version answers.", lambda: desk.version is not None)
        self._gauge(
            "priorflow_champion_unsure",
            "1 if the champion cannot be looked up.",
            lambda: watcher.standing.trouble is not None,
        )
        self._gauge(
            "priorflow_window",
            "Windows behind the answering snapshot; -1 while there is none.",
            lambda: -1 if desk.version is None else desk.version.snapshot.index,
        )

    def _gauge(self, name: str, what: str, read: Callable[[], float]) -> None:
        Gauge(name, what, registry=self._register).set_function(read)

    def answered(self, told: Told, withheld: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels("200").inc()
        self._answers.labels(told.version.snapshot.sha[:12]).inc(len(told.answers))
        self._withheld.inc(withheld)
        self._seconds.observe(seconds)

    def refused(self, status: int) -> None:
        """Count one that was not answered."""
        self._requests.labels(str(status)).inc()

    def page(self) -> bytes:
        """Return everything in the text format."""
        return generate_latest(self._register)


@final
class _Shadowed(Collector):
    """Sums of the present pair of champion and shadow, of which a scraper makes rates and means."""

    def __init__(self, shadow: Shadow) -> None:
        self._shadow = shadow

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the meters as they stand; another pair begins at 0."""
        stood = self._shadow.standing
        sums, name = stood.sums, "priorflow_shadow"
        for what, said, value in (
            ("compared", "Events that champion and shadow both answered.", sums.events),
            ("agreed", "Those to which they gave one label.", sums.agreed),
            ("withheld_alike", "Those that both would give, or both withhold.", sums.withheld_alike),
            ("delta_p", "Summed distance of the probabilities of the champion's label.", sums.delta_p),
            ("kl_nats", "Summed KL of the shadow's answer from the champion's.", sums.kl),
            ("seconds", "Summed time the shadow took.", sums.seconds),
        ):
            pair = CounterMetricFamily(f"{name}_{what}", said, labels=["champion", "shadow"])
            if sums.shadow:
                pair.add_metric([sums.champion[:12], sums.shadow[:12]], value)
            yield pair
        yield CounterMetricFamily(f"{name}_dropped", "Events for which its line was full.", stood.dropped)
        yield CounterMetricFamily(f"{name}_failed", "Events that it could not answer.", stood.failed)
