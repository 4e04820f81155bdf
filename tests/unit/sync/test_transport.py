"""The transport for the vendors' blocking clients."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from llm.sync import LLMManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llm.testing import MockUpstream

    Of = Callable[..., dict[str, Any]]
    Upstream = Callable[..., MockUpstream]

CHAT = "https://api.openai.com/v1/chat/completions"
ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello there"}]}
STREAM = ASK | {"stream": True}


def test_a_blocking_client_gets_answers_and_streams(upstream: Upstream, of: Of) -> None:
    with LLMManager.open(of(upstream())) as manager:
        client = httpx2.Client(transport=manager.http_transport(user="ada"))
        assert client.post(CHAT, json=ASK).json()["choices"][0]["message"]["content"] == "Hello there"
        streamed = client.post(CHAT, json=STREAM)
        assert streamed.headers["content-type"].startswith("text/event-stream")
        assert streamed.text.endswith("data: [DONE]\n\n")
        assert manager.get_status()["users"]["ada"]["requests"] == 2


def test_threads_share_one_and_each_gets_its_own_answers(upstream: Upstream, of: Of) -> None:
    with LLMManager.open(of(upstream())) as manager, httpx2.Client(transport=manager.http_transport()) as client:

        def ask(number: int) -> list[str]:
            body = STREAM | {"messages": [{"role": "user", "content": f"Number-{number}"}]}
            return [client.post(CHAT, json=body).text for _ in range(3)]

        with ThreadPoolExecutor(8) as threads:
            told = list(threads.map(ask, range(8)))
    assert all(f'Number-{number}"' in text for number, texts in enumerate(told) for text in texts)


def test_a_body_in_pieces_is_read(upstream: Upstream, of: Of) -> None:
    def pieces() -> Iterator[bytes]:
        yield from (b'{"model": "gpt-4o-mini", "messages": ', b'[{"role": "user", "content": "Hi"}]}')

    with LLMManager.open(of(upstream())) as manager:
        client = httpx2.Client(transport=manager.http_transport())
        assert client.post(CHAT, content=pieces()).status_code == 200


def test_leaving_a_stream_ends_it_upstream(
    upstream: Upstream, of: Of, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    up = upstream(service=60.0, chunk_size=1)
    with LLMManager.open(of(up)) as manager:
        client = httpx2.Client(transport=manager.http_transport())
        long = [{"role": "user", "content": "Hello there" * 20}]
        with client.stream("POST", CHAT, json=STREAM | {"messages": long}) as answer:
            assert next(answer.iter_raw()).startswith(b"data: ")
        assert soon(lambda: not up.active)


def test_a_time_out_and_a_closed_manager_are_the_clients(upstream: Upstream, of: Of) -> None:
    with LLMManager.open(of(upstream(service=20.0))) as manager:
        client = httpx2.Client(transport=manager.http_transport())
        with pytest.raises(httpx2.ReadTimeout):
            client.post(CHAT, json=ASK, timeout=0.05)
    with pytest.raises(httpx2.ConnectError, match="closed"):
        client.post(CHAT, json=ASK)


def test_its_words_are_those_of_clients_that_block() -> None:
    told = LLMManager.http_transport.__doc__ or ""
    assert "`OpenAI(http_client=httpx2.Client(" in told
    assert "Async" not in told
