"""`manifold stats`: what the command line's calls came to, over all runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Final, cast

import typer

from llm.utils.clock import SystemClock

from .errors import ExitStatus
from .ledger import Grouping, Ledger, LedgerError, Usage
from .shell import ConfigOption, JsonOption, QuietOption, Shell
from .state import VARIABLE, state_folder
from .units import dollars_of, seconds_of

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_DEFAULT: Final = cast("Since", "30d")  # which typer reads as if it were typed
_COLUMNS: Final = ("calls", "failed", "cached", "input", "output", "cost", "saved")


@dataclass(frozen=True, slots=True)
class Since:
    """A moment to count from: the beginning of a day, or an age ago.

    Attributes:
        seconds: Since 1970, or the age.
        ago: Whether they are an age.
    """

    seconds: float
    ago: bool

    @classmethod
    def of(cls, text: str) -> Since:
        """Return what `7d` or `2026-11-22` means; a day is one of the machine's time zone.

        Raises:
            typer.BadParameter: It is neither an age nor a date.
        """
        if not _DATE.fullmatch(text):
            return cls(seconds_of(text), ago=True)
        try:
            begin = datetime.combine(date.fromisoformat(text), datetime.min.time()).astimezone()
            return cls(begin.timestamp(), ago=False)
        except (ValueError, OverflowError) as error:
            raise typer.BadParameter(f"{text!r} is no day of the calendar") from error

    def seen_at(self, wall: float) -> float:
        """Return it in seconds since 1970, at a time in the same."""
        return max(0.0, wall - self.seconds) if self.ago else self.seconds


def stats(  # noqa: PLR0913 - the command's options
    context: typer.Context,
    *,
    since: Annotated[
        Since, typer.Option("--since", metavar="WHEN", parser=Since.of, help="From then on: 90m, 7d, 2026-11-22.")
    ] = _DEFAULT,
    by: Annotated[list[Grouping] | None, typer.Option("--by", help="A row for each; several: each of both.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Forget all that was counted.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --clear: do not ask.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Tell what the calls of chat and batch came to, over all runs: tokens, US dollars, and what the cache saved.

    It is counted for 400 days in $LLM_STATE_DIR, else in llm-manifold in the user's state folder: numbers, never a text
    and never a key. With LLM_STATE_DIR=/dev/null nothing is.
    """
    shell = Shell.of(context, config, as_json, quiet)
    folder = state_folder()
    if folder is None:
        shell.error(f"nothing is counted: ${VARIABLE} is the null device; name a folder, or leave it unset")
        raise typer.Exit(ExitStatus.USAGE)
    ledger = Ledger(folder)
    try:
        if clear:
            _clear(shell, ledger, yes=yes)
        else:
            _show(shell, ledger, since.seen_at(SystemClock().wall()), list(dict.fromkeys(by or [Grouping.MODEL])))
    except LedgerError as error:
        shell.error(str(error))
        raise typer.Exit(ExitStatus.FAILED) from error


def _clear(shell: Shell, ledger: Ledger, *, yes: bool) -> None:
    if not yes:
        shell.ask(f"Forget all that {ledger.path} has?")
    ledger.clear()
    if shell.json:
        shell.put_json({"cleared": str(ledger.path)})
    else:
        shell.remark("all that was counted is forgotten")


def _show(shell: Shell, ledger: Ledger, start: float, by: list[Grouping]) -> None:
    found = ledger.totals(by, since=start)
    total = sum((usage for _, usage in found), Usage())
    since = datetime.fromtimestamp(start).astimezone()
    if shell.json:
        rows: list[dict[str, Any]] = [dict(zip(by, names, strict=True)) | usage.as_json() for names, usage in found]
        shell.put_json({"since": since.isoformat("T", "seconds"), "by": by, "rows": rows, "total": total.as_json()})
        return
    said = f"{since:%Y-%m-%d %H:%M}"
    if not found:
        shell.remark(f"nothing was counted since {said}; what `manifold chat` and `manifold batch` use will be")
        return
    shell.put_rows(
        (*by, *_COLUMNS),
        [(*names, *_cells(usage)) for names, usage in found],
        unbroken=_COLUMNS,
        numbers=_COLUMNS,
        total=("total", *[""] * (len(by) - 1), *_cells(total)),
    )
    if total.unpriced:
        shell.remark(f"the cost is without {total.unpriced:,} calls of models whose price is not known")
    shell.remark(f"since {said}, from {ledger.path}")


def _cells(usage: Usage) -> tuple[str, ...]:
    numbers = (usage.calls, usage.failed, usage.cache_hits, usage.input_tokens, usage.output_tokens)
    unknown = usage.unpriced and not usage.cost
    return (
        *[f"{number:,}" for number in numbers],
        dollars_of(None if unknown else usage.cost),
        dollars_of(usage.cost_saved),
    )
