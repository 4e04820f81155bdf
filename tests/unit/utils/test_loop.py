"""Back to a loop: at once inside of it, soon from elsewhere, and not at all where it is closed."""

from __future__ import annotations

import asyncio
import threading

from llm.utils.clock import SystemClock
from llm.utils.loop import way_back


async def test_inside_of_its_loop_it_calls_at_once() -> None:
    called: list[int] = []
    assert way_back()(lambda: called.append(1))
    assert called == [1]


async def test_from_another_thread_it_calls_in_its_loop() -> None:
    called: list[threading.Thread] = []
    back = way_back()
    assert await asyncio.to_thread(back, lambda: called.append(threading.current_thread()))
    await SystemClock().sleep(0)
    assert called == [threading.current_thread()]


def test_where_its_loop_is_closed_it_calls_nothing_and_says_so() -> None:
    async def back() -> object:
        return way_back()(lambda: None) and way_back()

    call = asyncio.run(back())
    called: list[int] = []
    assert callable(call)
    assert call(lambda: called.append(1)) is False
    assert called == []
