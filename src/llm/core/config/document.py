"""A strict YAML reader that remembers where each field stands.

Strict means: one document, a mapping at the top, no name twice, no type but YAML's own, no aliases without end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Final

import yaml

from .faults import Fault, Path, dotted
from .scalars import Value, construct, is_mapping

Place = tuple[int, int]
"""Line and column, each from 1."""

_MERGE: Final = "tag:yaml.org,2002:merge"
_MAPPING: Final = "tag:yaml.org,2002:map"
_SEQUENCE: Final = "tag:yaml.org,2002:seq"
_MOST_REPEATED: Final = 10_000

# What PyYAML quotes is a token's name, one character, or a part of the file; the last may be a key.
_QUOTED: Final = re.compile(r"'[^'<][^']+'")


@dataclass(slots=True)
class Marks:
    """Where names and values stand in a file, by the field's path."""

    file: str | None = None
    names: dict[str, Place] = field(default_factory=dict[str, Place])
    values: dict[str, Place] = field(default_factory=dict[str, Place])

    def located(self, fault: Fault) -> Fault:
        """Return the mistake with its place: its own, else that of the nearest mapping or list around it."""
        if self.file is None or fault.line is not None:
            return fault
        places = [self.names, self.values] if fault.on_name else [self.values, self.names]
        path = fault.field
        while path:
            for known in places:
                if path in known:
                    line, column = known[path]
                    return replace(fault, file=self.file, line=line, column=column)
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        line, column = self.values.get("", (1, 1))
        return replace(fault, file=self.file, line=line, column=column)


@dataclass(slots=True)
class Document:
    """What a file says: a tree of mappings, lists and scalars, with the place of each, and what is wrong with it."""

    tree: dict[str, Value]
    marks: Marks
    faults: list[Fault]


def read_document(text: str, file: str) -> Document:
    """Read the text of a configuration file; `file` is its name in messages."""
    marks = Marks(file)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        return Document({}, marks, [_syntax(error, text, file)])
    except RecursionError:
        return Document({}, marks, [Fault("", "mappings and lists are nested too deep", file, 1, 1)])
    if root is None:
        return Document({}, marks, [])
    if not isinstance(root, yaml.MappingNode):
        line, column = _place(root)
        return Document({}, marks, [Fault("", "expected a mapping of sections at the top", file, line, column)])
    builder = _Builder(marks)
    tree = builder.build(root, ())
    return Document(tree if is_mapping(tree) else {}, marks, builder.faults)


class _Builder:
    """Makes plain values of nodes, each under its path."""

    def __init__(self, marks: Marks) -> None:
        """Write places into `marks`, and mistakes into `faults`."""
        self._marks = marks
        self._seen: set[int] = set()
        self._around: set[int] = set()
        self._repeated = 0
        self._told: set[tuple[Place, str]] = set()
        self.faults: list[Fault] = []

    def build(self, node: yaml.Node, path: Path) -> Value:
        self._marks.values.setdefault(dotted(path), _place(node))
        if id(node) in self._around:
            return self._fault(node, path, "an alias here refers to what it stands in")
        if id(node) in self._seen:
            self._repeated += 1
            if self._repeated > _MOST_REPEATED:
                # One message is enough for what may be a million.
                return None if self._repeated > _MOST_REPEATED + 1 else self._fault(node, path, "too many aliases")
        self._seen.add(id(node))
        self._around.add(id(node))
        try:
            return self._value(node, path)
        finally:
            self._around.discard(id(node))

    def _value(self, node: yaml.Node, path: Path) -> Value:
        if isinstance(node, yaml.MappingNode) and node.tag == _MAPPING:
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQUENCE:
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        return self._fault(node, path, "a YAML tag that is not allowed; leave it out")

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Value:
        try:
            return construct(node)
        except yaml.YAMLError:
            return self._fault(node, path, "a YAML tag that is not allowed; leave it out")
        except (ValueError, OverflowError):
            return self._fault(node, path, "no such number or date; put text in quotes")

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Value]:
        mapping: dict[str, Value] = {}
        first: dict[str, Place] = {}
        merged: list[yaml.Node] = []
        for name_node, value_node in node.value:
            if name_node.tag == _MERGE:
                merged.append(value_node)
            elif not isinstance(name_node, yaml.ScalarNode):
                self._fault(name_node, path, "a field's name must be text")
            elif name_node.value in first:
                line, column = first[name_node.value]
                told = f"is here twice; the first is in line {line}, column {column}; keep one of them"
                self._fault(name_node, (*path, name_node.value), told, on_name=True)
            else:
                name = str(name_node.value)
                first[name] = _place(name_node)
                self._marks.names.setdefault(dotted((*path, name)), first[name])
                mapping[name] = self.build(value_node, (*path, name))
        for value_node in merged:
            self._merge(mapping, value_node, path)
        return mapping

    def _merge(self, mapping: dict[str, Value], node: yaml.Node, path: Path) -> None:
        """Add what `<<` brings; what the mapping says itself goes first."""
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            brought = self.build(source, path)
            if not is_mapping(brought):
                self._fault(source, path, "`<<` takes a mapping or a list of mappings")
                continue
            for name, value in brought.items():
                mapping.setdefault(name, value)

    def _fault(self, node: yaml.Node, path: Path, message: str, *, on_name: bool = False) -> None:
        place = _place(node)
        if (place, message) not in self._told:
            self._told.add((place, message))
            self.faults.append(Fault(dotted(path), message, self._marks.file, *place, on_name=on_name))


def _place(node: yaml.Node) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _syntax(error: yaml.YAMLError, text: str, file: str) -> Fault:
    """Say what is wrong with the syntax, without the line itself: it may hold a key."""
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1
        return Fault("", "a character that YAML does not allow", file, line, column)
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Fault("", "no valid YAML", file, 1, 1)
    mark = error.problem_mark
    return Fault("", _plain(error.problem or "no valid YAML"), file, mark.line + 1, mark.column + 1)


def _plain(problem: str) -> str:
    if "\\t" in problem:
        return "a tab; indent with spaces"
    if "undefined alias" in problem:
        return "an alias (`*name`) without its anchor (`&name`); put text that begins with * in quotes"
    if "but found another document" in problem:
        return "a second document; a configuration is one document, so take the `---` out"
    return f"no valid YAML: {_QUOTED.sub('…', problem)}"
