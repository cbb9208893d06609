"""Streams of labelled texts in windows, and beside each window texts that nobody learns.

mails      the demo's mails, 9 queues in time order, labels as late as the demo's
vader      tweets, product reviews, film reviews, editorials, one after the other; 3 classes
news       20 Newsgroups cut to 4,000 and 2,000; every window has groups of its own
r8         Reuters R8 in the order of its file; 8 classes
recurring  tweets and editorials in turn
spam       the mails again, spam or not
*_shuffled the same texts in no order: the control, nothing drifts
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from benchmarks import mails_stream as demo
from benchmarks.papers.texts import Domain, newsgroups, reuters, vader
from priorflow.scores import spread

HELD_MAILS: Final = 160
SEED: Final = 0  # of every split: methods and seeds meet the same texts
DOMAINS: Final[tuple[Domain, ...]] = ("tweets", "amazon", "movie", "nyt")
TURNS: Final[tuple[Domain, ...]] = ("tweets", "nyt") * 4
_MILD: Final = 0.5  # mean ratings, of -4 to 4, that say neither

Labelled = tuple[str, str]  # (text, label)


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled text; it is foretold when `arrived` windows have been learned."""

    text: str
    label: str
    arrived: int


@dataclass(frozen=True, slots=True)
class Stream:
    """Windows in the order they are learned; `held[w]` are texts of window w that nobody learns."""

    name: str
    windows: tuple[tuple[Example, ...], ...]
    held: tuple[tuple[Example, ...], ...]

    @property
    def digest(self) -> str:
        """Hash every text, label and time of arrival."""
        told = json.dumps([[[asdict(e) for e in w] for w in part] for part in (self.windows, self.held)])
        return hashlib.sha256(told.encode()).hexdigest()[:16]


def cut(stream: Stream, *, learn: int, held: int) -> Stream:
    """Return the stream with at most so many texts a window, evenly spaced."""
    return Stream(
        name=stream.name,
        windows=tuple(tuple(spread(w, learn)) for w in stream.windows),
        held=tuple(tuple(spread(w, held)) for w in stream.held),
    )


def shuffled(stream: Stream) -> Stream:
    """Return the same texts in windows of the same sizes, in no order; what is held out stays held out."""
    rng = random.Random(SEED)
    parts = [_dealt(part, rng) for part in (stream.windows, stream.held)]
    return Stream(f"{stream.name}_shuffled", *parts)


def _dealt(part: Sequence[Sequence[Example]], rng: random.Random) -> tuple[tuple[Example, ...], ...]:
    mixed = [e for window in part for e in window]
    rng.shuffle(mixed)
    rest = iter(mixed)
    return tuple(
        tuple(Example(e.text, e.label, w) for e in islice(rest, len(window))) for w, window in enumerate(part)
    )


def unlearned(stream: Stream) -> Stream:
    """Return the stream without held-out texts that are also learned, word for word, in some window."""
    known = {e.text for window in stream.windows for e in window}
    held = tuple(tuple(e for e in window if e.text not in known) for window in stream.held)
    return replace(stream, held=held)


def windowed(name: str, learn: Sequence[Sequence[Labelled]], held: Sequence[Sequence[Labelled]]) -> Stream:
    """Return a stream whose texts arrive as soon as the window before theirs is learned."""
    parts = [
        tuple(tuple(Example(text, label, w) for text, label in window) for w, window in enumerate(part))
        for part in (learn, held)
    ]
    return Stream(name, *parts)


def mails(home: Path) -> Stream:
    """Return the demo's windows; every fourth mail of each is held out."""
    windows = demo.demo_windows(demo.demo_settings(home))
    learn, held = [], []
    for index in sorted(windows):
        members = [(m.event_id, Example(m.text, m.label, m.arrived)) for m in windows[index]]
        kept = dict(spread(members, HELD_MAILS))
        held.append(tuple(kept.values()))
        learn.append(tuple(example for name, example in members if name not in kept))
    return Stream("mails", tuple(learn), tuple(held))


