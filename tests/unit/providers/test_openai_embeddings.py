"""OpenAI's embeddings: body out, answer in, and what is refused; then the same through `HTTPProvider`."""

# ruff: noqa: ANN401 - JSON
from __future__ import annotations

import base64
import struct
import threading
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse

from llm.core.call import Call
from llm.core.exceptions import LLMException, LLMInvalidRequestError, LLMRateLimitError, LLMServerError
from llm.core.protocols import Embedding, EmbeddingLimited
from llm.core.texts import EmbeddingInput
from llm.core.types import EmbeddingResponse, LLMRequest, LLMResponse, TokenUsage
from llm.providers.anthropic import AnthropicDialect
from llm.providers.base import HTTPProvider
from llm.providers.openai import OpenAIDialect
from llm.providers.openai.embeddings import LIMITS, OpenAIEmbeddings
from llm.providers.openrouter import OpenRouterDialect
from llm.providers.serving.openai_embeddings import read_embeddings, write_embeddings

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.protocols import ProviderSettings
    from llm.utils.redact import Secret

    from .conftest import Server

FORMAT = OpenAIEmbeddings("http://127.0.0.1:9000/v1")
ASKED = LLMRequest((), model="text-embedding-3-small", embed=EmbeddingInput(["one", "two"]))
SENT = (
    (-0.006929283495992422, -0.005336422007530928, 0.024047505110502243),
    (0.002306425478309393, -0.009327292442321777, -0.0028842221945524216),
)


def asked(*texts: str, dimensions: int | None = None, **options: Any) -> LLMRequest:
    return LLMRequest((), model="e", embed=EmbeddingInput(texts, dimensions), **options)


def decode(*embeddings: Any, request: LLMRequest | None = None, **fields: Any) -> LLMResponse:
    data = [{"object": "embedding", "index": place, "embedding": sent} for place, sent in enumerate(embeddings)]
    body = orjson.dumps({"object": "list", "data": data, "model": "e", **fields})
    return FORMAT.decode(body, request or asked(*["x"] * len(embeddings)), provider="p", key="k")


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


# --- the body -----------------------------------------------------------------------------------------------------


def test_the_body_has_the_texts_in_order_and_asks_for_base64() -> None:
    body = orjson.loads(FORMAT.encode(asked("b", "a", dimensions=256)))
    assert body == {"model": "e", "input": ["b", "a"], "encoding_format": "base64", "dimensions": 256}
    assert "dimensions" not in orjson.loads(FORMAT.encode(asked("a")))


def test_extra_goes_over_the_body() -> None:
    body = orjson.loads(FORMAT.encode(asked("a", extra={"encoding_format": "float", "input_type": "query"})))
    assert body == {"model": "e", "input": ["a"], "encoding_format": "float", "input_type": "query"}


def test_a_request_without_model_or_texts_is_refused_by_name() -> None:
    with pytest.raises(LLMInvalidRequestError, match="model is None"):
        FORMAT.encode(LLMRequest((), embed=EmbeddingInput("a")))
    with pytest.raises(LLMInvalidRequestError, match="embed is None"):
        FORMAT.encode(LLMRequest("hello", model="m"))


def test_addresses_and_limits_are_the_vendors() -> None:
    assert OpenAIDialect().embeddings.url == "https://api.openai.com/v1/embeddings"
    assert OpenRouterDialect().embeddings.url == "https://openrouter.ai/api/v1/embeddings"
    assert (LIMITS.texts, LIMITS.tokens) == (2048, 300_000)


# --- the answer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["embeddings", "embeddings_floats"])
def test_recorded_vectors_come_in_the_order_of_their_index(name: str, wire: Callable[[str], bytes]) -> None:
    response = FORMAT.decode(wire(f"openai/{name}.json"), ASKED, provider="p", key="k")
    assert response.embeddings == SENT
    assert (response.model, response.provider, response.key) == ("text-embedding-3-small", "p", "k")
    assert (response.content, response.usage, response.finish_reason) == ("", TokenUsage(8), None)
    assert response.raw == orjson.loads(wire(f"openai/{name}.json"))


def test_servers_that_give_no_index_send_in_order() -> None:
    body = orjson.dumps({"data": [{"embedding": [1, 2.5]}, {"embedding": [3, 4]}]})
    response = FORMAT.decode(body, asked("a", "b"), provider="p", key=None)
    assert str(response.embeddings) == "((1.0, 2.5), (3.0, 4.0))"


