from __future__ import annotations

import io
import logging
import threading
from typing import TYPE_CHECKING

import pytest
from tests.patience import until

from llm.core.types import TokenUsage
from llm.progress import ProgressTracker, show
from llm.progress.show import Show
from llm.testing import FakeClock
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from llm.progress import Progress
    from llm.utils.clock import Clock


def begun(clock: Clock | None = None) -> ProgressTracker:
    tracker = ProgressTracker(clock=clock)
    tracker.begin(2)
    tracker.answered(TokenUsage(3, 4), 0.0, cached=False)
    return tracker


class Drawing:
    """A painter that keeps what it is told, and fails where it is to."""

    every: float = 0.001

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.steps: list[str] = []
        self.painted = threading.Event()

    def begin(self, progress: Progress, now: float) -> None:  # noqa: ARG002 - as painters are called
        self.step("begin")

    def paint(self, progress: Progress, now: float) -> None:  # noqa: ARG002 - as painters are called
        self.painted.set()
        self.step("paint")

    def end(self, progress: Progress) -> None:  # noqa: ARG002 - as painters are called
        self.step("end")

    def step(self, name: str) -> None:
        self.steps += [] if self.steps[-1:] == [name] else [name]
        if name == self.fails:
            raise BrokenPipeError(32, "Broken pipe")


def drawing(painter: Drawing) -> Show:
    return Show(begun(), lambda: painter, SystemClock())


def test_without_a_terminal_the_last_line_is_written() -> None:
    stream = io.StringIO()
    with show(begun(), stream=stream):
        assert stream.getvalue() == ""
    assert stream.getvalue().startswith("1 of 2 rows (50 %) in ")
    assert stream.getvalue().count("\n") == 1


async def test_it_is_entered_by_programs_with_a_loop_and_leaves_no_thread() -> None:
    stream = io.StringIO()
    async with show(begun(), stream=stream):
        assert "llm-progress" in {thread.name for thread in threading.enumerate()}
    assert stream.getvalue().startswith("1 of 2 rows (50 %)")
    assert "llm-progress" not in {thread.name for thread in threading.enumerate()}


class Looked(FakeClock):
    """A clock that counts how often the thread that draws looks at it."""

    looks = 0

    def now(self) -> float:
        now = super().now()
        self.looks += threading.current_thread().name == "llm-progress"
        return now


async def test_the_time_between_lines_is_the_clocks() -> None:
    clock = Looked()
    stream = io.StringIO()
    async with show(begun(clock), stream=stream, clock=clock):
        await until(lambda: clock.looks > 2)  # twice as it begins
        await clock.advance(5.0)
        await until(stream.getvalue)
        assert stream.getvalue().startswith("1 of 2 rows (50 %), 12.0 rows/min, 1 tokens/s in, 1 out")


async def test_quiet_is_silent_and_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    threads = threading.active_count()
    with show(begun(), quiet=True):
        assert threading.active_count() == threads
    async with show(begun(), quiet=True):
        assert threading.active_count() == threads
    assert capsys.readouterr() == ("", "")


def test_it_draws_again_and_again_and_ends_when_a_run_fails() -> None:
    painter = Drawing()

    def run() -> None:
        with drawing(painter):
            assert painter.painted.wait(10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert painter.steps == ["begin", "paint", "end"]


@pytest.mark.parametrize(
    ("fails", "steps"), [("begin", ["begin", "end"]), ("paint", ["begin", "paint", "end"]), ("end", ["begin", "end"])]
)
def test_a_terminal_that_went_away_ends_the_display_and_not_the_run(
    fails: str, steps: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    painter = Drawing(fails)
    with caplog.at_level(logging.WARNING, "llm.progress"), drawing(painter):
        if fails == "paint":
            assert painter.painted.wait(10)
    assert [step for step in painter.steps if step != "paint" or fails == "paint"] == steps
    (record,) = caplog.records
    assert "Broken pipe" in record.getMessage()


def test_a_stream_that_is_closed_is_no_failure_of_the_run(caplog: pytest.LogCaptureFixture) -> None:
    stream = io.StringIO()
    stream.close()
    with caplog.at_level(logging.WARNING, "llm.progress"), show(begun(), stream=stream):
        pass
    assert "closed file" in caplog.text
