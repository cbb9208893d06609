"""The import contracts hold for the tree as it is, and each of them fires on a planted violation."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = ("stream", "posterior", "trainers", "connectors", "priorflow")
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HOMES: Final[dict[str, list[str]]] = next(
    contract
    for contract in PROJECT["tool"]["importlinter"]["contracts"]
    if contract["name"].endswith("has a home")
)
# Named in the contracts, though no module imports it: SQLAlchemy loads its driver by the URL.
DRIVERS: Final = {"psycopg"}
# They shape values rather than reach outside, so they have no single home.
EVERYWHERE: Final = {"pydantic", "pydantic_core", "torch"}


def _lint(tree: Path) -> tuple[int, set[str], str]:
    """Run the linter over a tree; return its status, the contracts it finds broken and what it printed."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as c; c()",
        "--no-cache",
    ]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    return (
        done.returncode,
        set(re.findall(r"^(.+?) BROKEN", done.stdout, re.MULTILINE)),
        done.stdout + done.stderr,
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the sources, so that a violation can be planted."""
    copy = tmp_path_factory.mktemp("tree")
    shutil.copy(ROOT / "pyproject.toml", copy)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def _planted(tree: Path, module: str, imported: str) -> tuple[int, set[str], str]:
    """Lint the tree with one more module in it."""
    path = tree.joinpath(*module.split(".")).with_suffix(".py")
    path.write_text(f"import {imported}\n", encoding="utf-8")
    try:
        return _lint(tree)
    finally:
        path.unlink()


def test_the_tree_as_it_is_keeps_every_contract(tree: Path) -> None:
    status, broken, said = _lint(tree)
    assert (status, broken) == (0, set()), said


LAYERS = "Imports point at the pure core"
ARRIVED = "What arrived knows no tensors and no clients"
BELIEF = "Belief is torch, safetensors and the standard library"
HOME = "Every client library has a home"


@pytest.mark.parametrize(
    ("module", "imported", "contracts"),
    [
        ("connectors.planted", "trainers.window", {LAYERS}),
        ("trainers.planted", "connectors.crash", {LAYERS}),
        ("trainers.planted", "priorflow.nearest", {LAYERS}),
        ("posterior.planted", "stream.plan", {LAYERS, BELIEF}),
        ("stream.planted", "posterior.family", {LAYERS, ARRIVED}),
        ("stream.planted", "torch", {ARRIVED}),
        ("posterior.planted", "pydantic", {BELIEF}),
    ],
)
def test_a_planted_import_breaks_its_contract(
    tree: Path, module: str, imported: str, contracts: set[str]
) -> None:
    status, broken, said = _planted(tree, module, imported)
    assert (status, broken) == (1, contracts), said


def test_every_library_away_from_home_breaks_the_contract(tree: Path) -> None:
    libraries = HOMES["forbidden_modules"]
    status, broken, said = _planted(tree, "trainers.planted", ", ".join(libraries))
    assert (status, broken) == (1, {HOME}), said
    assert set(re.findall(r"trainers\.planted -> (\w+)", said)) == set(libraries)


def _imported_names() -> Iterator[str]:
    """Yield the top-level name of everything that the product imports, inside functions too."""
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module.partition(".")[0]


def _third_parties() -> set[str]:
    return set(_imported_names()) - set(sys.stdlib_module_names) - set(PACKAGES)


def test_every_library_has_a_home() -> None:
    assert _third_parties() | DRIVERS == set(HOMES["forbidden_modules"]) | EVERYWHERE


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=~! ]", requirement)[0].lower()


def _requirements(*extras: str) -> set[str]:
    """List the distributions that the project asks for by name, and those of the extras."""
    project = PROJECT["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in extras for line in project["optional-dependencies"][extra]),
    ]
    return {_name(line) for line in lines}


def _plain(distribution: str) -> str:
    return distribution.lower().replace("_", "-")


def test_what_is_imported_is_what_is_declared() -> None:
    declared = _requirements("broker", "demo")
    owners = packages_distributions()
    imported = _third_parties() | DRIVERS
    # A name may come from several distributions (mlflow, mlflow-skinny); pydantic's core comes with pydantic.
    undeclared = {
        name for name in imported - {"pydantic_core"} if declared.isdisjoint(map(_plain, owners[name]))
    }
    unused = declared - {_plain(owner) for name in imported for owner in owners[name]}
    assert (undeclared, unused) == (set(), set())


def test_every_requirement_is_pinned_once() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines)
    assert len(pins) == len(lines)
    assert _requirements("broker", "demo", "dev") <= set(pins)
