"""The `.env` file of the current folder: `NAME=value` lines, read strictly.

The command line reads it, the library never does. What the environment has already stays.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from llm.core.exceptions import ConfigProblem, LLMConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

_LINE: Final = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_]\w*)\s*=\s*(?P<value>.*)", re.ASCII)
_QUOTED: Final = re.compile(r"""(?P<quote>["'])(?P<text>.*)(?P=quote)\s*(?:#.*)?""")


def load_dotenv(path: Path) -> None:
    """Set the variables of a `.env` file that the environment does not have yet; no file is no variables.

    Raises:
        LLMConfigurationError: It cannot be read, or a line is no `NAME=value`; names each such line, and shows none.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise LLMConfigurationError(f"{path} cannot be read: {reason}; correct it, or move it away") from error
    for name, value in parse_dotenv(text, str(path)).items():
        os.environ.setdefault(name, value)


def parse_dotenv(text: str, file: str = ".env") -> dict[str, str]:
    r"""Return the variables that a text in the form of a `.env` file sets.

    A value may stand in quotes, in which it is taken as it is; outside of them ` #` begins a comment. Nothing is
    expanded, and a value ends with its line. A name that comes again replaces the earlier one.

    Raises:
        LLMConfigurationError: Lines that are no `NAME=value`, by number.
    """
    values: dict[str, str] = {}
    problems: list[ConfigProblem] = []
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        value = _value(found["value"]) if (found := _LINE.fullmatch(stripped)) else None
        if found is None or value is None:
            problems.append(ConfigProblem("", 'expected NAME=value or NAME="value"', file, number, 1))
        else:
            values[found["name"]] = value
    if problems:
        raise LLMConfigurationError("the .env file has lines that set no variable:", problems=problems)
    return values


def _value(written: str) -> str | None:
    """Return the value as it was meant; None for quotes that do not close."""
    if written[:1] in {'"', "'"}:
        quoted = _QUOTED.fullmatch(written)
        return quoted["text"] if quoted and quoted["quote"] not in quoted["text"] else None
    return re.split(r"(?:^|\s)#", written, maxsplit=1)[0].strip()
