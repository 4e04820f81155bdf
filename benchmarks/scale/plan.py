"""What a run of so many rows takes: keys, calls in flight, a store's work, files, memory, money and hours.

The formulae of `docs/scale.md`, for numbers of one's own: `python -m benchmarks.scale.plan --help`.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from benchmarks.tables import Grid
from llm.core.models import PriceBook, batch_rates
from llm.core.types import TokenUsage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_MILLION: Final = 1e6
_GIGA: Final = 1e9
BATCH_ROWS: Final = 50_000
"""Rows of a batch of OpenAI's batch API. Source: docs/batch-api.md."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is given.

    Attributes:
        rows: Requests.
        model: Model whose list price counts, as `provider/model`.
        input_tokens: Of a row's prompt.
        output_tokens: Of a row's answer.
        accounts: Quota groups with limits of their own; a key each, or more.
        requests_per_minute: Of an account.
        tokens_per_minute: Of an account.
        over_bound: Finish time over the least possible.
        answer_seconds: From the request to the last token.
        calls_a_process: Calls in flight in one process (`pool.max_size`).
        row_cpu_ms: CPU of a row in its process, milliseconds.
        scripts_a_row: Scripts that the store of limits runs for a row: to pay, to settle.
        script_ms: What one takes of the store's one thread, milliseconds.
        entry_bytes: Bytes of an entry in an account's log; each script writes one.
        log_seconds: For how long the store keeps them.
        row_bytes: A row of the input file.
        result_bytes: A row of the output file.
        rows_a_file: Rows of one file; each is one process's at a time.
        index_bytes: Memory that the journal needs for a row of its file.
    """

    rows: float = 1e9
    model: str = "openai/gpt-4o-mini"
    input_tokens: float = 300
    output_tokens: float = 60
    accounts: float = 1000
    requests_per_minute: float = 500
    tokens_per_minute: float = 200_000
    over_bound: float = 1.10
    answer_seconds: float = 2.0
    calls_a_process: float = 512
    row_cpu_ms: float = 1.0
    scripts_a_row: float = 2
    script_ms: float = 0.2
    entry_bytes: float = 80
    log_seconds: float = 120
    row_bytes: float = 1400
    result_bytes: float = 900
    rows_a_file: float = 1e6
    index_bytes: float = 32

    @property
    def tokens(self) -> float:
        """Tokens of a row."""
        return self.input_tokens + self.output_tokens

    @property
    def rows_per_minute(self) -> float:
        """Rows that all accounts let through."""
        return self.accounts * min(self.requests_per_minute, self.tokens_per_minute / self.tokens)

    @property
    def tokens_a_minute(self) -> float:
        """Tokens that those rows take."""
        return self.rows_per_minute * self.tokens

    @property
    def hours(self) -> float:
        """Hours for all rows."""
        return self.rows / self.rows_per_minute / _MINUTE * self.over_bound

    @property
    def rows_per_second(self) -> float:
        """Rows that end in a second."""
        return self.rows / (self.hours * _HOUR)

    @property
    def in_flight(self) -> float:
        """Workers: calls in flight at the same time, by Little's law."""
        return self.rows_per_second * self.answer_seconds

    @property
    def cores(self) -> float:
        """Cores that the processes keep busy."""
        return self.rows_per_second * self.row_cpu_ms / 1e3

    @property
    def processes(self) -> int:
        """Processes: enough for the calls in flight, and one for each core that is kept busy."""
        return math.ceil(max(self.in_flight / self.calls_a_process, self.cores))

    @property
    def accounts_a_process(self) -> int:
        """Accounts of each process where no two share any."""
        return math.ceil(self.accounts / self.processes)

    @property
    def scripts_per_second(self) -> float:
        """Scripts that the store runs in a second, where all processes share all accounts."""
        return self.rows_per_second * self.scripts_a_row

    @property
    def store_nodes(self) -> int:
        """Nodes of the store, each half busy."""
        return math.ceil(self.scripts_per_second * self.script_ms / 1e3 / 0.5)

    @property
    def store_bytes(self) -> float:
        """What the accounts' logs hold."""
        return self.scripts_per_second * self.log_seconds * self.entry_bytes

    @property
    def files(self) -> int:
        """Files of the input, and as many of the output."""
        return math.ceil(self.rows / self.rows_a_file)

    @property
    def input_bytes(self) -> float:
        """All input files."""
        return self.rows * self.row_bytes

    @property
    def output_bytes(self) -> float:
        """All output files."""
        return self.rows * self.result_bytes

    @property
    def journal_bytes(self) -> float:
        """Memory of the journal in a process."""
        return min(self.rows, self.rows_a_file) * self.index_bytes

    @property
    def cost(self) -> float:
        """US dollars at list prices."""
        return self._cost(batch=False)

    @property
    def batch_cost(self) -> float:
        """US dollars through the vendor's batch API."""
        return self._cost(batch=True)

    @property
    def batches(self) -> int:
        """Batches of the vendor's batch API."""
        return math.ceil(self.rows / BATCH_ROWS)

    def _cost(self, *, batch: bool) -> float:
        provider, _, model = self.model.partition("/")
        rates = batch_rates(provider, model) if batch else PriceBook().facts(provider, model).rates
        if rates is None:
            raise ValueError(f"the price of {self.model!r} is not known; name another model")
        return self.rows * rates.cost(TokenUsage(round(self.input_tokens), round(self.output_tokens)))


