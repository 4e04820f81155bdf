"""What every command shares: its three options, and where its words go: data to stdout, all else to stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from .completion import models, providers
from .dotenv import load_dotenv
from .errors import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence
    from typing import TextIO

    from rich.console import Console

    from llm.core.config import LLMConfig

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The configuration to use in place of the usual places."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")]
ProviderOption = Annotated[
    str | None,
    typer.Option("--provider", "-p", autocompletion=providers, help="Provider to ask; default: the configured one."),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", autocompletion=models, help="Model, provider/model or alias; default: any."),
]

# What a model or a server says is not to move a terminal's cursor, change its title or read its answers back.
_CONTROLS: Final = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])


@dataclass(frozen=True, slots=True)
class Shell:
    """A command's surroundings.

    Attributes:
        config: File named with `--config`; None for the usual places.
        json: Whether data is JSON.
        quiet: Whether progress and remarks are left out.
    """

    config: Path | None
    json: bool
    quiet: bool

    @classmethod
    def of(cls, context: typer.Context, config: Path | None, as_json: bool, quiet: bool) -> Shell:  # noqa: FBT001 - three options as they come from the command
        """Join a command's options with those before it (`manifold --json status`), and keep them for those after it.

        Raises:
            LLMConfigurationError: The `.env` file of the current folder is wrong.
        """
        before: object = context.obj
        if isinstance(before, cls):
            config, as_json, quiet = config or before.config, as_json or before.json, quiet or before.quiet
        shell = context.obj = cls(config, as_json, quiet)
        if context.invoked_subcommand is None:  # the command itself, not one on the way to it
            load_dotenv(Path(".env"))
            _show_logs()
        return shell

    @property
    def drawing(self) -> bool:
        """Whether progress may be drawn, which takes somebody who looks on."""
        return sys.stderr.isatty() and not self.quiet

    def remark(self, text: str) -> None:
        """Say something that is no result."""
        if not self.quiet:
            say(text)

    def error(self, text: str) -> None:
        """Say what went wrong."""
        say(f"error: {text}")

    def put(self, text: str, *, end: str = "\n") -> None:
        """Print text as a result; on a terminal without what would control it."""
        print(_legible(text, sys.stdout), end=end, flush=True)  # noqa: T201 - the program's voice

    def put_json(self, value: object) -> None:
        """Print a value as one JSON document: indented on a terminal, else in one line."""
        self.put(json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))

    def put_rows(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        unbroken: Container[str] = (),
        numbers: Container[str] = (),
        total: Sequence[str] | None = None,
    ) -> None:
        """Print a table: drawn on a terminal, else a line per row, tabs between, for other programs.

        Args:
            columns: Their names, which only a terminal shows.
            rows: A cell for each column.
            unbroken: Where a terminal is narrow, the other columns are broken into lines before these.
            numbers: Columns that stand to the right.
            total: One more row, under a line.
        """
        if not sys.stdout.isatty():
            for row in (*rows, *([] if total is None else [total])):
                self.put("\t".join(row))
            return
        from rich.box import SIMPLE, SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD if total is None else SIMPLE, pad_edge=False, show_footer=total is not None)
        for place, column in enumerate(columns):
            table.add_column(
                column,
                footer="" if total is None else total[place],
                overflow="fold",  # a name that is cut is of no use
                no_wrap=column in unbroken,
                justify="right" if column in numbers else "left",
            )
        for row in rows:
            table.add_row(*(Text(cell.translate(_CONTROLS)) for cell in row))
        _console().print(table)

    def ask(self, question: str) -> None:
        """Go on only where the person at the terminal says yes.

        Raises:
            typer.Exit: The answer was no (1), or nobody is there (2).
        """
        if not sys.stdin.isatty():
            self.error("clearing asks first, and nobody is there to answer; pass --yes")
            raise typer.Exit(ExitStatus.USAGE)
        print(f"{question} [y/N]: ", end="", file=sys.stderr, flush=True)  # noqa: T201 - the program's voice
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            self.remark("nothing was removed")
            raise typer.Exit(ExitStatus.FAILED)

    def load_config(self) -> LLMConfig:
        """Read the configuration that the options name.

        Raises:
            LLMConfigurationError: It is wrong; all mistakes in one message.
        """
        from llm.core.config import load_config

        return load_config(self.config)


def say(text: str) -> None:
    """Print on stderr; where that is full, or nobody reads it any more, it ends no work and changes no status."""
    try:
        print(_legible(text, sys.stderr), file=sys.stderr, flush=True)  # noqa: T201 - the program's voice
    except OSError:
        give_up(sys.stderr)


def give_up(stream: TextIO) -> None:
    """Let what is still buffered go nowhere; the interpreter would fail on it again as it ends."""
    with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def _legible(text: str, stream: TextIO) -> str:
    return text.translate(_CONTROLS) if stream.isatty() else text  # for a terminal without what would control it


def _console() -> Console:
    from rich.console import Console

    return Console()


def _show_logs() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.getLogger("llm").addHandler(handler)
    # Of a call that failed, and of keys, the commands themselves tell.
    for name in ("llm.calls", "llm.keys"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
