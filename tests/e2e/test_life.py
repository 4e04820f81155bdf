"""A manager over real sockets: deadlines, leaving, reloading under load, and leaving the interpreter."""

# ruff: noqa: ANN401 - options as they come, and doubles of more than one kind

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import PATIENCE, until

from llm import LLMConnectionError, LLMException, LLMManager, LLMServerError, LLMTimeoutError
from llm.providers.direct.transport import DirectTransport
from llm.testing import FakeClock, Fault, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from llm import LLMClient, LLMStream

CLOCK = SystemClock()
MODEL = "gpt-4o-mini"
LONG = "a text of a good many chunks " * 8


def config(upstream: MockUpstream | str, **sections: Any) -> dict[str, Any]:
    address = upstream if isinstance(upstream, str) else upstream.base_url
    provider = {"base_url": address, "api_keys": ["sk-life-1"], "models": [MODEL], **sections.pop("openai", {})}
    return {"providers": {"openai": provider}, **sections}


# --- leaving a stream ----------------------------------------------------------------------------------------------

ENDLESS: dict[str, Any] = {"service": 2 * PATIENCE, "chunk_size": 1}
"""A server whose answers go on, and do not end by themselves while a test waits for their connection to be closed.

That takes no second of the manager's: its clock stands still.
"""


async def leave_by_async_with(client: LLMClient, _upstream: MockUpstream) -> None:
    async with client.stream_complete(LONG) as stream:
        await anext(stream)


async def leave_by_aclose(client: LLMClient, _upstream: MockUpstream) -> None:
    stream = client.stream_complete(LONG)
    await anext(stream)
    await stream.aclose()


async def leave_by_break(client: LLMClient, _upstream: MockUpstream) -> None:
    async for _ in client.stream_complete(LONG):
        break


async def leave_by_cancellation(client: LLMClient, _upstream: MockUpstream) -> None:
    stream = client.stream_complete(LONG)
    task = asyncio.create_task(stream.response())
    await until(lambda: stream.text)
    task.cancel()
    await asyncio.wait([task])


async def leave_unary_by_cancellation(client: LLMClient, upstream: MockUpstream) -> None:
    task = asyncio.create_task(client.chat(LONG))
    await until(lambda: upstream.active)
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize(
    "leave",
    [leave_by_async_with, leave_by_aclose, leave_by_break, leave_by_cancellation, leave_unary_by_cancellation],
)
async def test_leaving_early_closes_upstream_at_once(
    leave: Callable[[LLMClient, MockUpstream], Coroutine[None, None, None]],
) -> None:
    async with MockUpstream(**ENDLESS) as upstream, LLMManager.open(config(upstream), clock=FakeClock()) as manager:
        await leave(manager.get_client(), upstream)
        await until(lambda: all(record.left for record in upstream.requests))
        assert len(upstream.requests) == 1
        assert manager.get_status()["pool"]["calls"] == 0


async def leave(stream: LLMStream) -> None:
    await stream.aclose()


async def interrupt(stream: LLMStream) -> None:
    stream.interrupt(LLMServerError("somebody has had enough"))


@pytest.mark.parametrize("end", [leave, interrupt])
async def test_ending_a_stream_while_it_opens_closes_upstream_at_once_and_tells_its_reader(
    end: Callable[[LLMStream], Coroutine[None, None, None]],
) -> None:
    slow = Fault("slow", rate=1.0, seconds=2 * PATIENCE)
    async with MockUpstream(faults=[slow]) as upstream, LLMManager.open(config(upstream), clock=FakeClock()) as manager:
        stream = manager.get_client().stream_complete(LONG)
        reader = asyncio.create_task(stream.response())
        await until(lambda: len(upstream.requests) == 1)
        await end(stream)
        await until(lambda: manager.get_status()["pool"]["calls"] == 0)
        await until(lambda: all(record.left for record in upstream.requests))
        with pytest.raises(LLMException, match=r"left while it opened|had enough"):
            await reader
        assert len(upstream.requests) == 1


async def test_a_cancelled_reader_of_a_stream_that_opens_is_cancelled_and_nothing_else() -> None:
    slow = Fault("slow", rate=1.0, seconds=2 * PATIENCE)
    async with MockUpstream(faults=[slow]) as upstream, LLMManager.open(config(upstream)) as manager:
        stream = manager.get_client().stream_complete(LONG)
        reader = asyncio.create_task(stream.response())
        await until(lambda: len(upstream.requests) == 1)
        reader.cancel()
        await stream.aclose()
        await asyncio.wait([reader])
        assert reader.cancelled()


