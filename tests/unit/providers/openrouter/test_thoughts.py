from __future__ import annotations

from typing import Any

import pytest

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import ThinkingPart
from llm.providers.openrouter.thoughts import add, details_of, seal, text_in, thoughts_as_fields

TEXT = {"type": "reasoning.text", "text": "I see.", "signature": "sig", "format": "anthropic-claude-v1", "index": 0}
SUMMARY = {"type": "reasoning.summary", "summary": "Short.", "id": "rs_1", "format": "openai-responses-v1", "index": 0}
HIDDEN = {"type": "reasoning.encrypted", "data": "opaque", "id": "rs_1", "format": "openai-responses-v1", "index": 1}


@pytest.mark.parametrize("details", [[TEXT], [SUMMARY, HIDDEN], [HIDDEN]])
def test_what_came_goes_back_as_it_came(details: list[dict[str, Any]]) -> None:
    part = ThinkingPart(text_in(details), details=seal(details))
    assert thoughts_as_fields([part]) == {"reasoning_details": details}


def test_people_read_texts_and_summaries() -> None:
    assert text_in([TEXT, SUMMARY, HIDDEN]) == "I see.Short."


def test_pieces_of_one_detail_join_and_another_begins_by_its_type_or_place() -> None:
    details: list[dict[str, Any]] = []
    for piece in (
        {"type": "reasoning.text", "text": "I ", "index": 0, "id": None},
        {"type": "reasoning.text", "text": "see.", "index": 0, "format": "anthropic-claude-v1"},
        {"type": "reasoning.text", "signature": "sig", "index": 0, "format": None},
        {"type": "reasoning.text", "text": "So.", "index": 1},
        {"type": "reasoning.encrypted", "data": "opa", "index": 1},
        {"type": "reasoning.encrypted", "data": "que", "index": 1},
    ):
        add(details, piece)
    assert details == [
        {**TEXT, "id": None},
        {"type": "reasoning.text", "text": "So.", "index": 1},
        {"type": "reasoning.encrypted", "data": "opaque", "index": 1},
    ]


def test_details_of_other_names_stay_apart_in_one_place() -> None:
    details: list[dict[str, Any]] = []
    pieces: list[dict[str, Any]] = [
        {"type": "reasoning.encrypted", "data": "a", "id": "call_1", "index": 0},
        {"type": "reasoning.encrypted", "data": "b", "id": "call_2", "index": 0},
        {"type": "reasoning.encrypted", "data": "c", "id": "call_2", "index": 0},
    ]
    for piece in pieces:
        add(details, piece)
    assert details == [pieces[0], {**pieces[1], "data": "bc"}]


def test_a_piece_that_comes_is_not_changed_by_those_after_it() -> None:
    details: list[dict[str, Any]] = []
    first = {"type": "reasoning.text", "text": "a", "index": 0}
    add(details, first)
    add(details, {"type": "reasoning.text", "text": "b", "index": 0})
    assert (first["text"], details[0]["text"]) == ("a", "ab")


def test_thoughts_of_other_vendors_go_back_in_the_form_that_fits() -> None:
    parts = [ThinkingPart("signed", "sig"), ThinkingPart("", redacted="blob"), ThinkingPart("plain"), ThinkingPart("")]
    assert thoughts_as_fields(parts) == {
        "reasoning": "plain",
        "reasoning_details": [
            {"type": "reasoning.text", "text": "signed", "signature": "sig", "format": "anthropic-claude-v1"},
            {"type": "reasoning.encrypted", "data": "blob", "format": "anthropic-claude-v1"},
        ],
    }


@pytest.mark.parametrize("given", ["[1]", "{}", "no json", "1"])
def test_a_record_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(LLMInvalidRequestError, match="details of a ThinkingPart"):
        thoughts_as_fields([ThinkingPart("x", details=given)])


def test_no_details_are_none() -> None:
    assert details_of(None) == []
    assert thoughts_as_fields([]) == {}
