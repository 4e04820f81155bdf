"""The way to the background loop: from every thread, with every end."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import threading
import traceback
from typing import TYPE_CHECKING

import pytest
from tests.patience import PATIENCE

from llm.sync import portal
from llm.sync.portal import Portal
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator
    from types import FrameType

CLOCK = SystemClock()


@pytest.fixture
def own() -> Iterator[Portal]:
    """A way to a loop that nobody else uses."""
    made = Portal()
    yield made
    made.end()


async def echo(value: int) -> int:
    await CLOCK.sleep(0)
    return value


async def ident() -> int:
    return threading.get_ident()


async def fail() -> None:
    await CLOCK.sleep(0)
    raise KeyError("which one")


def test_a_coroutine_runs_in_a_thread_of_its_own_and_its_result_comes_back(own: Portal) -> None:
    assert own.run(echo(7)) == 7
    assert own.run(ident()) != threading.get_ident()
    assert own.run(ident()) == own.run(ident())


def test_an_exception_keeps_its_type_and_its_traceback_shows_both_sides(own: Portal) -> None:
    with pytest.raises(KeyError, match="which one") as caught:
        own.run(fail())
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[0] == "test_an_exception_keeps_its_type_and_its_traceback_shows_both_sides"
    assert names[-1] == "fail"


def test_an_exception_is_freed_with_its_last_name(own: Portal) -> None:
    class Freed(Exception):  # noqa: N818 - says what is asked of it
        def __del__(self) -> None:
            freed.set()

    freed = threading.Event()

    async def raising() -> None:
        raise Freed

    try:
        own.run(raising())
    except Freed:
        assert not freed.is_set()
    assert freed.wait(10.0)


def test_the_callers_context_goes_along_and_stays_as_it_is(own: Portal) -> None:
    trace = contextvars.ContextVar("trace", default="none")

    async def seen() -> str:
        before = trace.get()
        trace.set("changed")
        return before

    trace.set("mine")
    assert own.run(seen()) == "mine"
    assert trace.get() == "mine"


def test_a_thread_whose_own_loop_runs_may_wait_too(own: Portal) -> None:
    async def cell_of_a_notebook() -> int:
        return own.run(echo(3))

    assert asyncio.run(cell_of_a_notebook()) == 3


def test_many_threads_start_one_loop_and_each_gets_its_own_result(own: Portal) -> None:
    threads_before, results, loops = threading.active_count(), dict[int, int](), set[int]()
    ready = threading.Barrier(40)

    def work(number: int) -> None:
        ready.wait()
        loops.add(own.run(ident()))
        results[number] = own.run(echo(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == {number: number for number in range(40)}
    assert len(loops) == 1
    assert threading.active_count() == threads_before + 1


def test_a_call_in_the_loop_itself_is_an_error_that_names_the_remedy(own: Portal) -> None:
    async def called_back() -> None:
        own.run(echo(1))  # which would wait for itself

    with pytest.raises(RuntimeError, match=r"from llm import get_llm_manager"):
        own.run(called_back())


def test_where_no_thread_can_start_nothing_is_left_and_the_next_call_tries_again(own: Portal) -> None:
    before = threading.stack_size(2**46)  # more than any machine has
    try:
        with pytest.raises(RuntimeError, match="start new thread"):
            own.run(echo(1))
    finally:
        threading.stack_size(before)
    assert own.run(echo(2)) == 2


class _Timer:
    """Raises in the main thread, wherever that is, after some seconds."""

    def __init__(self, error: type[BaseException]) -> None:
        def ring(_: int, __: FrameType | None) -> None:
            raise error

        self._before = signal.signal(signal.SIGALRM, ring)

    def __call__(self, seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)


@pytest.fixture
def interrupt() -> Iterator[Callable[[float], None]]:
    """Has KeyboardInterrupt raised in this thread after some seconds."""
    timer = _Timer(KeyboardInterrupt)
    yield timer
    timer.stop()


def test_ctrl_c_cancels_what_is_waited_for_and_waits_until_it_has_let_go(
    own: Portal, interrupt: Callable[[float], None]
) -> None:
    events: list[str] = []

    async def forever() -> None:
        events.append("in")
        interrupt(0.02)
        try:
            await CLOCK.sleep(60)
        except asyncio.CancelledError:
            await CLOCK.sleep(0.05)
            events.append("out")
            raise

    with pytest.raises(KeyboardInterrupt):
        own.run(forever())
    assert events == ["in", "out"]
    assert own.run(echo(2)) == 2


def test_ctrl_c_waits_a_second_for_what_does_not_let_go_and_hears_no_more_of_it(
    own: Portal, interrupt: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    let_go, gone = threading.Event(), threading.Event()

    async def stubborn() -> None:
        interrupt(0.02)
        while not let_go.is_set():
            try:
                await CLOCK.sleep(0.05)
            except asyncio.CancelledError:
                continue
        gone.set()
        raise KeyError("what nobody hears")

    began = CLOCK.now()
    with pytest.raises(KeyboardInterrupt):
        own.run(stubborn())
    assert 0.9 < CLOCK.now() - began < PATIENCE  # and not until it lets go
    let_go.set()
    assert gone.wait(10.0)
    own.run(echo(1))
    gc.collect()
    assert caplog.records == []


def test_what_is_given_up_before_it_began_never_begins(own: Portal) -> None:
    own.run(echo(1))
    coroutine = echo(2)
    errand = portal._Errand(own, coroutine)  # pyright: ignore[reportPrivateUsage] - a moment that no signal can hit
    own._give_up(errand, own._there())  # pyright: ignore[reportPrivateUsage] - likewise
    with pytest.raises(RuntimeError, match="cannot reuse"):
        coroutine.send(None)


def test_what_comes_as_the_loop_ends_never_begins_and_nobody_is_warned_of_it() -> None:
    own = Portal()
    own.run(echo(1))
    loop = own._there()  # pyright: ignore[reportPrivateUsage] - a moment that no thread can hit
    own.end()
    on_its_way, too_late = (portal._Errand(own, echo(2)) for _ in range(2))  # pyright: ignore[reportPrivateUsage] - likewise
    on_its_way.start(loop)
    with pytest.raises(RuntimeError, match="interpreter is ending"):
        own._give_up(too_late, loop)  # pyright: ignore[reportPrivateUsage] - likewise
    del on_its_way, too_late
    gc.collect()


def test_the_end_cancels_what_runs_closes_generators_says_nothing_and_takes_no_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own, events = Portal(), list[str]()
    begun = threading.Event()

    async def open_one() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            events.append("closed")

    async def forever() -> None:
        begun.set()
        try:
            await CLOCK.sleep(60)
        finally:
            events.append("cancelled")
            raise KeyError("what nobody hears")

    async def start() -> object:
        generator = open_one()
        await anext(generator)
        tasks.append(asyncio.get_running_loop().create_task(forever()))
        return generator

    tasks: list[asyncio.Task[None]] = []
    kept = own.run(start())
    assert begun.wait(10.0)
    began = CLOCK.now()
    own.end()
    own.end()
    took = CLOCK.now() - began
    assert kept is not None
    tasks.clear()
    gc.collect()
    assert caplog.records == []
    assert events == ["cancelled", "closed"]
    assert took < PATIENCE  # where what ran would take a minute
    with pytest.raises(RuntimeError, match="interpreter is ending"):
        own.run(echo(1))


def test_who_waits_at_the_end_is_told_nothing_for_its_thread_ends_with_the_interpreter() -> None:
    own, said, begun = Portal(), list[object](), threading.Event()

    async def forever() -> None:
        begun.set()
        await CLOCK.sleep(60)

    def wait() -> None:
        try:
            own.run(forever())
        except BaseException as error:  # noqa: BLE001 - whatever it is
            said.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert begun.wait(10.0)
    own.end()
    late = threading.Thread(target=wait, daemon=True)
    late.start()
    late.join(0.1)
    assert said == []
    assert thread.is_alive()
    assert late.is_alive()


def test_an_end_before_the_beginning_is_an_end() -> None:
    own = Portal()
    own.end()
    assert own.over
    with pytest.raises(RuntimeError, match="interpreter is ending"):
        own.run(echo(1))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_a_loop_of_its_own_and_knows_that_the_parents_is_not() -> None:
    before = portal.current()
    assert portal.run(echo(1)) == 1
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            told = str(portal.run(echo(2)))
            try:
                before.run(echo(3))
            except RuntimeError as error:
                told += str(error)
            os.write(writing, told.encode())
        finally:
            os._exit(0)
    os.close(writing)
    told = os.read(reading, 1000).decode()
    os.close(reading)
    assert os.waitpid(child, 0)[1] == 0
    assert told.startswith("2this was made before the process forked")
    assert "get_llm_manager()" in told
    assert portal.current() is before
    assert portal.run(echo(4)) == 4