async def test_a_stream_freed_by_another_thread_closes_upstream_and_leaves_no_connection_open() -> None:
    async with MockUpstream(**ENDLESS) as upstream, LLMManager.open(config(upstream), clock=FakeClock()) as manager:
        asyncio.get_running_loop().set_debug(True)  # it then refuses what another thread asks of it
        box = [manager.get_client().stream_complete(LONG)]
        await anext(box[0])
        await asyncio.to_thread(box.clear)
        await until(lambda: all(record.left for record in upstream.requests))
        assert manager.get_status()["pool"]["calls"] == 0


async def test_an_abandoned_stream_is_closed_after_idle_seconds_with_data_waiting() -> None:
    clock = FakeClock()
    bounds = {"timeouts": {"idle": 0.4}}
    async with (
        MockUpstream(**ENDLESS) as upstream,
        LLMManager.open(config(upstream, **{"global": bounds}), clock=clock) as manager,
    ):
        stream = manager.get_client().stream_complete(LONG)
        await anext(stream)
        await until(lambda: upstream.requests[0].sent > 1)
        await clock.advance(0.39)
        assert not upstream.requests[0].left
        await clock.advance(0.01)
        await until(lambda: upstream.requests[0].left)
        with pytest.raises(LLMTimeoutError) as failure:
            await stream.response()
        assert (failure.value.phase, failure.value.unread) == ("idle", True)


# --- deadlines -----------------------------------------------------------------------------------------------------


async def unary(client: LLMClient, **options: Any) -> object:
    return await client.chat("hello", **options)


async def streamed(client: LLMClient, **options: Any) -> object:
    async with client.stream_complete(LONG, **options) as stream:
        return await stream.response()


async def ended_within_a_tenth(call: asyncio.Task[object], clock: FakeClock) -> LLMTimeoutError:
    """Return what ends a call after 1.5 seconds of the manager's clock, a tenth less or more."""
    await clock.advance(1.35)
    assert not call.done()
    await clock.advance(0.3)
    async with CLOCK.timeout(PATIENCE):
        with pytest.raises(LLMTimeoutError) as failure:
            await call
    return failure.value


@pytest.mark.parametrize(
    ("phase", "bounds", "options", "streaming", "fault"),
    [
        ("total", {}, {"timeout": 1.5}, False, Fault("slow", seconds=90.0)),
        ("total", {"timeouts": {"attempt": 1.5}}, {}, False, Fault("slow", seconds=90.0)),
        ("first_token", {"timeouts": {"first_token": 1.5}}, {}, True, Fault("slow", seconds=90.0)),
        ("idle", {"timeouts": {"idle": 1.5}}, {}, True, Fault("stalled")),
        ("total", {}, {"timeout": 1.5}, True, Fault("stalled")),
    ],
    ids=["total", "attempt", "first_token", "idle", "stream_total"],
)
async def test_deadlines_hold_within_a_tenth_and_the_error_names_the_phase(
    phase: str, bounds: dict[str, Any], options: dict[str, Any], streaming: bool, fault: Fault
) -> None:
    clock = FakeClock()
    sections: dict[str, Any] = {"global": bounds, "retry": {"max_attempts": 1}}
    async with (
        MockUpstream(faults=[fault]) as upstream,
        LLMManager.open(config(upstream, **sections), clock=clock) as manager,
    ):
        client = manager.get_client()
        stream = client.stream_complete(LONG, **options) if streaming else None
        running: asyncio.Task[object] = asyncio.create_task(
            client.chat("hello", **options) if stream is None else stream.response()
        )
        await until(lambda: upstream.active == 1)
        if stream is not None and fault.kind == "stalled":
            await until(lambda: stream.text)
        error = await ended_within_a_tenth(running, clock)
        assert error.phase == phase
        assert (error.provider, error.model, error.attempts) == ("openai", MODEL, 1)
        await until(lambda: upstream.active == 0)


async def test_the_pool_deadline_holds_within_a_tenth() -> None:
    clock = FakeClock()
    section = {"rate_limits": {"concurrent_requests": 1}}
    async with (
        MockUpstream(service=90.0) as upstream,
        LLMManager.open(config(upstream, openai=section), clock=clock) as manager,
    ):
        first = asyncio.create_task(unary(manager.get_client()))
        await until(lambda: upstream.active == 1)
        error = await ended_within_a_tenth(asyncio.create_task(unary(manager.get_client(), timeout=1.5)), clock)
        assert (error.phase, error.attempts) == ("pool", 0)
        first.cancel()
        await asyncio.wait([first])


