"""A row's body as a request, and what became of it as a line of OpenAI's files."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.batch.dialect import answer_line, error_line, may_pass, request_of
from llm.batch.finished import record_of
from llm.batch.values import CHAT, EMBEDDINGS, RESPONSES, BadRow, Row
from llm.core.exceptions import (
    LLMAuthenticationError,
    LLMCircuitOpenError,
    LLMConnectionError,
    LLMContentFilterError,
    LLMContextLengthError,
    LLMException,
    LLMInvalidRequestError,
    LLMOverloadedError,
    LLMRateLimitError,
    LLMServerError,
    LLMStreamInterruptedError,
    LLMTimeoutError,
    LLMValidationError,
)
from llm.core.messages import Message, MessageRole, ToolCall
from llm.core.texts import EmbeddingInput
from llm.core.types import EmbeddingResponse, LLMRequest, LLMResponse, TokenUsage

if TYPE_CHECKING:
    from collections.abc import Mapping

_ASK: Mapping[str, Any] = {"messages": [{"role": "user", "content": "Why?"}]}


def _row(url: str = CHAT, body: Mapping[str, Any] = _ASK, custom_id: str = "a") -> Row:
    return Row(3, custom_id, url, body, 5)


def _read(line: bytes) -> Any:  # noqa: ANN401 - JSON
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    return orjson.loads(line)


def test_a_body_of_each_kind_is_read_in_its_dialect() -> None:
    chat = request_of(_row(body={**_ASK, "model": "m", "max_completion_tokens": 5, "n": 2}))
    assert chat == LLMRequest("Why?", model="m", max_tokens=5, extra={"n": 2})
    vectors = request_of(_row(EMBEDDINGS, {"input": ["a", "b"], "model": "e", "dimensions": 8}))
    assert vectors == LLMRequest((), model="e", embed=EmbeddingInput(("a", "b"), 8))
    response = request_of(_row(RESPONSES, {"input": "Why?", "instructions": "Be brief.", "max_output_tokens": 9}))
    said = (Message(MessageRole.SYSTEM, "Be brief."), Message(MessageRole.USER, "Why?"))
    assert response == LLMRequest(said, max_tokens=9)


@pytest.mark.parametrize("url", [CHAT, EMBEDDINGS, RESPONSES])
@pytest.mark.parametrize(("own", "default", "asked"), [("own", "d", "own"), (None, "d", "d"), (None, None, None)])
def test_the_model_is_the_bodys_else_the_default_else_the_providers(
    url: str, own: str | None, default: str | None, asked: str | None
) -> None:
    body = {**(_ASK if url == CHAT else {"input": "x"}), "model": own}
    assert request_of(_row(url, body), default).model == asked


@pytest.mark.parametrize("url", [CHAT, EMBEDDINGS, RESPONSES])
def test_a_row_that_asks_for_a_stream_is_refused(url: str) -> None:
    body = {**_ASK, "input": "x", "stream": True}
    with pytest.raises(LLMInvalidRequestError, match="stream: a row of a batch is answered whole; leave it out"):
        request_of(_row(url, body))
    assert not request_of(_row(body={**_ASK, "stream": False})).stream


@pytest.mark.parametrize(
    ("url", "body", "field"),
    [
        (CHAT, {}, "messages"),
        (CHAT, {"messages": [{"role": "nobody"}]}, r"messages\[0\]\.role"),
        (CHAT, {**_ASK, "temperature": "hot"}, "temperature"),
        (CHAT, {**_ASK, "model": 5}, "model"),
        (EMBEDDINGS, {"input": []}, "input"),
        (EMBEDDINGS, {"input": "x", "model": ""}, "model"),
        (RESPONSES, {}, "input"),
    ],
)
def test_a_wrong_field_is_named(url: str, body: Mapping[str, Any], field: str) -> None:
    with pytest.raises(LLMInvalidRequestError, match=field):
        request_of(_row(url, body))


_ANSWER = LLMResponse(id="chatcmpl-1", content="Because.", model="m", usage=TokenUsage(3, 2), finish_reason="stop")


def test_an_answer_is_a_line_as_openai_writes_it() -> None:
    line = answer_line(_row(), _ANSWER, created=7)
    told = _read(line)
    assert list(told) == ["id", "custom_id", "response", "error"]
    assert told["custom_id"] == "a"
    assert told["error"] is None
    assert told["id"].startswith("batch_req_")
    response = told["response"]
    assert list(response) == ["status_code", "request_id", "body"]
    assert (response["status_code"], response["request_id"]) == (200, "chatcmpl-1")
    body = response["body"]
    assert (body["object"], body["created"], body["model"]) == ("chat.completion", 7, "m")
    assert body["choices"][0]["message"]["content"] == "Because."
    assert body["usage"]["total_tokens"] == 5


def test_an_answer_has_the_form_that_its_row_asked_for() -> None:
    row = _row(RESPONSES, {"input": "Why?", "instructions": "Be brief."})
    body = _read(answer_line(row, _ANSWER, created=7))["response"]["body"]
    assert (body["object"], body["instructions"]) == ("response", "Be brief.")
    assert body["output"][0]["content"][0]["text"] == "Because."
    vectors = EmbeddingResponse(((0.5, 1.0),), "e", usage=TokenUsage(4))
    line = _read(answer_line(_row(EMBEDDINGS, {"input": "x"}), vectors, created=7))
    assert line["response"]["body"]["data"][0]["embedding"] == [0.5, 1.0]
    assert line["response"]["request_id"] == line["id"]


def test_a_row_of_embeddings_may_ask_for_base64() -> None:
    row = _row(EMBEDDINGS, {"input": "x", "encoding_format": "base64"})
    body = _read(answer_line(row, LLMResponse(embeddings=((0.0,),)), created=7))["response"]["body"]
    assert body["data"][0]["embedding"] == "AAAAAA=="


def test_the_same_row_has_the_same_id_in_every_run_and_others_have_others() -> None:
    first = _read(answer_line(_row(), _ANSWER, created=7))["id"]
    assert first == _read(error_line(_row(), LLMServerError("broken")))["id"]
    assert first == "batch_req_27c35e6e9373877f29e562464e46497e"
    assert first != _read(answer_line(_row(custom_id="b"), _ANSWER, created=7))["id"]


def test_an_answer_is_not_lost_for_half_a_character_or_a_number_beyond_64_bits() -> None:
    odd = LLMResponse(id="1", content="\ud800", tool_calls=(ToolCall("c", "f", "{}"),))
    line = answer_line(_row(), odd, created=7)
    assert json.loads(line)["response"]["body"]["choices"][0]["message"]["content"] == "\ud800"
    row = _row(RESPONSES, {"input": "x", "metadata": {"n": 2**80}})
    assert _read(answer_line(row, odd, created=7).replace(b"\\ud800", b""))["response"]["body"]["metadata"]


def _sent(error: LLMException) -> LLMException:
    error.attempts = 2
    return error


def test_what_a_provider_refused_has_its_status_and_its_error_in_the_response() -> None:
    error = _sent(LLMContextLengthError("the prompt is too long; shorten it", status=400, request_id="req_9"))
    told = _read(error_line(_row(), error))
    assert told["error"] is None
    assert told["response"]["status_code"] == 400
    assert told["response"]["request_id"] == "req_9"
    assert told["response"]["body"]["error"] == {
        "message": "the prompt is too long; shorten it (status 400, request req_9, attempts 2)",
        "type": "invalid_request_error",
        "param": None,
        "code": "context_length_exceeded",
    }


def test_a_failure_inside_an_answer_never_has_the_status_of_one() -> None:
    told = _read(error_line(_row(), _sent(LLMServerError("an error inside", status=200))))
    assert told["response"]["status_code"] == 502
    assert told["response"]["request_id"] == told["id"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LLMInvalidRequestError("messages: expected one message or more", status=400), "invalid_request_error"),
        (_sent(LLMTimeoutError("no answer", phase="total")), "timeout"),
        (_sent(LLMConnectionError("reset")), "connection_error"),
        (_sent(LLMStreamInterruptedError("broken", partial="half an answer")), "stream_interrupted"),
        (_sent(LLMValidationError("no fit", partial="the answer")), "invalid_answer"),
        (LLMRateLimitError("over"), "rate_limit_exceeded"),
        (LLMCircuitOpenError("open"), "overloaded"),
        (LLMException("?"), "server_error"),
    ],
)
def test_what_no_provider_answered_has_an_error_and_no_response(error: LLMException, code: str) -> None:
    line = error_line(_row(), error)
    told = _read(line)
    assert told["response"] is None
    assert told["error"] == {"code": code, "message": str(error)}
    assert b"the answer" not in line
    assert b"half" not in line


def test_a_bad_row_is_told_with_its_line_and_its_name_where_it_has_one() -> None:
    bad = BadRow(3, 7, None, "invalid_json", "line 7 is no JSON; write one JSON object on each line")
    told = _read(error_line(bad))
    assert told["custom_id"] is None
    assert told["response"] is None
    assert told["error"] == {"code": "invalid_json", "message": bad.message, "line": 7}
    other = _read(error_line(BadRow(4, 8, None, "invalid_json", "")))
    assert other["id"] != told["id"]
    named = BadRow(3, 7, "a", "duplicate_custom_id", "twice")
    assert _read(error_line(named))["id"] == _read(error_line(_row(), LLMException("?")))["id"]


_PASSING: list[LLMException] = [
    _sent(LLMServerError("x", status=500)),
    _sent(LLMServerError("x", status=200)),
    LLMServerError("x"),
    _sent(LLMServerError("x", status=408)),
    _sent(LLMOverloadedError("x", status=529)),
    _sent(LLMRateLimitError("x", status=429)),
    LLMRateLimitError("x"),
    LLMTimeoutError("x", phase="first_token"),
    LLMConnectionError("x"),
    LLMStreamInterruptedError("x"),
    LLMCircuitOpenError("x"),
    LLMInvalidRequestError("not sent, for a field is wrong or no key has the model", status=400),
    LLMAuthenticationError("not sent, for no key may use the model", status=403, model_only=True),
    _sent(LLMAuthenticationError("this key may not use the model", status=403, model_only=True)),
]
_STAYING: list[LLMException] = [
    _sent(LLMInvalidRequestError("x", status=422)),
    _sent(LLMInvalidRequestError("x", status=403)),
    _sent(LLMInvalidRequestError("x", status=404)),
    _sent(LLMContextLengthError("x", status=400)),
    _sent(LLMContentFilterError("x", status=400)),
    _sent(LLMValidationError("x")),
]


def told(line: bytes) -> tuple[str | int, bool] | None:
    """Read a line as a rerun does: which row it is of, and whether its failure may pass."""
    found = record_of(line)
    return None if found is None else (found[0], may_pass(found[1]))


@pytest.mark.parametrize(("errors", "passes"), [(_PASSING, True), (_STAYING, False)], ids=["passing", "staying"])
def test_a_line_tells_whether_its_failure_may_pass(errors: list[LLMException], *, passes: bool) -> None:
    for error in errors:
        line = error_line(_row(), error)
        assert may_pass(_read(line)) is passes, error
        assert told(line) == ("a", passes)


def test_a_bad_row_and_an_answer_are_no_failures_that_pass() -> None:
    assert told(error_line(BadRow(0, 7, None, "invalid_json", "x"))) == (7, False)
    assert told(answer_line(_row(), _ANSWER, created=7)) == ("a", False)


def test_the_lines_of_other_tools_are_told() -> None:
    # OpenAI's own: https://platform.openai.com/docs/guides/batch#5-retrieve-the-results
    expired = (
        b'{"id": "batch_req_1", "custom_id": "b", "response": null, "error": {"code": "batch_expired", "message": ""}}'
    )
    assert told(expired) == ("b", True)
    refused = b'{"custom_id": "c", "response": {"status_code": 401, "body": {"error": {}}}, "error": {}}\r\n'
    assert told(refused) == ("c", True)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"custom_id": 5, "error": "x", "response": []}',
        b'{"error": {"line": true}}',
    ],
)
def test_of_a_line_that_is_none_nothing_is_told(line: bytes) -> None:
    assert told(line) is None


_ODD: list[Any] = [None, True, 0, 2**60, -1.5, "", "a", "auto", [], {}, [[]], [{}], [None], ["a"], {"a": []}, {"": 1}]
_NAMES = (
    "model", "messages", "temperature", "stop", "tools", "tool_choice", "response_format", "stream_options", "extra",
    "input", "instructions", "text", "reasoning", "encoding_format", "dimensions", "max_tokens", "seed", "n", "user",
)  # fmt: skip
_FIELDS = (
    "role", "content", "name", "type", "text", "function", "custom", "tool_calls", "call_id", "image_url", "id", "file",
)  # fmt: skip
_WORDS = ("user", "assistant", "message", "text", "function", "function_call", "reasoning", "image_url", "json_schema")
_VALUES = st.sampled_from([*_ODD, *_WORDS])
_PIECES = st.dictionaries(
    st.sampled_from(_FIELDS), _VALUES | st.dictionaries(st.sampled_from(_FIELDS), _VALUES, max_size=3), max_size=5
)
_BODIES = st.dictionaries(
    st.sampled_from(_NAMES), _VALUES | _PIECES | st.lists(_PIECES, max_size=2) | st.just(_ASK["messages"]), max_size=5
)


@settings(deadline=None)
@given(st.sampled_from([CHAT, EMBEDDINGS, RESPONSES]), _BODIES)
def test_any_body_is_a_request_or_is_refused_by_name(url: str, body: dict[str, Any]) -> None:
    with suppress(LLMInvalidRequestError):
        assert isinstance(request_of(_row(url, body), "d"), LLMRequest)


_INNER = st.dictionaries(st.sampled_from(("status_code", "body", "code", "line")), _VALUES, max_size=4)
_LINES = st.dictionaries(st.sampled_from(("custom_id", "response", "error")), _VALUES | _INNER, max_size=3)


@settings(deadline=None)
@given(st.binary(max_size=60) | _LINES.map(orjson.dumps))
def test_reading_back_takes_any_line(line: bytes) -> None:
    found = told(line)
    assert found is None or isinstance(found[1], bool)


@settings(deadline=None)
@given(st.text(min_size=1), st.text(), st.text())
def test_whatever_is_written_is_one_line_that_is_told(custom_id: str, content: str, code: str) -> None:
    row = _row(custom_id=custom_id)
    answer = answer_line(row, LLMResponse(id=code, content=content), created=1)
    bad = error_line(BadRow(0, 9, custom_id, code, content))
    assert [line.count(b"\n") for line in (answer, bad)] == [1, 1]
    assert [told(line) for line in (answer, bad)] == [(custom_id, False), (9, False)]