def test_large_numbers_are_numbers() -> None:
    assert decode([1e308, 1e308]).embeddings == ((1e308, 1e308),)


@pytest.mark.parametrize(
    "embeddings",
    [
        ([1.0, 2.0], [1.0]),
        ([], []),
        (packed(), packed()),
        (packed(1.0), packed(float("nan"))),
        (packed(float("inf"), float("-inf")), packed(1.0, 2.0)),
        (packed(1.0, 2.0), packed(1.0)),
        ([1.0], [None]),
        ([1.0], ["1.0"]),
        ([1.0], [True]),
        ([1.0], None),
        ([1.0], 5),
        ([1.0], {"a": 1}),
        (packed(1.0), "no base64!"),
        (packed(1.0), "AAAA"),
    ],
)
def test_vectors_that_make_no_sense_are_a_failure(embeddings: tuple[Any, ...]) -> None:
    with pytest.raises(LLMServerError, match="sent what is not 2 vectors of one length"):
        decode(*embeddings)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        5,
        [[1.0]],
        [{"index": 0}, {"index": 1}],
        [{"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}],
        [{"index": 1, "embedding": [1.0]}, {"index": 2, "embedding": [1.0]}],
        [{"index": [0], "embedding": [1.0]}, {"index": 1, "embedding": [1.0]}],
        [{"index": place, "embedding": [1.0]} for place in (0, 1, 1)],
    ],
)
def test_a_wrong_number_of_vectors_is_a_failure(data: Any) -> None:
    body = orjson.dumps({"data": data, "model": "e"})
    with pytest.raises(LLMServerError, match="not 2 vectors"):
        FORMAT.decode(body, asked("a", "b"), provider="p", key=None)


@pytest.mark.parametrize("fields", [{"usage": 5}, {"usage": {"prompt_tokens": "8"}}, {"model": 5}])
def test_facts_of_another_kind_are_a_failure(fields: dict[str, Any]) -> None:
    with pytest.raises(LLMServerError, match="not 1 vectors"):
        decode([1.0], **fields)


def test_vectors_of_another_length_than_asked_for_are_refused_and_not_asked_again() -> None:
    assert len(decode([1.0, 2.0], request=asked("a", dimensions=2)).embeddings[0]) == 2
    with pytest.raises(LLMServerError, match="2 numbers where dimensions=3 was asked for; leave") as told:
        decode([1.0, 2.0], request=asked("a", dimensions=3))
    assert not told.value.retryable


def test_a_failure_under_status_200_is_the_failure() -> None:
    with pytest.raises(LLMRateLimitError):
        decode([1.0], error={"message": "slow down", "type": "requests", "code": "rate_limit_exceeded"})


@given(st.binary(max_size=60))
def test_bytes_of_any_kind_are_an_error_of_ours(body: bytes) -> None:
    with pytest.raises(LLMException):
        FORMAT.decode(body, asked("a"), provider="p", key=None)


single = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.tuples(*[single] * n), min_size=1, max_size=5)))
def test_what_the_serving_side_writes_comes_back_exactly(vectors: list[tuple[float, ...]]) -> None:
    request = asked(*["x"] * len(vectors))
    response = EmbeddingResponse(tuple(vectors), "e", usage=TokenUsage(7))
    for form in ("base64", "float"):
        written = write_embeddings(response, {"encoding_format": form})
        read = FORMAT.decode(orjson.dumps(written), request, provider="p", key=None)
        assert (read.embeddings, read.usage, read.model) == (tuple(vectors), TokenUsage(7), "e")
        assert CreateEmbeddingResponse.model_validate(written | {"data": []}).usage.total_tokens == 7


# --- the serving side ---------------------------------------------------------------------------------------------


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=5),
    st.none() | st.integers(1, 4096),
    st.none() | st.just({"user": "ann", "input_type": "query"}),
)
def test_the_serving_side_reads_what_was_asked(texts: list[str], size: int | None, extra: dict[str, Any]) -> None:
    request = asked(*texts, dimensions=size, extra=extra)
    assert read_embeddings(orjson.loads(FORMAT.encode(request))) == request