def spam(home: Path) -> Stream:
    """Return the mails under two labels."""
    known = mails(home)
    parts = [
        tuple(
            tuple(Example(e.text, "spam" if e.label == "spam" else "ham", e.arrived) for e in window)
            for window in part
        )
        for part in (known.windows, known.held)
    ]
    return Stream("spam", *parts)


def sentiments(name: str, turns: Sequence[Domain], *, each: int = 500, held: int = 300) -> Stream:
    """Return windows of rated sentences, a domain each; a domain's held-out texts are split over its windows.

    Sentences of one document are on one side.
    """
    left = {domain: _parted(domain, held, each * turns.count(domain)) for domain in set(turns)}
    learn, kept = [], []
    for domain in turns:
        learned, others = left[domain]
        share = held // turns.count(domain)
        learn.append(learned[:each])
        kept.append(others[:share])
        left[domain] = learned[each:], others[share:]
    return windowed(name, learn, kept)


def _parted(domain: Domain, held: int, learn: int) -> tuple[list[Labelled], list[Labelled]]:
    """Return so many sentences to learn and so many to hold out, of different documents."""
    rated, rng = vader(domain), random.Random(SEED)
    documents = sorted({r.document for r in rated})
    rng.shuffle(documents)
    place = {document: i for i, document in enumerate(documents)}
    rows = sorted(rated, key=lambda r: place[r.document])
    border = place[rows[held].document]
    others, rest = ([r for r in rows if (place[r.document] < border) is side] for side in (True, False))
    rng.shuffle(rest)
    learned, kept = (
        [(r.text, _sentiment(r.ratings)) for r in part] for part in (rest[:learn], others[:held])
    )
    return learned, kept


def _sentiment(ratings: Sequence[int]) -> str:
    mean = sum(ratings) / len(ratings)
    return "positive" if mean > _MILD else "negative" if mean < -_MILD else "neutral"


def news(*, learn: int = 4_000, held: int = 2_000, sets: int = 7) -> Stream:
    """Return windows that have groups of their own: no class comes twice."""
    rng = random.Random(SEED)
    train, test = newsgroups("train"), newsgroups("test")
    groups = sorted({group for _, group in train})
    rng.shuffle(groups)
    owner = {group: i * sets // len(groups) for i, group in enumerate(groups)}
    parts = []
    for posts, count in ((train, learn), (test, held)):
        chosen = [p for g in groups for p in spread([q for q in posts if q[1] == g], count // len(groups))]
        rng.shuffle(chosen)
        parts.append([[p for p in chosen if owner[p[1]] == w] for w in range(sets)])
    return windowed("news", *parts)


def r8(*, windows: int = 8, learn: int = 500, held: int = 100) -> Stream:
    """Return newswire in the order of its file; every sixth text of a window is held out."""
    size = learn + held
    posts = spread(reuters("train"), windows * size)
    parts = [posts[w * size : (w + 1) * size] for w in range(windows)]
    kept = [set(spread(range(size), held)) for _ in parts]
    sides = [
        [
            [post for i, post in enumerate(part) if (i in out) is side]
            for part, out in zip(parts, kept, strict=True)
        ]
        for side in (False, True)
    ]
    return windowed("r8", *sides)


def streams(home: Path) -> Mapping[str, Callable[[], Stream]]:
    """Return how each stream is made, the most important first."""
    made: Mapping[str, Callable[[], Stream]] = {
        "mails": lambda: mails(home),
        "vader": lambda: sentiments("vader", [d for d in DOMAINS for _ in range(2)]),
        "news": news,
        "r8": r8,
        "mails_shuffled": lambda: shuffled(mails(home)),
        "news_shuffled": lambda: shuffled(news()),
        "recurring": lambda: sentiments("recurring", TURNS, held=304),
        "spam": lambda: spam(home),
    }
    return {name: partial(_made, make) for name, make in made.items()}


def _made(make: Callable[[], Stream]) -> Stream:
    return unlearned(make())
