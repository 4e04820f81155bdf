"""The commands of `manifold --help`, in sections by what they are for."""

from __future__ import annotations

from typing import Any, Final

from typer.core import TyperGroup

_SECTIONS: Final = {
    "Ask": ("chat", "batch"),
    "Serve": ("serve",),
    "Look": ("status", "stats"),
    "Set up": ("models", "config", "cache", "keys"),
}
_ELSE: Final = "More"


class Sections(TyperGroup):
    """Lists its commands by section; those that belong to none come last."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer's own, from where differs by version
        """Write them."""
        left = self.list_commands(ctx)
        sections = {title: [name for name in names if name in left] for title, names in _SECTIONS.items()}
        sections[_ELSE] = [name for name in left if not any(name in names for names in sections.values())]
        width = max(map(len, left), default=0)
        for title, names in sections.items():
            rows = [(name.ljust(width), self._told(ctx, name, formatter.width - 6 - width)) for name in names]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def _told(self, ctx: Any, name: str, width: int) -> str:  # noqa: ANN401 - as above
        command = self.get_command(ctx, name)
        return "" if command is None else command.get_short_help_str(width)
