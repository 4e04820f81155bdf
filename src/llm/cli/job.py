"""What `manifold batch` is to do: which rows, asked of whom, into which files."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from llm.core.exceptions import LLMInvalidRequestError

from .shell import Shell

if TYPE_CHECKING:
    from llm.batch.files import Count, Rows
    from llm.batch.source import Source

_TABLES: Final = frozenset({".csv", ".tsv", ".parquet"})
_STDIN: Final = "-"
_RAY: Final = "ray"
_OURS: Final = frozenset({"local", _RAY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A batch as it was asked for on the command line.

    Attributes:
        shell: Where it is told of.
        source: A file's name, or `-`.
        output: The file of answers; None in a dry run that looks at no earlier one.
        errors: The file of errors; None: beside the output.
        provider: Who is asked; None: the configured one.
        model: Model of rows that name none.
        concurrency: Calls at once.
        restart: Whether everything is asked anew.
        ordered: Whether the output is sorted at the end.
        engine: Who answers: `local`, `ray`, or a vendor's batch API.
        workers: How many, with `ray`; None: one for each processor.
        ray_address: The cluster of `ray` to join; None: one is started.
        cancel: Whether what is at the vendor is ended.
        prompt: Of a table: what is asked of each record.
        system: Of a table: instructions before that.
        id_column: Of a table: where a record's id is.
    """

    shell: Shell
    source: str
    output: str | None
    errors: str | None
    provider: str | None
    model: str | None
    concurrency: int
    restart: bool
    ordered: bool
    engine: str
    workers: int | None = None
    ray_address: str | None = None
    cancel: bool
    prompt: str | None
    system: str | None
    id_column: str | None

    @property
    def is_table(self) -> bool:
        """Whether the name says that a table is there, packed or not."""
        return Path(self.source.removesuffix(".gz")).suffix.lower() in _TABLES

    @property
    def is_file(self) -> bool:
        """Whether it can be read twice."""
        from llm.batch.source import path_of

        return self.source != _STDIN and path_of(self.source) is not None

    @property
    def goes_on(self) -> bool:
        """Whether a run before has left answers."""
        return self.is_file and not self.restart and is_there(self.output)

    @property
    def named(self) -> str:
        """What to call the input."""
        return "stdin" if self.source == _STDIN else self.source

    def check(self, *, dry_run: bool) -> None:
        """Refuse what does not go together.

        Raises:
            LLMInvalidRequestError: An option is missing, or is one too many.
        """
        if self.output is None and not dry_run:
            raise LLMInvalidRequestError("nothing says where the answers go; name a file: -o answers.jsonl")
        if self.output == _STDIN:
            raise LLMInvalidRequestError(
                "the answers go to a file, by which the next run goes on; name one: -o answers.jsonl"
            )
        for name in (self.output, self.errors):
            if name is not None and name.endswith(".gz"):
                raise LLMInvalidRequestError(
                    f"{name} would be packed, and lines are added to it as they come; leave .gz out, and pack it later"
                )
        if self.ordered and not self.is_file:
            raise LLMInvalidRequestError(
                f"--ordered reads IN again at the end, which {self.named} does not allow; name a file"
            )
        if self.is_table and self.prompt is None:
            raise LLMInvalidRequestError(
                f"{self.source} is a table; say what to ask of each record, as in --prompt 'Summarise: {{text}}'"
            )
        self._check_engine(dry_run=dry_run)
        given = {"--prompt": self.prompt, "--system": self.system, "--id": self.id_column}
        if not self.is_table and (named := [name for name, value in given.items() if value is not None]):
            raise LLMInvalidRequestError(
                f"{' and '.join(named)}: only for tables, and {self.named} is none (.csv, .tsv, .parquet); leave out"
            )

    def _check_engine(self, *, dry_run: bool) -> None:
        from llm.batch.remote.ledger import left_beside

        if self.workers is not None and self.engine != _RAY:
            raise LLMInvalidRequestError("--workers are those of a cluster; put --engine ray beside it")
        if self.cancel and self.engine in _OURS:
            raise LLMInvalidRequestError("--cancel ends what is at a vendor; name whose: --engine openai-batch")
        if self.cancel and (dry_run or self.restart):
            raise LLMInvalidRequestError("--cancel goes with neither --dry-run nor --restart; leave one out")
        left = None if self.output is None else left_beside(self.output)
        if left is not None and left.engine != self.engine and not dry_run:
            raise LLMInvalidRequestError(
                f"{left.rows:,} rows for {self.output} are in batches of {left.engine}; collect them first by --engine "
                f"{left.engine}, or give them up with --cancel beside it"
            )

    @property
    def input(self) -> Source:
        """What is read."""
        return sys.stdin.buffer if self.source == _STDIN else self.source

    def reader(self) -> tuple[Rows, Count]:
        """Return what reads the rows of the input, and what counts them.

        Raises:
            LLMConfigurationError: A template of the table is none.
        """
        if self.prompt is None:
            from llm.batch.jsonl import count_rows, read_rows

            return read_rows, count_rows
        from llm.batch.tables import count_records, read_table

        return partial(read_table, prompt=self.prompt, system=self.system, id_column=self.id_column), count_records


def is_there(name: str | None) -> bool:
    """Tell whether a file of that name has anything in it."""
    with suppress(OSError):
        return name is not None and Path(name).stat().st_size > 0
    return False
