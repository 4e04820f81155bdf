"""`${VARIABLE}`, `${VARIABLE:-default}` and `${file:/path}` inside values; `$${` stays `${`.

Expanded after the file was parsed, so what a variable holds never becomes structure.
"""

from __future__ import annotations

import re
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Final

from llm.utils.redact import Secret

from .faults import Fault, Path, dotted, meant
from .scalars import FromEnvironment, Value, is_list, is_mapping

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFERENCE: Final = re.compile(r"\$(?P<escaped>\$)?\{(?P<body>[^}]*)\}|\$(?P<open>\$?)\{")
_VARIABLE: Final = re.compile(r"(?P<name>[A-Za-z_]\w*)(?P<default>:-(?P<text>.*))?", re.DOTALL)
_MOST_BYTES: Final = 65_536


class Expansion:
    """Replaces references in a tree.

    Attributes:
        faults: What cannot be replaced.
        files: The files that were read, or should have been.
    """

    def __init__(self, environ: Mapping[str, str], folder: FilePath) -> None:
        """Look variables up in `environ`, and relative paths in `folder`."""
        self._environ = environ
        self._folder = folder
        self.faults: list[Fault] = []
        self.files: list[FilePath] = []

    def tree(self, value: Value, path: Path = ()) -> Value:
        """Return the value with every reference replaced, and keys as secrets."""
        if is_mapping(value):
            return {name: self.tree(item, (*path, name)) for name, item in value.items()}
        if is_list(value):
            return [self.tree(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        text = self._text(value, path)
        return Secret(str(text)) if is_secret(path) else text

    def _text(self, value: str, path: Path) -> str:
        if "${" not in value:
            return value
        count = len(self.faults)
        text = _REFERENCE.sub(lambda found: self._reference(found, path), value)
        return FromEnvironment(text) if len(self.faults) == count else _placeholder(path)

    def _reference(self, found: re.Match[str], path: Path) -> str:
        body = found["body"]
        if found["escaped"] or found["open"]:
            return found[0][1:]
        if body is None:
            return self._fault(path, "`${` without its `}`; write `$${` for the characters themselves")
        if body.startswith("file:"):
            return self._file(body.removeprefix("file:"), path)
        return self._variable(body, path)

    def _variable(self, body: str, path: Path) -> str:
        found = _VARIABLE.fullmatch(body)
        if found is None:
            return self._fault(path, "expected ${VARIABLE}, ${VARIABLE:-default} or ${file:/path}")
        name = found["name"]
        text = self._environ.get(name)
        if found["default"] is not None:
            return text or str(found["text"])
        if text is None:
            advice = "set it" if is_secret(path) else f"set it, or write ${{{name}:-default}}"
            return self._fault(path, f"the variable {name} is not set{meant(name, self._environ)}; {advice}")
        return text

    def _file(self, name: str, path: Path) -> str:
        file = self._folder / FilePath(name)
        try:
            file = self._folder / FilePath(name).expanduser()
            self.files.append(file)
            with file.open("rb") as stream:
                content = stream.read(_MOST_BYTES + 1)
            if len(content) > _MOST_BYTES:
                return self._fault(path, f"the file {file} is larger than {_MOST_BYTES} bytes; is it the right one?")
            return content.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError:
            return self._fault(path, f"the file {file} is not UTF-8 text")
        except (OSError, ValueError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or "no usable path"
            return self._fault(path, f"the file {file} cannot be read: {reason}")

    def _fault(self, path: Path, message: str) -> str:
        self.faults.append(Fault(dotted(path), message))
        return ""


def is_secret(path: Path) -> bool:
    """Tell whether what stands at the path is a secret."""
    match path:
        case ("providers", _, "api_keys", *_) | ("gateway", "api_keys", _, "key", *_):
            return True
        case _:
            return False


def _placeholder(path: Path) -> str:
    """Return what stands for a text that could not be found, so that the rest can be checked."""
    return f"unknown:{dotted(path)}" if is_secret(path) else "*"
