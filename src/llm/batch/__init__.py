"""Many requests: values, OpenAI Batch lines, the engine, and what a rerun skips."""

from __future__ import annotations

from .foretold import Forecast
from .manager import RequestManager
from .request import RequestBatch
from .run import run_file
from .summary import Summary, Tally
from .tables import count_records, read_table
from .values import ResponseWrapper

__all__ = [
    "Forecast",
    "RequestBatch",
    "RequestManager",
    "ResponseWrapper",
    "Summary",
    "Tally",
    "count_records",
    "read_table",
    "run_file",
]
