from __future__ import annotations

import orjson
import pytest

from llm.core.exceptions import LLMOverloadedError
from llm.core.messages import DocumentPart, Message, MessageRole
from llm.core.types import LLMRequest, StreamChunk
from llm.providers.openrouter import OpenRouterDialect
from llm.utils.sse import EventDecoder

DIALECT = OpenRouterDialect()


def test_it_is_openais_dialect_at_its_own_address() -> None:
    assert DIALECT.url == "https://openrouter.ai/api/v1/chat/completions"
    assert OpenRouterDialect("http://127.0.0.1:9000").url == "http://127.0.0.1:9000/v1/chat/completions"


def test_what_it_takes_otherwise_is_written_its_way() -> None:
    turn = Message(MessageRole.USER, (DocumentPart(url="https://x/y.pdf"),))
    request = LLMRequest(turn, model="meta-llama/llama-3.1-8b-instruct", reasoning_effort="high", max_tokens=5)
    body = orjson.loads(DIALECT.encode(request, stream=False))
    assert body["model"] == "meta-llama/llama-3.1-8b-instruct"
    assert body["reasoning"] == {"effort": "high"}
    assert body["max_tokens"] == 5
    assert body["messages"][0]["content"] == [
        {"type": "file", "file": {"filename": "document", "file_data": "https://x/y.pdf"}}
    ]


def test_comments_keep_a_stream_alive_and_a_late_error_raises() -> None:
    chunk = b'{"id":"gen-1","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}'
    error = (
        b'{"id":"gen-1","error":{"code":503,"message":"no provider"},'
        b'"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}'
    )
    stream = b": OPENROUTER PROCESSING\n\ndata: " + chunk + b"\n\n: OPENROUTER PROCESSING\n\ndata: " + error + b"\n\n"
    first, second = EventDecoder().feed(stream)
    reader = DIALECT.events()
    assert reader.feed(first) == StreamChunk("Hi")
    with pytest.raises(LLMOverloadedError, match="no provider"):
        reader.feed(second)
