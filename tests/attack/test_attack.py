"""What a hostile review found; each test fails until its mend lands."""

from __future__ import annotations

import asyncio
import threading
import traceback
import warnings

import pytest

from llm import LLMConfigurationError, LLMException, LLMManager, LLMServerError, close_llm_manager, get_llm_manager
from llm.testing import Fault, MockUpstream
from llm.utils.clock import SystemClock

KEY = "plain_planted_key_BETA"


def config(up, **more):
    return {**more, "providers": {"openai": {"base_url": up.base_url, "api_keys": ["k1"], "models": ["m"]}}}


def shown(error):
    frames = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), capture_locals=True)
    return "".join(repr(frame.locals) for frame in frames if frame.filename != __file__)


async def test_a_stream_left_while_it_opens_closes_upstream_within_a_second():
    clock = SystemClock()
    async with (
        MockUpstream("openai", faults=[Fault("slow", rate=1.0, seconds=4)]) as up,
        LLMManager.open(config(up)) as manager,
    ):
        stream = manager.get_client().stream_complete("a b c d")
        reader = asyncio.create_task(anext(stream))
        await clock.sleep(0.2)
        assert manager.get_status()["pool"]["calls"] == 1
        await stream.aclose()
        await clock.sleep(1.0)
        left = manager.get_status()["pool"]["calls"]
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        assert left == 0


async def test_a_reader_whom_another_task_leaves_while_the_stream_opens_is_told():
    async with (
        MockUpstream("openai", faults=[Fault("slow", rate=1.0, seconds=0.5)]) as up,
        LLMManager.open(config(up)) as manager,
    ):
        stream = manager.get_client().stream_complete("a b c d")
        reader = asyncio.create_task(stream.response())
        collector = asyncio.create_task(_text(stream2 := manager.get_client().stream_complete("e f g")))
        await SystemClock().sleep(0.2)
        await stream.aclose()
        await stream2.aclose()
        with pytest.raises(LLMException):
            await reader
        with pytest.raises(LLMException):  # an orderly end would pass nothing as a whole answer
            await collector


async def _text(stream):
    return "".join([str(chunk) async for chunk in stream])


async def test_a_stream_freed_by_another_thread_closes_in_its_own_loop():
    async with MockUpstream("openai", service=1.0) as up, LLMManager.open(config(up)) as manager:
        asyncio.get_running_loop().set_debug(True)
        box = [manager.get_client().stream_complete("a b c d e f g h")]
        await anext(box[0])
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            thread = threading.Thread(target=box.clear)
            thread.start()
            await asyncio.to_thread(thread.join)
            await SystemClock().sleep(0.3)
        assert [str(w.message)[:80] for w in seen if issubclass(w.category, ResourceWarning)] == []


@pytest.mark.parametrize("mistake", [{"zzz": 1}, {}])
async def test_no_key_in_a_traceback_of_the_singleton(mistake):
    good = {"providers": {"openai": {"base_url": "http://127.0.0.1:9/v1", "api_keys": ["x"], "models": ["m"]}}}
    bad = {"providers": {"openai": {"api_keys": [KEY], "models": ["m"], **mistake}}}
    await get_llm_manager(good)
    try:
        with pytest.raises(LLMConfigurationError) as caught:
            await get_llm_manager(bad)
        assert KEY not in shown(caught.value)
    finally:
        await close_llm_manager()


async def test_no_key_in_a_traceback_of_the_first_get_llm_manager():
    with pytest.raises(LLMConfigurationError) as caught:
        await get_llm_manager({"providers": {"openai": {"api_keys": [KEY], "models": ["m"], "zzz": 1}}})
    assert KEY not in shown(caught.value)


@pytest.mark.parametrize("mistake", [{"zzz": 1}, {"type": "nope"}])
async def test_no_key_in_a_traceback_of_reload(mistake):
    good = {"providers": {"openai": {"base_url": "http://127.0.0.1:9/v1", "api_keys": ["x"], "models": ["m"]}}}
    async with LLMManager.open(good) as manager:
        with pytest.raises(LLMConfigurationError) as caught:
            await manager.reload({"providers": {"openai": {"api_keys": [KEY], "models": ["m"], **mistake}}})
        assert KEY not in shown(caught.value)


@pytest.mark.parametrize("index", [b'""', b'"x"'])
async def test_a_senseless_index_in_a_stream_is_a_typed_error(index):
    events = (
        b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
        b'data: {"choices":[{"delta":{"tool_calls":[{"index":' + index + b',"function":{"name":"f"}}]}}]}\n\n'
        b"data: [DONE]\n\n"
    )

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(events)
        writer.write(head + events)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        section = {"base_url": f"http://127.0.0.1:{port}/v1", "api_keys": ["k1"], "models": ["m"]}
        async with LLMManager.open({"retry": {"max_attempts": 1}, "providers": {"openai": section}}) as manager:
            with pytest.raises(LLMServerError):
                await manager.get_client().stream_complete("x").response()
