from __future__ import annotations

from llm.core.assembly import assemble
from llm.core.choices import Choice, TokenLogprob
from llm.core.types import LLMRequest, LLMResponse, StreamChunk, TokenUsage
from llm.testing.echo import answer
from llm.testing.script import cut

TOKENS = (TokenLogprob("Hel", -0.5), TokenLogprob("lo", -0.25))


def test_a_stream_of_several_choices_has_their_pieces_in_turns_and_the_usage_last() -> None:
    response = LLMResponse(
        content="abcd", finish_reason="stop", usage=TokenUsage(1, 2), alternatives=(Choice("xy", "length"),)
    )
    assert list(cut(response, 2)) == [
        StreamChunk("ab"),
        StreamChunk("xy", index=1),
        StreamChunk("cd"),
        StreamChunk(finish_reason="length", index=1),
        StreamChunk(finish_reason="stop", usage=TokenUsage(1, 2)),
    ]


def test_a_stream_with_logprobs_has_a_chunk_for_each_token() -> None:
    assert [(c.content, c.logprobs) for c in cut(LLMResponse(content="Hello", logprobs=TOKENS), 2)] == [
        ("Hel", TOKENS[:1]),
        ("lo", TOKENS[1:]),
        ("", ()),
    ]


def test_logprobs_that_do_not_make_up_the_text_come_with_its_first_piece() -> None:
    for content in ("Other", ""):
        response = LLMResponse(content=content, logprobs=TOKENS)
        assert assemble(list(cut(response, 2))) == response


def test_an_echo_of_several_choices_says_the_same_in_each_and_counts_them_all() -> None:
    echo = answer(LLMRequest("abcdefgh", extra={"n": 3}))
    assert [str(choice) for choice in echo.choices] == ["abcdefgh"] * 3
    assert echo.usage == TokenUsage(2, 6)
