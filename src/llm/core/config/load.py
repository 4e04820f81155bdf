"""From wherever a configuration stands to an `LLMConfig`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

from llm.core.exceptions import ConfigProblem, LLMConfigurationError
from llm.utils.redact import redact

from . import environment
from .document import Document, Marks, read_document
from .expand import Expansion
from .faults import Fault, kind_of, summary, within
from .model import LLMConfig
from .scalars import Value, is_list

Source = str | Path | Mapping[str, Value] | LLMConfig | None

VARIABLE: Final = "LLM_CONFIG"
"""The variable that names the file."""

PLACES: Final = (Path("config/llm.yaml"), Path("llm.yaml"))
"""Where a file is looked for when nothing names one, in this order, from the current folder."""

_MOST_BYTES: Final = 16 * 1024 * 1024


def load_config(source: Source = None, *, environ: Mapping[str, str] | None = None) -> LLMConfig:
    """Read, expand and check a configuration.

    Args:
        source: A path, a mapping as the file would be, an `LLMConfig`, which is returned as it is, or None: the first
            that exists of `$LLM_CONFIG`, `config/llm.yaml`, `llm.yaml`, and the environment alone.
        environ: Variables to use instead of the process's own.

    Returns:
        The configuration. Without `providers` it has those whose keys are in the environment, else the local one.

    Raises:
        LLMConfigurationError: It cannot be read, or it is wrong; all mistakes in one message.
    """
    if isinstance(source, LLMConfig):
        return source
    config, problems = _load(source, os.environ if environ is None else environ)
    # What is raised below keeps this frame alive, and with it whatever key these hold.
    del source, environ
    if config is None:
        raise LLMConfigurationError(summary(len(problems)), problems=problems)
    return config


def file_of(source: Source = None, *, environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the file that `load_config` reads for a source, whether or not it is there; None where it reads none."""
    if source is None:
        return locate(environ)
    return _home(Path(source)) if isinstance(source, (str, os.PathLike)) else None


def files_of(source: Source = None, *, environ: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Return all files that `load_config` reads for a source: its own, and those that `${file:…}` names."""
    if isinstance(source, LLMConfig):
        return ()
    environ = os.environ if environ is None else environ
    own = file_of(source, environ=environ)
    document, folder = _document(source, environ)
    expansion = Expansion(environ, folder)
    expansion.tree(document.tree)
    return tuple(dict.fromkeys([*([] if own is None else [own]), *expansion.files]))


def locate(environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the file that `load_config` reads when it is given nothing; None: the environment alone."""
    named = (os.environ if environ is None else environ).get(VARIABLE)
    if named:
        return _home(Path(named))
    return next((place for place in PLACES if place.is_file()), None)


def _load(source: Value, environ: Mapping[str, str]) -> tuple[LLMConfig | None, list[ConfigProblem]]:
    """Return the configuration or what is wrong with it; raises nothing, so that no frame outlives it."""
    document, folder = _document(source, environ)
    expansion = Expansion(environ, folder)
    tree = cast("dict[str, Value]", expansion.tree(document.tree))
    origins: environment.Origins = {}
    if not tree.get("providers"):
        tree["providers"], origins = environment.providers(environ)
    overridden, faults = environment.override(tree, environ)
    origins |= overridden
    faults += [*document.faults, *expansion.faults]
    config, found = _validated(tree)
    unread = [*expansion.faults, *(fault for fault in document.faults if not fault.on_name)]
    faults += [fault for fault in found if not _because(fault, unread)]
    if not faults:
        return config, []
    located = (_told(fault, document.marks, origins) for fault in faults)
    return None, sorted(located, key=lambda fault: (fault.line is None, fault.line or 0, fault.column or 0))


def _document(source: Value, environ: Mapping[str, str]) -> tuple[Document, Path]:
    """Return what the source says, and the folder that relative paths in it start from."""
    if isinstance(source, Mapping):
        return Document(_plain(source), Marks(), []), Path()
    if not (source is None or isinstance(source, (str, os.PathLike))):
        expected = "expected a path, a mapping, an LLMConfig or None"
        return Document({}, Marks(), [Fault("", f"{expected}, found {kind_of(source)}")]), Path()
    path = file_of(cast("str | Path | None", source), environ=environ)
    if path is None:
        return Document({}, Marks(), []), Path()
    text, fault = _text(path)
    if fault is not None:
        hint = f" (named by {VARIABLE})" if source is None and environ.get(VARIABLE) else ""
        return Document({}, Marks(), [replace(fault, message=fault.message + hint)]), Path()
    return read_document(text, str(path)), path.parent


def _home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        # There is no such user; the error about the file then shows the path as it was given.
        return path


def _text(path: Path) -> tuple[str, Fault | None]:
    file = str(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return "", Fault("", "there is no such file; correct the path, or copy config/llm.yaml there", file)
    except (OSError, ValueError) as error:
        return "", Fault("", f"cannot be read: {getattr(error, 'strerror', None) or 'no usable path'}", file)
    if len(content) > _MOST_BYTES:
        return "", Fault("", f"is larger than {_MOST_BYTES} bytes; is it the right file?", file)
    try:
        return content.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        return "", Fault("", "is not UTF-8 text; save it as UTF-8", file, line, column)


def _plain(value: Value) -> Value:
    """Return mappings as dictionaries with text for names, and tuples as lists."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in cast("Mapping[str, Value]", value).items()}
    if is_list(value) or isinstance(value, tuple):
        return [_plain(item) for item in cast("list[Value]", value)]
    return value


def _validated(tree: dict[str, Value]) -> tuple[LLMConfig | None, list[Fault]]:
    try:
        return LLMConfig.model_validate(tree), []
    except LLMConfigurationError as error:
        return None, [problem for problem in error.problems if isinstance(problem, Fault)]


def _because(fault: Fault, unread: list[Fault]) -> bool:
    """Tell whether the fault is there only because a value could not be read, which is told already."""
    return any(
        within(fault.field, lost.field)
        or any(within(field, lost.field) or within(lost.field, field) for field in fault.needs)
        for lost in unread
    )


def _told(fault: Fault, marks: Marks, origins: environment.Origins) -> ConfigProblem:
    """Return the mistake as the reader gets it: with its place, or the variable that it comes from."""
    variable = _origin(fault.field, marks, origins)
    if variable is not None:
        return ConfigProblem(redact(fault.field), redact(f"{fault.message} (set by {variable})"))
    fault = marks.located(fault)
    return ConfigProblem(redact(fault.field), redact(fault.message), fault.file, fault.line, fault.column)


def _origin(field: str, marks: Marks, origins: environment.Origins) -> str | None:
    """Return the variable that set the field, or a part of it where the file does not have it."""
    outer = [known for known in origins if within(field, known)]
    inner = [known for known in origins if within(known, field)] if field not in marks.values else []
    return next((origins[known] for known in [*sorted(outer, key=len, reverse=True), *inner]), None)