def test_one_text_needs_no_list() -> None:
    assert read_embeddings({"model": "e", "input": "one", "encoding_format": None}) == asked("one")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("model", None, "model: expected"),
        ("input", None, "input: expected text, or a list of 1 to 2048"),
        ("input", [], "input: expected text"),
        ("input", ["x"] * 2049, "input: expected text"),
        ("input", ["x", ""], r"input\[1\]: expected text that is not empty"),
        ("input", "", r"input\[0\]: expected text"),
        ("input", [1, 2, 3], r"input\[0\]: expected text"),
        ("dimensions", 0, "dimensions: expected"),
        ("dimensions", "8", "dimensions: expected"),
        ("encoding_format", "int8", "encoding_format: expected float or base64"),
    ],
)
def test_the_serving_side_refuses_a_wrong_field_by_its_name(field: str, value: Any, told: str) -> None:
    with pytest.raises(LLMInvalidRequestError, match=f"^{told}"):
        read_embeddings({"model": "e", "input": ["one"], field: value})


# --- through HTTPProvider -----------------------------------------------------------------------------------------


def provider(settings: ProviderSettings, dialect: Any = OpenAIDialect) -> HTTPProvider:
    made = HTTPProvider.factory(dialect)(settings)
    assert isinstance(made, HTTPProvider)
    return made


async def test_a_provider_sends_and_reads_vectors(
    settings: ProviderSettings, server: Server, key: Secret, wire: Callable[[str], bytes]
) -> None:
    server.says(
        wire("openai/embeddings.json"),
        x_ratelimit_limit_requests="100",
        x_ratelimit_remaining_requests="99",
        x_ratelimit_reset_requests="600ms",
    )
    request = asked("one", "two", call=(call := Call(0.0)))
    response = await provider(settings).embed(request)
    assert (response.embeddings, response.provider, response.key) == (SENT, "section", key.fingerprint)
    assert (server.requests[0].method, server.requests[0].path) == ("POST", "/v1/embeddings")
    assert server.bodies == [{"model": "e", "input": ["one", "two"], "encoding_format": "base64"}]
    assert [report.remaining for report in call.reports] == [99]


class Watched(OpenAIDialect):
    """Notes the threads in which vectors are read."""

    def __init__(self, base_url: str | None = None) -> None:
        super().__init__(base_url)
        self.threads = threads = list[bool]()

        class Embeddings(OpenAIEmbeddings):
            def decode(self, body: bytes, request: LLMRequest, *, provider: str, key: str | None) -> LLMResponse:
                threads.append(threading.current_thread() is threading.main_thread())
                return super().decode(body, request, provider=provider, key=key)

        self.embeddings = Embeddings("http://127.0.0.1")
        self.embeddings.url = f"{base_url}/v1/embeddings"


@pytest.mark.parametrize("large", [False, True])
async def test_many_vectors_are_read_beside_the_loop(
    settings: ProviderSettings, server: Server, wire: Callable[[str], bytes], *, large: bool
) -> None:
    server.says(wire("openai/embeddings.json") + b" " * (300_000 if large else 0))
    dialect = Watched(server.url)
    response = await HTTPProvider(settings, dialect).embed(asked("one", "two"))
    assert response.embeddings == SENT
    assert dialect.threads == [not large]
    server.says(b"{" + b" " * (300_000 if large else 0))
    with pytest.raises(LLMServerError, match="makes no sense"):
        await HTTPProvider(settings, dialect).embed(asked("one", "two"))


async def test_a_failure_says_where_and_holds_no_frames(settings: ProviderSettings, server: Server) -> None:
    server.says(b'{"error": {"message": "no such model"}}', status=404, x_request_id="req_1")
    with pytest.raises(LLMInvalidRequestError, match="no such model") as failure:
        await provider(settings).embed(asked("a"))
    error = failure.value
    assert (error.provider, error.model, error.status, error.request_id) == ("section", "e", 404, "req_1")
    assert error.__cause__ is error.__context__ is None


async def test_a_dialect_without_embeddings_refuses_before_anything_is_sent(
    settings: ProviderSettings, server: Server
) -> None:
    made = provider(settings, AnthropicDialect)
    assert isinstance(made, Embedding)
    assert isinstance(made, EmbeddingLimited)
    assert made.embedding_limits is None
    with pytest.raises(LLMInvalidRequestError, match="no embeddings; use one of type openai"):
        await made.embed(asked("a"))
    assert server.requests == []
    assert provider(settings).embedding_limits == LIMITS
