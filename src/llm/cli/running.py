"""A batch run by `manifold batch`: begun, watched, ended in good order, and told of."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from llm.batch.journal import errors_beside
from llm.batch.run import run_file
from llm.batch.summary import Summary, Tally
from llm.core.exceptions import LLMException
from llm.core.manager import LLMManager
from llm.progress import ProgressTracker, show

from .counting import Counting
from .errors import ExitStatus, exit_status, told
from .idle import Idle
from .job import Job
from .signals import Signals
from .units import count_of, dollars_of, span_of

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType

    from .shell import Shell

_WRONG: Final = frozenset({"LLMInvalidRequestError", "LLMContextLengthError", "LLMContentFilterError"})
_AGAIN: Final = "run the same command again to go on"
_WITHOUT: Final = "run the same command without --restart to go on"


class Hears(ProgressTracker):
    """Says, once, how much earlier runs have done, and is shown from then on.

    Attributes:
        rows: Rows of the input, where they were counted before.
    """

    def __init__(self, shell: Shell) -> None:
        """Say it there."""
        super().__init__()
        self.rows: int | None = None
        self._shell = shell
        self._shown = AsyncExitStack()
        self._begun = False

    def begin(self, total: int | None, skipped: int = 0) -> None:
        """Say it, and begin to show; a run that could not begin is told of by its error alone."""
        super().begin(self.rows if total is None else total, skipped)
        if self._begun:
            return
        self._begun = True
        if skipped:
            more = self.rows is None or skipped > self.rows  # than this input has
            of = f"{skipped:,} rows" if more else f"{skipped:,} of {count_of(self.rows or 0, 'row')}"
            self._shell.remark(f"{of} done already")
        self._shown.push_async_exit(show(self, quiet=self._shell.quiet).__enter__())

    async def __aenter__(self) -> Self:
        """Have what it shows end with the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Show the last state."""
        await self._shown.aclose()


async def run(job: Job) -> int:
    """Run a batch, or go on with it, and tell what came of it; returns the exit status.

    Raises:
        LLMException: It could not begin.
        OSError: It could not begin.
    """
    output = Path(job.output or "")
    errors = errors_beside(output) if job.errors is None else Path(job.errors)
    hears = Hears(job.shell)
    run = _Run(job, errors, Tally(), hears, Idle(hears, job.concurrency))
    async with LLMManager.open(job.shell.config) as manager:
        with Signals() as signals:
            status, why = await to_its_end(run.rows(manager), run.tally, signals)
            unanswered = await asyncio.to_thread(lines_in, errors)
            Ended(run.tally.summary(), output, errors, unanswered, why, again(job)).tell(job.shell)
            if not why and (slow := run.idle.said()):
                job.shell.remark(slow)
        if signals.received is not None:
            await manager.close(drain=0.0)  # a model on this machine may take its time, which the process does not
    return status or (ExitStatus.FAILED if unanswered else ExitStatus.DONE)


@dataclass(frozen=True, slots=True)
class _Run:
    """A run, with those who look on."""

    job: Job
    errors: Path
    tally: Tally
    hears: Hears
    idle: Idle

    async def rows(self, manager: LLMManager) -> None:
        """Take all rows to their end."""
        job = self.job
        rows, count = job.reader()
        client = manager.get_client(job.provider, model=job.model)
        if job.goes_on:
            self.hears.rows = await count(job.input)
        async with Counting(job.shell, "batch", manager.get_status), self.idle, self.hears:
            await run_file(
                manager,
                job.input,
                job.output or "",
                errors=self.errors,
                rows=rows,
                count=count,
                client=client,
                concurrency=job.concurrency,
                restart=job.restart,
                ordered=job.ordered,
                tracker=self.hears,
                tally=self.tally,
            )


async def to_its_end(rows: Awaitable[object], tally: Tally, signals: Signals) -> tuple[int, str]:
    """Wait for a run; return the exit status, and what ended it early; empty where nothing did.

    Raises:
        LLMException: It could not begin.
        OSError: It could not begin.
    """
    try:
        await rows
    except asyncio.CancelledError:
        if signals.received is None:
            raise
        return signals.status, "interrupted"
    except LLMException as error:
        if not tally.rows:
            raise
        return exit_status(error), told(error)
    except OSError as error:
        if not tally.rows:
            raise
        said, _, _ = (error.strerror or str(error)).partition("; ")  # what follows is said below
        return ExitStatus.FAILED, said if error.filename is None else f"{error.filename}: {said}"
    return ExitStatus.DONE, ""


def again(job: Job) -> str:
    """Return what to do after a run that was ended early."""
    return _WITHOUT if job.restart else _AGAIN


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a run.

    Attributes:
        summary: Its counts.
        output: The file of answers.
        errors: The file of errors.
        unanswered: Rows in that, those of earlier runs included.
        why: What ended it early; empty where nothing did.
        how: What to do then.
    """

    summary: Summary
    output: Path
    errors: Path
    unanswered: int
    why: str
    how: str

    def tell(self, shell: Shell) -> None:
        """Say it: one document, or a few lines."""
        if self.why:
            shell.error(f"{self.why}; everything finished is kept, {self.how}")
        if shell.json:
            shell.put_json(self.document())
        else:
            for line in self.lines():
                shell.remark(line)

    def document(self) -> dict[str, Any]:
        """Return what `--json` prints; tokens, US dollars, seconds."""
        summary = self.summary
        return {
            "complete": not self.why,
            "rows": summary.rows,
            "answered": summary.answered,
            "failed": summary.failed,
            "skipped": summary.skipped,
            "unmet": summary.unmet,
            "cache_hits": summary.cache_hits,
            "input_tokens": summary.usage.input_tokens,
            "output_tokens": summary.usage.output_tokens,
            "cached_input_tokens": summary.usage.cached_input_tokens,
            "cost": summary.cost,
            "seconds": round(summary.seconds, 3),
            "errors": dict(summary.errors),
            "output": str(self.output),
            "errors_file": str(self.errors) if self.unanswered else None,
        }

    def lines(self) -> list[str]:
        """Return what people read."""
        summary, usage = self.summary, self.summary.usage
        files = f"answers in {self.output}"
        if self.unanswered:
            files += f"; {count_of(self.unanswered, 'row')} without one in {self.errors}"
        if summary.unmet:
            files += f"; {count_of(summary.unmet, 'row')} of an earlier run that this input has not"
        before = [f"{summary.skipped:,} done before"] if summary.skipped else []
        if not summary.answered + summary.failed:
            return [f"rows: {', '.join(before or ['none answered' if summary.rows else 'none'])}", files]
        rows = [f"{summary.answered:,} answered", *_failed(summary), *before]
        spent = [
            f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out",
            "cost unknown" if summary.cost is None else dollars_of(summary.cost),
            *([f"{summary.cache_hits:,} from the cache"] if summary.cache_hits else []),
            span_of(summary.seconds),
        ]
        return [f"rows: {', '.join(rows)}", "; ".join(spent), files]


def _failed(summary: Summary) -> list[str]:
    """Tell how many failed, and how many of them are wrong in themselves, so that no later run helps."""
    if not summary.failed:
        return []
    wrong = sum(number for kind, number in summary.errors.items() if kind in _WRONG or not kind.startswith("LLM"))
    return [f"{summary.failed:,} failed ({wrong:,} of them wrong requests)" if wrong else f"{summary.failed:,} failed"]


def lines_in(path: Path) -> int:
    """Return how many lines a file has; 0 where it is not there."""
    with suppress(OSError), path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    return 0