@pytest.mark.parametrize(
    ("call", "faults"),
    [
        (unary, [Fault("slow", at=2, times=99, seconds=90.0)]),
        (streamed, [Fault("slow", at=2, seconds=90.0), Fault("reset_before", at=3), Fault("stalled", at=4, times=99)]),
    ],
    ids=["unary", "stream"],
)
async def test_waiting_attempts_pauses_and_a_stall_add_up_to_one_deadline(call: Any, faults: list[Fault]) -> None:
    sections: dict[str, Any] = {
        "global": {"timeouts": {"attempt": 0.4, "first_token": 0.4}},
        "retry": {"max_attempts": 100, "initial_delay": 0.05, "max_delay": 0.05},
        "openai": {"rate_limits": {"concurrent_requests": 1}},
    }
    quick: dict[str, Any] = {**sections, "global": {}}
    async with (
        MockUpstream(service=0.5, faults=faults) as upstream,
        LLMManager.open(config(upstream, **quick)) as other,  # its calls have the same place
        LLMManager.open(config(upstream, **sections)) as manager,
    ):
        first = asyncio.create_task(unary(other.get_client()))
        await until(lambda: upstream.active == 1)
        began = CLOCK.now()
        with pytest.raises(LLMTimeoutError) as caught:
            await call(manager.get_client(), timeout=1.8)
        assert 1.8 <= CLOCK.now() - began < PATIENCE  # all attempts take twice as long, and each wait would start anew
        assert caught.value.phase == "total"
        assert len(upstream.requests) - 1 in {caught.value.attempts, caught.value.attempts - 1}  # the last may be cut
        assert len(upstream.requests) >= 3
        assert upstream.most_active == 1
        assert await first
        await until(lambda: upstream.active == 0)


async def test_the_connect_deadline_holds_within_a_tenth(full_backlog: str) -> None:
    clock = FakeClock()
    transport = DirectTransport(connect_timeout=1.5, clock=clock)
    once = config(full_backlog, retry={"max_attempts": 1})
    async with LLMManager.open(once, transport=transport, clock=clock) as manager:
        error = await ended_within_a_tenth(asyncio.create_task(unary(manager.get_client())), clock)
        assert (error.phase, error.sent) == ("connect", False)
    await transport.close()


async def test_the_connect_deadline_is_the_one_that_is_configured(full_backlog: str) -> None:
    sections: dict[str, Any] = {"global": {"timeouts": {"connect": 0.2}}, "retry": {"max_attempts": 1}}
    async with LLMManager.open(config(full_backlog, **sections)) as manager:
        with pytest.raises(LLMTimeoutError, match=r"within 0\.2 seconds") as failure:
            await unary(manager.get_client())
        assert (failure.value.phase, failure.value.sent) == ("connect", False)


@pytest.fixture
async def full_backlog() -> AsyncIterator[str]:
    """An address that takes no connection: its queue of connections is full, and nobody accepts."""
    import socket  # noqa: PLC0415 - only here

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)  # noqa: FBT003 - the library's own parameter
            each.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}/v1"
        for each in waiting:
            each.close()


# --- closing and reloading -------------------------------------------------------------------------------------------


async def test_closing_ends_what_is_left_over_real_sockets_and_leaves_none_open() -> None:
    async with MockUpstream(service=2 * PATIENCE) as upstream:
        manager = await LLMManager.open(config(upstream))
        client = manager.get_client()
        task = asyncio.create_task(client.chat("hello"))
        reading = asyncio.create_task(client.stream_complete(LONG).response())
        await until(lambda: upstream.active == 2)
        async with CLOCK.timeout(PATIENCE):
            await manager.close(drain=0.2)
        for ended in (task, reading):
            await asyncio.wait([ended])
            assert isinstance(ended.exception(), LLMConnectionError)
            assert ended.cancelling() == 0
        await until(lambda: upstream.active == 0)


async def test_a_reload_under_load_loses_no_call() -> None:
    async with MockUpstream(service=0.05) as upstream, LLMManager.open(config(upstream)) as manager:
        client = manager.get_client()
        own = manager.get_client(middleware=["rate_limit", "retry", "metrics"])
        answers: list[str] = []

        async def ask(number: int) -> None:
            await CLOCK.sleep(number * 0.004)
            text = f"question {number}"
            maker = own if number % 3 == 0 else client
            streaming = number % 2 == 0
            answer = await (maker.stream_complete(text).response() if streaming else maker.chat(text))
            answers.append("" if str(answer) == text else str(answer))

        async def reload() -> None:
            for turn in range(20):
                section = {
                    "api_keys": [f"sk-life-{key}" for key in range(1 + turn % 3)],
                    "rate_limits": {"requests_per_minute": 1000 + turn, "concurrent_requests": 20 + turn},
                    "models": [MODEL],
                }
                chain = {"middleware": ["rate_limit", "retry", "metrics"] if turn % 2 else ["rate_limit", "metrics"]}
                await manager.reload(config(upstream, openai=section, **{"global": chain}))

        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(ask(number))
            group.create_task(reload())
        assert answers == [""] * 200
        status = manager.get_status()
        assert status["metrics"]["total_requests"] == status["metrics"]["successful_requests"] == 200
        assert status["pool"]["calls"] == status["pool"]["waiting"] == 0
        assert len({record.key for record in upstream.requests}) > 1


