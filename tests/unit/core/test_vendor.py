from __future__ import annotations

from typing import Any

import pytest

from llm.cache import compute_request_hash
from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import DocumentPart, ImagePart, Message, MessageRole, Part, TextPart, read_message
from llm.core.tokens import estimate_tokens, part_text, part_tokens
from llm.core.types import LLMRequest
from llm.core.vendor import CachePoint, VendorPart

TEXT = TextPart("eight ch")
BLOCK = {"type": "search_result", "title": "x"}


def test_a_mark_on_a_mappings_block_is_read_as_the_part_after_it() -> None:
    content: list[Any] = [
        {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
        {"type": "image_url", "image_url": "https://x", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        {"type": "text", "text": "b", "cache_control": None},
        "c",
        CachePoint("5m"),
        VendorPart(BLOCK),
    ]
    assert read_message({"role": "user", "content": content}).content == (
        TextPart("a"),
        CachePoint(),
        ImagePart(url="https://x"),
        CachePoint("1h"),
        TextPart("b"),
        TextPart("c"),
        CachePoint("5m"),
        VendorPart(BLOCK),
    )


@pytest.mark.parametrize("mark", [5, {}, {"type": "lasting"}, {"type": "ephemeral", "scope": "all"}])
def test_a_mark_that_is_none_is_refused_by_its_field(mark: object) -> None:
    content = [{"type": "text", "text": "a", "cache_control": mark}]
    with pytest.raises(LLMInvalidRequestError, match=r"messages\[2\].*cache_control"):
        read_message({"role": "user", "content": content}, at=2)


@pytest.mark.parametrize("ttl", ["24h", 5, ["1h"], ""])
def test_a_time_that_no_provider_keeps_is_refused(ttl: Any) -> None:  # noqa: ANN401 - of the wrong kind
    with pytest.raises(LLMInvalidRequestError, match=r"CachePoint\.ttl.*'1h'"):
        CachePoint(ttl)


def test_a_block_that_is_no_mapping_is_refused() -> None:
    wrong: Any = "text"
    with pytest.raises(LLMInvalidRequestError, match=r"VendorPart\.block is str"):
        VendorPart(wrong)


def test_a_mark_is_no_text_takes_no_tokens_and_decides_nothing_about_the_answer() -> None:
    bare, marked = (
        LLMRequest([Message(MessageRole.USER, (TEXT,))]),
        LLMRequest([Message(MessageRole.USER, (TEXT, CachePoint("1h")))]),
    )
    assert marked.messages[0].text == "eight ch"
    assert (part_text(CachePoint()), part_tokens(CachePoint())) == ("", 0)
    assert estimate_tokens(marked) == estimate_tokens(bare)
    assert compute_request_hash(marked) == compute_request_hash(bare)


def test_a_block_in_the_vendors_form_counts_as_its_characters_and_decides_the_answer() -> None:
    asked = [LLMRequest([Message(MessageRole.USER, (TEXT, VendorPart({"type": "x", "n": n})))]) for n in range(2)]
    assert part_tokens(VendorPart(BLOCK)) == 0
    assert estimate_tokens(asked[0]) > estimate_tokens(LLMRequest([Message(MessageRole.USER, (TEXT,))]))
    assert compute_request_hash(asked[0]) != compute_request_hash(asked[1])


def test_every_new_field_of_a_part_decides_the_answer_and_its_default_nothing() -> None:
    data: dict[str, Any] = {"data": b"x", "media_type": "text/plain"}
    parts: list[Part] = [
        DocumentPart(**data),
        DocumentPart(**data, context="c"),
        DocumentPart(**data, citations=True),
        DocumentPart(**data, citations=False),
        DocumentPart(file_id="f"),
        ImagePart(file_id="f"),
        ImagePart(file_id="g"),
    ]
    assert len({compute_request_hash(LLMRequest([Message(MessageRole.USER, (part,))])) for part in parts}) == len(parts)
    failed, done = (Message(MessageRole.TOOL, "x", tool_call_id="1", is_error=is_error) for is_error in (True, False))
    assert compute_request_hash(LLMRequest([failed])) != compute_request_hash(LLMRequest([done]))


def test_a_failure_of_a_tool_is_read_from_a_mapping() -> None:
    assert read_message({"role": "tool", "content": "x", "tool_call_id": "1", "is_error": True}).is_error
    with pytest.raises(LLMInvalidRequestError, match="is_error"):
        read_message({"role": "tool", "content": "x", "is_error": "yes"})


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, "exactly one of url, data and file_id"),
        ({"url": "https://x", "file_id": "f"}, "exactly one of url, data and file_id"),
        ({"file_id": 5}, "file_id"),
        ({"url": 5}, "url"),
        ({"data": "text", "media_type": "x"}, "data"),
        ({"data": b"x"}, "media_type"),
    ],
)
def test_a_part_needs_one_source_of_the_right_kind(fields: dict[str, Any], names: str) -> None:
    for kind in (ImagePart, DocumentPart):
        with pytest.raises(LLMInvalidRequestError, match=names):
            kind(**fields)
