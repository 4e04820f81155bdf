"""Where a configuration comes from, sealed, so that no key in it can be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import TypeAlias

    from .config import LLMConfig

    ConfigSource: TypeAlias = "str | Path | Mapping[str, Any] | LLMConfig | None"


class SealedSource:
    """Where a configuration comes from, with nothing of it to be seen.

    A plain mapping has keys in it as text, and a traceback can show what every frame holds: the public doors seal
    what they are given at once, and let go of the open one.
    """

    __slots__ = ("_source",)

    def __init__(self, source: ConfigSource) -> None:
        """Seal `source`."""
        self._source = source

    def __repr__(self) -> str:
        """Return what kind of source it is, and nothing of what it holds."""
        return f"SealedSource(<{type(self._source).__name__}>)"

    def load(self) -> LLMConfig:
        """Read the configuration; does I/O.

        Raises:
            LLMConfigurationError: It is wrong; all mistakes in one message.
        """
        from .config import load_config  # noqa: PLC0415 - pydantic and yaml are paid for when a manager opens

        return load_config(self._source)

    def files(self) -> tuple[Path, ...]:
        """Return the files that are read for it: its own, if it is one, and those of its secrets; does I/O."""
        from .config import files_of  # noqa: PLC0415 - as above

        return files_of(self._source)

    def file(self) -> Path | None:
        """Return the file that it is; None where it is none."""
        from .config import file_of  # noqa: PLC0415 - as above

        return file_of(self._source)

    def fixed(self) -> SealedSource:
        """Return the source with its file by the whole path, which a program that changes its folder finds again.

        Where it was found in a usual place, this is that place from now on. Does I/O.
        """
        file = self.file()
        whole = None if file is None else file.absolute()
        return self if whole is None or whole == self._source else SealedSource(whole)