async def test_managers_in_one_loop_share_a_keys_concurrency_and_wake_each_other() -> None:
    section = {"rate_limits": {"concurrent_requests": 1}}
    async with (
        MockUpstream(service=0.1) as upstream,
        LLMManager.open(config(upstream, openai=section)) as one,
        LLMManager.open(config(upstream, openai=section)) as other,
    ):
        async with asyncio.TaskGroup() as group, CLOCK.timeout(PATIENCE):
            for number in range(5):
                group.create_task(one.get_client().chat(f"one {number}"))
                group.create_task(other.get_client().chat(f"other {number}"))
        assert len(upstream.requests) == 10
        assert upstream.most_active == 1


# --- leaving the interpreter -----------------------------------------------------------------------------------------

_SERVER = """
import asyncio, sys
from llm.testing import MockUpstream

async def main():
    async with MockUpstream() as fast, MockUpstream(service=60.0, chunk_size=1) as slow:
        print(fast.base_url, slow.base_url, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
"""

_BEFORE = """
import asyncio, os, signal, sys, threading
from llm import LLMManager, close_llm_manager, get_llm_manager

FAST, SLOW = sys.argv[1:3]
LONG = "a text of many words " * 40

def config(address):
    return {"providers": {"openai": {"base_url": address, "api_keys": ["sk-life"], "models": ["gpt-4o-mini"]}}}

def be_patient():
    asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is no fault of ours

async def client_of(address):
    be_patient()
    return (await get_llm_manager(config(address))).get_client()
"""

