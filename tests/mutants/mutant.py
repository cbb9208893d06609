"""One deliberate bug: a piece of text in one file, replaced by another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class NotThere(Exception):
    """The code no longer holds a mutant's text exactly once; the table has to follow the code."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """`old` stands exactly once in `file`; `law`, a path or node id as pytest takes them, is tried first."""

    about: str
    file: str
    name: str
    old: str
    new: str
    law: str

    def mutated(self, root: Path) -> str:
        """Return the file's text with the bug in it; raises NotThere."""
        text = (root / self.file).read_text(encoding="utf-8")
        if (times := text.count(self.old)) != 1:
            msg = f"{self.about}, {self.name}: {self.file} holds this {times} times: {self.old!r}"
            raise NotThere(msg)
        return text.replace(self.old, self.new)


def bugs(about: str, file: str, *rows: tuple[str, str, str, str]) -> tuple[Mutant, ...]:
    """Return the mutants of one file, each (name, old, new, law)."""
    return tuple(Mutant(about, file, *row) for row in rows)
