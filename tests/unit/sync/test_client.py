"""The blocking client is the asynchronous one: the same calls, over real sockets, from threads and notebooks."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

import llm
import llm.sync
from llm import (
    LLMAuthenticationError,
    LLMException,
    LLMInvalidRequestError,
    LLMRequest,
    LLMStream,
    LLMStreamInterruptedError,
    Message,
    MessageRole,
    StreamChunk,
)
from llm.sync import LLMClient, LLMManager
from llm.sync.stream import LLMStream as BlockingStream
from llm.testing import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llm.testing import MockUpstream

LONG = "a text of many words that takes a while to be told again in pieces of eight"


@pytest.fixture
def up(upstream: Callable[..., MockUpstream]) -> MockUpstream:
    return upstream()


@pytest.fixture
def client(up: MockUpstream, of: Callable[..., dict[str, Any]]) -> Iterator[LLMClient]:
    with LLMManager.open(of(up)) as manager:
        yield manager.get_client()


def test_a_request_is_streamed_too(client: LLMClient) -> None:
    with client.stream_request(LLMRequest(LONG)) as stream:
        assert stream.model
        assert stream.id
        assert stream.waiting() in (False, True)
        assert stream.response().content == LONG


@pytest.mark.parametrize("kind", ["LLMClient", "LLMManager"])
def test_every_public_method_is_there_with_the_same_parameters_and_says_what_it_does(kind: str) -> None:
    blocking: type[Any] = getattr(llm.sync, kind)
    awaited: type[Any] = getattr(llm, kind)
    inner = {"prepare", "is_of", "here", "parts"}  # for the package itself
    names = {name for name in vars(awaited) if not name.startswith("_")} - inner
    assert names <= {name for name in dir(blocking) if not name.startswith("_")}
    for name in names:
        ours, theirs = inspect.getattr_static(blocking, name), inspect.getattr_static(awaited, name)
        if isinstance(theirs, property):
            assert ours.__doc__ == theirs.__doc__
            continue
        ours, theirs = getattr(blocking, name), getattr(awaited, name)
        assert inspect.signature(ours).parameters == inspect.signature(theirs).parameters, name
        assert not inspect.iscoroutinefunction(ours)
        for word in ("async", "await", "aclose"):
            assert word not in (ours.__doc__ or ""), name


def test_a_stream_has_every_public_member_but_those_for_layers() -> None:
    for_layers = {"lazy", "on_end", "finish_with", "watch", "limit", "interrupt", "leave", "aclose", "foreign"}
    names = {name for name in dir(LLMStream) if not name.startswith("_")} - for_layers
    assert names | {"close"} <= set(dir(BlockingStream))


def test_every_kind_of_call_is_answered(client: LLMClient, up: MockUpstream) -> None:
    said = client.chat("Hello", system="Be brief", history=[{"role": "user", "content": "Hi"}], max_tokens=50)
    assert (said.content, said.provider) == ("Hello", "openai")
    assert client.complete([Message(MessageRole.USER, "again")], temperature=0.5).content == "again"
    assert client.request(LLMRequest("asked")).content == "asked"
    assert len(client.embed(["one", "two"]).embeddings) == 2
    assert client.count_tokens("How many?") > 1
    assert up.requests[0].body["max_tokens"] == 50
    assert repr(client) == "llm.sync.LLMClient(provider='openai', model=None, user=None)"


def test_a_stream_is_read_with_for(client: LLMClient) -> None:
    stream = client.stream_complete(LONG)
    chunks = list(stream)
    assert all(isinstance(chunk, StreamChunk) for chunk in chunks)
    assert len(chunks) > 3
    assert "".join(map(str, chunks)) == stream.text == stream.all_text == stream.response().content == LONG
    assert (stream.provider, stream.cost) == ("openai", None)  # this provider tells tokens only
    assert stream.usage == stream.response().usage
    assert stream.key == stream.response().key != ""


def test_what_is_left_of_a_stream_is_read_by_response(client: LLMClient) -> None:
    with client.stream_complete(LONG, max_tokens=1000) as stream:
        assert stream.begin() is stream
        next(stream)
        assert stream.response().content == LONG
        assert list(stream) == []


class Fact(BaseModel):
    name: str
    about: str


def ada(_: LLMRequest) -> str:
    return Fact(name="Ada", about=LONG).model_dump_json()


def test_a_growing_answer_is_read_by_partials(
    upstream: Callable[..., MockUpstream], of: Callable[..., dict[str, Any]]
) -> None:
    up = upstream(answer=ada)
    with LLMManager.open(of(up)) as manager:
        stream = manager.get_client().stream_complete("Who?", response_model=Fact)
        seen = list(stream.partials())
        assert seen[-1] == {"name": "Ada", "about": LONG}
        assert len(seen) > 3
        assert stream.response().parsed == Fact(name="Ada", about=LONG)
        next(manager.get_client().stream_complete("Who?", response_model=Fact).partials())  # and never mind the rest


@pytest.mark.parametrize("way", ["with", "close", "freed", "another thread"])
def test_a_stream_left_early_closes_upstream(
    way: str,
    upstream: Callable[..., MockUpstream],
    of: Callable[..., dict[str, Any]],
    soon: Callable[[Callable[[], bool]], bool],
) -> None:
    up = upstream(service=80.0, chunk_size=1)  # a letter every quarter of a second
    with LLMManager.open(of(up)) as manager:
        stream = manager.get_client().stream_complete(LONG * 4)
        if way == "with":
            with stream:
                next(stream)
                assert up.active == 1
        else:
            next(stream)
            assert up.active == 1
        if way == "close":
            stream.close()
            assert list(stream) == []
        elif way == "another thread":
            threading.Timer(0.1, stream.close).start()
            with pytest.raises(LLMStreamInterruptedError, match="left while it was read"):
                list(stream)
        del stream
        gc.collect()
        assert soon(lambda: up.active == 0)
        assert manager.get_status()["metrics"]["cancelled_requests"] == 1


def test_an_exception_keeps_its_type_and_its_facts(
    upstream: Callable[..., MockUpstream], of: Callable[..., dict[str, Any]]
) -> None:
    up = upstream(faults=[Fault("truncated", at=1), Fault("auth", at=2)])
    with LLMManager.open(of(up)) as manager:
        client = manager.get_client()
        with pytest.raises(LLMInvalidRequestError, match="temperature"):
            client.complete("Hello", temperature=-3.0)
        with pytest.raises(LLMInvalidRequestError, match="temperature"):
            client.stream_complete("Hello", temperature=-3.0)
        with pytest.raises(LLMStreamInterruptedError) as broken:
            list(client.stream_complete(LONG))
        assert LONG.startswith(broken.value.partial)
        with pytest.raises(LLMAuthenticationError) as refused:
            client.chat("Hello")
        assert (refused.value.provider, refused.value.status) == ("openai", 401)


def test_many_threads_share_a_client_and_each_gets_its_own_answer(client: LLMClient, up: MockUpstream) -> None:
    answers: dict[str, str] = {}

    def work(thread: int) -> None:
        for turn in range(4):
            text = f"question {turn} of thread {thread}"
            if turn % 2:
                answers[text] = "".join(map(str, client.stream_complete(text)))
            else:
                answers[text] = client.chat(text).content

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answers) == 80
    assert all(text == answer for text, answer in answers.items())
    assert len(up.requests) == 80


def test_a_cell_of_a_notebook_may_block_where_a_loop_runs(client: LLMClient) -> None:
    async def cell() -> list[str]:
        return [client.chat("Hello").content, client.stream_complete("Bye").response().content]

    assert asyncio.run(cell()) == ["Hello", "Bye"]


def test_a_call_in_the_background_loop_is_refused_and_not_waited_for(client: LLMClient) -> None:
    async def a_tool() -> object:
        return client.chat("Hello")

    with pytest.raises(RuntimeError, match="await the client"):
        client.home.run(a_tool())


def test_a_failure_to_connect_is_typed(of: Callable[..., dict[str, Any]], up: MockUpstream) -> None:
    nowhere = of(up, retry={"max_attempts": 1})
    nowhere["providers"]["openai"]["base_url"] = "http://127.0.0.1:9/v1"
    with LLMManager.open(nowhere) as manager, pytest.raises(LLMException, match=r"127\.0\.0\.1"):
        manager.get_client().chat("Hello")
