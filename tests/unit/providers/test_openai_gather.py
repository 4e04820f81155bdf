from __future__ import annotations

import pytest

from llm.providers.openai.gather import merged


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        ([], {}),
        ([{"transcript": "a"}, {"transcript": "b"}], {"transcript": "ab"}),
        ([{"id": "x"}, {"id": "x"}], {"id": "x"}),
        ([{"data": "AQI="}, {"data": "Aw=="}], {"data": "AQID"}),
        ([{"data": "no base64"}, {"data": "!"}], {"data": "no base64!"}),
        ([{"list": [1]}, {"list": [2]}], {"list": [1, 2]}),
        ([{"at": 1}, {"at": None}, {"at": 2}], {"at": 2}),
        ([{"in": {"text": "a"}}, {"in": {"text": "b", "at": 1}}], {"in": {"text": "ab", "at": 1}}),
        ([{"odd": "a"}, {"odd": 1}], {"odd": 1}),
    ],
)
def test_pieces_become_what_a_whole_answer_would_have(
    pieces: list[dict[str, object]], whole: dict[str, object]
) -> None:
    assert merged(pieces) == whole
