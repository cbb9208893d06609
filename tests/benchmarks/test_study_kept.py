"""A run is done again when code that decides it changes, and by no other change."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from benchmarks.mails_stream import demo_settings
from benchmarks.study.kept import Shelf, code_with
from benchmarks.study.learners import NaiveBayes
from benchmarks.study.methods import Method
from benchmarks.study.streams import windowed

STREAM: Final = windowed("toy", [[("good", "a"), ("bad", "b")]], [[("good", "a")]])


def test_files_of_its_own_stale_a_method_and_no_other(tmp_path: Path) -> None:
    own, other = tmp_path / "own.py", tmp_path / "other.py"
    own.write_text("x = 1")
    other.write_text("y = 1")
    before = code_with("shared", ("own.py",), tmp_path)
    assert code_with("shared", (), tmp_path) == "shared", "what all share alone is as it ever was"
    assert before != code_with("another", ("own.py",), tmp_path)
    assert before != code_with("shared", ("own.py", "other.py"), tmp_path)
    other.write_text("y = 2")
    assert before == code_with("shared", ("own.py",), tmp_path)
    own.write_text("x = 2")
    assert before != code_with("shared", ("own.py",), tmp_path)


@pytest.mark.parametrize("files", [(), ("ewc.py",)])
def test_a_run_says_by_which_code_it_was_made_and_is_not_made_twice(
    files: tuple[str, ...], tmp_path: Path
) -> None:
    shelf, made = Shelf(demo_settings(tmp_path), tmp_path, "shared"), []

    def make(*_: object) -> NaiveBayes:
        made.append(1)
        return NaiveBayes()

    method = Method(name="bag", make=make, said={}, files=files)
    first = shelf.make(STREAM, method, 1, lambda: None)
    assert first == shelf.make(STREAM, method, 1, lambda: None)
    assert len(made) == 1
    assert first.code == code_with("shared", files)
    assert (first.code == "shared") is not bool(files)
