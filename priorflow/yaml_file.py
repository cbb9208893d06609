"""A YAML file with the line of every key, and no key twice.

YAML itself lets a later key replace an earlier one of the same name; here that is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Path_ = tuple[str | int, ...]
_KEYS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


class YamlError(Exception):
    """The file is not one mapping with distinct keys."""


@dataclass(frozen=True, slots=True)
class Located:
    """What a file says, and on which line it says it."""

    data: Mapping[str, Any]
    lines: Mapping[Path_, int]
    name: str

    def place(self, path: Path_) -> str:
        """Return `file:line: ` of the innermost part of the path that the file mentions."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"{self.name}:{self.lines[path[:length]]}: "
        return ""


def read_yaml(path: Path) -> Located:
    """Read one mapping; an empty file is an empty mapping."""
    try:
        return _located(yaml.SafeLoader(path.read_text(encoding="utf-8")), path)
    except (yaml.YAMLError, UnicodeDecodeError) as broken:
        msg = f"{path}: not YAML: {' '.join(str(broken).split())}"
        raise YamlError(msg) from broken


def _located(loader: yaml.SafeLoader, path: Path) -> Located:
    try:
        node = loader.get_single_node()
        if node is None:
            return Located({}, {}, str(path))
        if not isinstance(node, yaml.MappingNode):
            msg = f"{path}:1: the file must be a mapping of sections, such as `kafka:`"
            raise YamlError(msg)
        lines: dict[Path_, int] = {}
        _walk(node, (), lines, path)
        return Located(loader.construct_document(node), lines, str(path))
    finally:
        loader.dispose()


def _walk(node: yaml.Node, at: Path_, lines: dict[Path_, int], path: Path) -> None:
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*at, index)] = item.start_mark.line + 1
            _walk(item, (*at, index), lines, path)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here, line = (*at, str(key.value)), key.start_mark.line + 1
            if key.tag not in _KEYS:
                msg = f"{path}:{line}: {key.value!r} is not read as text here; put it in quotes"
                raise YamlError(msg)
            if here in lines:
                dotted = ".".join(map(str, here))
                msg = f"{path}:{line}: {dotted} was already set on line {lines[here]}"
                raise YamlError(msg)
            lines[here] = line
            _walk(value, here, lines, path)