_PROGRAMS = {
    "unary": """
async def main():
    client = await client_of(FAST)
    print(await client.chat("done"))

asyncio.run(main())
""",
    "stream_kept_open": """
kept = []

async def main():
    client = await client_of(SLOW)
    stream = client.stream_complete(LONG)
    kept.append(stream)
    await anext(stream)
    print("done")

asyncio.run(main())
""",
    "stream_freed": """
async def main():
    client = await client_of(SLOW)
    await anext(client.stream_complete(LONG))
    print("done")

asyncio.run(main())
""",
    "calls_in_flight": """
async def main():
    client = await client_of(SLOW)
    asyncio.create_task(client.chat("never"))
    asyncio.create_task(client.stream_complete(LONG).response())
    await asyncio.sleep(0.3)
    print("done")

asyncio.run(main())
""",
    "an_independent_manager_in_two_loops": """
async def main():
    be_patient()
    manager = await LLMManager.open(config(FAST))
    print(await manager.get_client().chat("done"), end="")

asyncio.run(main())
asyncio.run(main())
print()
""",
    "sys_exit": """
async def main():
    client = await client_of(FAST)
    print(await client.chat("done"))
    sys.exit(0)

asyncio.run(main())
""",
    "keyboard_interrupt": """
async def main():
    client = await client_of(SLOW)
    threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGINT)).start()
    await client.chat("never")

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("done")
""",
    "threads": """
async def main():
    client = await client_of(FAST)
    await client.chat("hello")

threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
asyncio.run(main())
print("done")
""",
    "a_manager_dropped_while_the_loop_runs": """
import gc

async def main():
    be_patient()
    for _ in range(3):
        manager = await LLMManager.open(config(FAST))
        await manager.get_client().chat("hello")
        del manager
        gc.collect()
        await asyncio.sleep(0.05)
    print("done")

asyncio.run(main())
""",
    "a_call_that_waits_for_its_next_attempt_and_one_in_the_queue": """
async def main():
    be_patient()
    limits = {"rate_limits": {"concurrent_requests": 1}, "base_url": SLOW}
    section = {**config(SLOW)["providers"]["openai"], **limits}
    manager = await LLMManager.open({"providers": {"openai": section}, "retry": {"initial_delay": 9}})
    nowhere = await LLMManager.open({**config("http://127.0.0.1:9/v1"), "retry": {"initial_delay": 9}})
    kept.append([asyncio.create_task(manager.get_client().chat("never")) for _ in range(3)])
    kept.append(asyncio.create_task(nowhere.get_client().chat("never")))
    await asyncio.sleep(0.3)
    print("done")

kept = []
asyncio.run(main())
""",
    "a_watched_file": """
import pathlib, tempfile

async def main():
    be_patient()
    manager = await LLMManager.open(file)
    manager._watch._due()  # as if two seconds had passed: it looks as the loop ends
    print(await manager.get_client().chat("done"))
    manager._watch._due()
    await asyncio.sleep(0)

import json
file = pathlib.Path(tempfile.mkdtemp()) / "llm.yaml"
file.write_text(json.dumps({**config(FAST), "watch": True}))
asyncio.run(main())
""",
    "a_watched_file_while_a_thread_of_the_program_still_works": """
import json, pathlib, tempfile, time

async def main():
    be_patient()
    manager = await LLMManager.open(file)
    print(await manager.get_client().chat("done"))
    loop = asyncio.get_running_loop()
    loop.call_later(0.1, manager._watch._due)  # the loop waits for the thread, and lends no other
    loop.run_in_executor(None, time.sleep, 0.3)

file = pathlib.Path(tempfile.mkdtemp()) / "llm.yaml"
file.write_text(json.dumps({**config(FAST), "watch": True}))
asyncio.run(main())
""",
    "a_loop_that_is_closed_by_hand_with_calls_in_flight": """
async def main():
    client = await client_of(SLOW)
    stream = client.stream_complete(LONG)
    kept.append(stream)
    await anext(stream)
    kept.append(asyncio.create_task(client.chat("never")))
    await asyncio.sleep(0.1)
    print("done")

kept = []
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
for task in asyncio.all_tasks(loop): task.cancel()
loop.run_until_complete(asyncio.sleep(0.05))
loop.close()
""",
    "closed_in_time": """
async def main():
    client = await client_of(FAST)
    print(await client.chat("done"))
    await close_llm_manager()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert [thread for thread in threading.enumerate() if "asyncio" not in thread.name] == [threading.main_thread()]
    import gc, socket
    gc.collect()
    left = [each for each in gc.get_objects() if isinstance(each, socket.socket) and each.fileno() > 0]
    assert all(each.family is socket.AF_UNIX for each in left), left  # the loop's own pair

asyncio.run(main())
""",
    "a_fork_of_a_program_whose_loop_runs": """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
loop = asyncio.new_event_loop()
thread = threading.Thread(target=loop.run_forever)
thread.start()

async def ask():
    client = await client_of(FAST)
    return str(await client.chat("hello"))

def in_the_loop(work):
    return asyncio.run_coroutine_threadsafe(work, loop).result()

assert in_the_loop(ask()) == "hello"
child = os.fork()
if child == 0:
    assert asyncio.run(ask()) == "hello"
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert in_the_loop(ask()) == "hello"
in_the_loop(close_llm_manager())
loop.call_soon_threadsafe(loop.stop)
thread.join()
loop.close()
print("done")
""",
}


@pytest.fixture(scope="module")
def upstreams(root: Path) -> Any:
    """A fast and a slow server in a process of their own."""
    command = [sys.executable, "-c", _SERVER]
    with subprocess.Popen(  # noqa: S603 - our own code
        command, cwd=root / "src", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split()
        server.terminate()


@pytest.mark.parametrize("program", _PROGRAMS)
def test_leaving_without_closing_gives_no_warning_no_delay_and_exit_code_0(
    program: str, upstreams: list[str], root: Path
) -> None:
    ticking = 'import time\nprint(f"{time.monotonic()}", file=sys.stdout)\n'
    code = _BEFORE + _PROGRAMS[program] + ticking
    start = [sys.executable, "-W", "error", "-X", "dev", "-c", code, *upstreams]
    done = subprocess.run(start, cwd=root / "src", capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - our own code
    ended = CLOCK.now()
    assert done.stderr == ""
    assert done.returncode == 0
    said = done.stdout.split()
    assert said[0] in {"done", "donedone"}
    if program != "sys_exit":
        # From the last statement to the end of the process; a delay would be the minute of a slow answer.
        assert ended - float(said[-1]) < PATIENCE


async def test_a_call_that_fails_to_connect_is_a_typed_error() -> None:
    async with LLMManager.open(config("http://127.0.0.1:9/v1", retry={"max_attempts": 1})) as manager:
        with pytest.raises(LLMException) as failure:
            await manager.get_client().chat("hello")
        assert isinstance(failure.value, LLMConnectionError)
        assert not failure.value.sent
