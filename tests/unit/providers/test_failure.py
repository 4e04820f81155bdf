from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.core.exceptions import LLMAuthenticationError
from llm.providers.errors import error_for
from llm.providers.failure import Failure, read_failure, retry_after

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(NOW - 30, usegmt=True)}, 0.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e12"}, None),
        ({"retry-after-ms": "1e15"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "Fri, 99 Foo 9999 99:99:99 GMT"}, None),
        ({"retry-after": formatdate(NOW + 1e9, usegmt=True)}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@given(st.text())
def test_no_retry_after_header_breaks_the_reading(value: str) -> None:
    seconds = retry_after({"retry-after": value}, NOW)
    assert seconds is None or seconds >= 0


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["error", "message", "code", "type", "x"]), inner),
    max_leaves=8,
)


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@given(st.dictionaries(st.sampled_from(["error", "message", "detail", "code"]), _json))
def test_no_error_body_breaks_the_reading(body: dict[str, object]) -> None:
    assert isinstance(read_failure(body), Failure)


@given(st.binary())
def test_bytes_that_are_no_json_say_nothing(body: bytes) -> None:
    assert isinstance(read_failure(body), Failure)


def test_a_failure_in_a_list_as_gemini_tells_it_keeps_words_code_and_reason() -> None:
    said = (
        b'[{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.", '
        b'"status": "INVALID_ARGUMENT", "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", '
        b'"reason": "API_KEY_INVALID", "domain": "googleapis.com"}]}}]'
    )
    failure = read_failure(said)
    assert (failure.message.split(".")[0], failure.codes, failure.status) == (
        "API key not valid", ("API_KEY_INVALID",), 400,
    )  # fmt: skip
    assert isinstance(error_for(400, failure), LLMAuthenticationError)
    assert read_failure(b"[]") == read_failure(b"[5]") == read_failure(b'[{"error": 5}]') == Failure()
