"""Many requests: values, OpenAI Batch lines, the engine, and what a rerun skips."""

from __future__ import annotations

from .foretold import Forecast
from .manager import RequestManager
from .remote.run import cancel_remote, run_remote
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
    "cancel_remote",
    "count_records",
    "read_table",
    "run_file",
    "run_remote",
]
