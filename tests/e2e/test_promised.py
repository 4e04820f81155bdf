"""Promises that no part proves by itself, over real sockets and through the whole chain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import pytest
from tests.patience import PATIENCE, until

from llm import LLMConnectionError, LLMException, LLMManager
from llm.testing import Fault, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from llm import LLMClient

CLOCK = SystemClock()
DIALECTS = ("openai", "anthropic")
LONG = "an answer of enough words to come in several chunks"


def config(address: str, dialect: str, **sections: Any) -> dict[str, Any]:  # noqa: ANN401 - options as they come
    retry = {"max_attempts": 3, "initial_delay": 0.01, "max_delay": 0.02}
    provider = {"base_url": address, "api_keys": ["sk-test-1"], "models": ["m"]}
    return {"retry": retry, "providers": {dialect: provider}, **sections}


async def ask(client: LLMClient, *, stream: bool) -> str:
    if not stream:
        return str(await client.chat(LONG))
    async with client.stream_complete(LONG) as answer:
        return str(await answer.response())


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_when_the_leader_is_cancelled_all_others_are_answered_by_one_more_request(
    dialect: Literal["openai", "anthropic"], *, stream: bool
) -> None:
    # A stream that stalls before its first chunk has told nobody anything yet.
    faults = [Fault("stalled", at=1, after_chunks=0)]
    async with (
        MockUpstream(dialect, faults=faults) as upstream,
        LLMManager.open(config(upstream.base_url, dialect, cache={})) as manager,
    ):
        client = manager.get_client()
        leader = asyncio.create_task(ask(client, stream=stream))
        await until(lambda: upstream.active == 1)
        others = [asyncio.create_task(ask(client, stream=stream)) for _ in range(20)]
        await until(lambda: manager.get_status()["pool"]["calls"] == 21)
        leader.cancel()
        async with CLOCK.timeout(PATIENCE):
            await asyncio.wait([leader, *others])
        assert leader.cancelled()
        assert [other.result() for other in others] == [LONG] * 20
        assert len(upstream.requests) == 2
        await until(lambda: upstream.active == 0)


@pytest.mark.parametrize("kind", ["reset_after", "truncated", "polite_cut", "error_event"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_stream_is_sent_again_before_its_first_chunk_only(
    dialect: Literal["openai", "anthropic"], kind: str
) -> None:
    faults = [Fault(kind, at=1, after_chunks=0), Fault(kind, at=3, after_chunks=3)]
    before_only = kind != "reset_after"  # which never comes after a chunk
    async with (
        MockUpstream(dialect, faults=faults) as upstream,
        LLMManager.open(config(upstream.base_url, dialect)) as manager,
    ):
        client = manager.get_client()
        assert await ask(client, stream=True) == LONG
        assert len(upstream.requests) == 2
        if before_only:
            stream = client.stream_complete(LONG)
            came = str(await anext(stream))
            assert came
            assert LONG.startswith(came)
            with pytest.raises(LLMException) as caught:
                await stream.response()
            assert len(upstream.requests) == 3
            assert caught.value.attempts == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_error_says_truly_whether_the_request_may_have_arrived(
    dialect: Literal["openai", "anthropic"], unused_port: int, *, stream: bool
) -> None:
    once = {"retry": {"max_attempts": 1}}
    async with MockUpstream(dialect, faults=[Fault("reset_before")]) as upstream:
        for address, sent in ((f"http://127.0.0.1:{unused_port}", False), (upstream.base_url, True)):
            async with LLMManager.open(config(address, dialect, **once)) as manager:
                with pytest.raises(LLMConnectionError) as caught:
                    await ask(manager.get_client(), stream=stream)
                assert caught.value.sent is sent
        assert len(upstream.requests) == 1


@pytest.fixture
def unused_port() -> int:
    """A port of this machine at which nobody listens."""
    import socket  # noqa: PLC0415 - only here

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
