from __future__ import annotations

import io
from dataclasses import replace

from llm.progress import Progress
from llm.progress.lines import Lines


def test_a_line_comes_every_five_seconds_and_of_a_long_run_every_thirty() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    progress = Progress(total=1000)
    lines.begin(progress, 100.0)
    written: list[float] = []
    for half in range(2 * 240):
        now = half / 2
        before = stream.tell()
        lines.paint(replace(progress, elapsed=now), 100.0 + now)
        written += [now] if stream.tell() > before else []
    assert written == [*map(float, range(5, 121, 5)), 150.0, 180.0, 210.0]


def test_a_short_run_says_its_last_line_only() -> None:
    stream = io.StringIO()
    lines = Lines(stream)
    lines.begin(Progress(total=2), 0.0)
    lines.paint(Progress(total=2, answered=1), 4.9)
    lines.end(Progress(total=2, answered=2, elapsed=4.9, overall_rows_per_second=0.41))
    assert stream.getvalue() == "2 of 2 rows (100 %) in 5 s, 24.6 rows/min\n"