_ROWS: Final[tuple[tuple[str, str, Callable[[Plan], str]], ...]] = (
    ("rows a minute", "accounts x min(requests_per_minute, tokens_per_minute ÷ (input_tokens + output_tokens))",
     lambda plan: f"{plan.rows_per_minute:,.0f}"),
    ("tokens a minute", "rows a minute x (input_tokens + output_tokens)",
     lambda plan: f"{plan.tokens_a_minute / _MILLION:,.0f} million"),
    ("hours", "rows ÷ rows a minute ÷ 60 x over_bound", lambda plan: f"{plan.hours:,.1f}"),
    ("rows a second", "rows ÷ (hours x 3600)", lambda plan: f"{plan.rows_per_second:,.0f}"),
    ("workers: calls in flight", "rows a second x answer_seconds", lambda plan: f"{plan.in_flight:,.0f}"),
    ("cores kept busy", "rows a second x row_cpu_ms ÷ 1000", lambda plan: f"{plan.cores:,.1f}"),
    ("processes", "the larger of calls in flight ÷ calls_a_process and cores, rounded up",
     lambda plan: f"{plan.processes:,}"),
    ("accounts of a process, where none are shared", "accounts ÷ processes, rounded up",
     lambda plan: f"{plan.accounts_a_process:,}"),
    ("scripts a second in the store, where all are shared", "rows a second x scripts_a_row",
     lambda plan: f"{plan.scripts_per_second:,.0f}"),
    ("nodes of the store, each half busy", "scripts a second x script_ms ÷ 1000 ÷ 0.5, rounded up",
     lambda plan: f"{plan.store_nodes:,}"),
    ("memory of the store", "scripts a second x log_seconds x entry_bytes",
     lambda plan: f"{plan.store_bytes / _GIGA:,.2f} GB"),
    ("files in, and as many out", "rows ÷ rows_a_file", lambda plan: f"{plan.files:,}"),
    ("bytes in", "rows x row_bytes", lambda plan: f"{plan.input_bytes / _GIGA:,.0f} GB"),
    ("bytes out", "rows x result_bytes", lambda plan: f"{plan.output_bytes / _GIGA:,.0f} GB"),
    ("memory of a process's journal", "rows_a_file x index_bytes",
     lambda plan: f"{plan.journal_bytes / _MILLION:,.0f} MB"),
    ("cost at list prices", "rows x (input_tokens x input price + output_tokens x output price)",
     lambda plan: f"${plan.cost:,.0f}"),
    ("cost by the batch API", "the same at batch prices", lambda plan: f"${plan.batch_cost:,.0f}"),
    ("batches of the batch API", f"rows ÷ {BATCH_ROWS:,}", lambda plan: f"{plan.batches:,}"),
)  # fmt: skip


def grid(plan: Plan) -> Grid:
    """Return what a plan comes to, with the formula of each line."""
    rows = [(name, formula, told(plan)) for name, formula, told in _ROWS]
    return Grid("What it comes to", ("what", "formula", "figure"), rows, ("what", "formula"))


def main(arguments: Sequence[str]) -> int:
    """Print what a plan of the command line's numbers comes to, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale.plan", description="The formulae of docs/scale.md, for numbers of one's own."
    )
    for field in fields(Plan):
        kind = str if field.name == "model" else float
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default, metavar="N")
    sys.stdout.write(grid(Plan(**vars(parser.parse_args(arguments)))).markdown() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
