from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm.providers.local.text import Detokenizer, StopFilter


def decode_bytes(tokens: list[int]) -> str:
    """A tokenizer whose tokens are bytes."""
    return bytes(tokens).decode("utf-8", errors="replace")


def pieces(text: str) -> list[str]:
    detokenizer = Detokenizer(decode_bytes, b"before")
    return [*map(detokenizer.push, text.encode()), detokenizer.flush()]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
def test_joined_pieces_are_the_text_and_no_piece_holds_part_of_a_character(text: str) -> None:
    got = pieces(text)
    assert "".join(got) == text
    assert all("\ufffd" not in piece for piece in got)


def test_a_character_without_its_last_byte_is_held_and_told_at_the_end() -> None:
    detokenizer = Detokenizer(decode_bytes)
    assert [detokenizer.push(byte) for byte in "🙂".encode()[:-1]] == ["", "", ""]
    assert detokenizer.flush() == "\ufffd"


def test_the_blank_before_a_first_word_is_kept() -> None:
    def decode_words(tokens: list[int]) -> str:  # as SentencePiece does: a blank before each word but the first
        return " ".join(f"w{token}" for token in tokens)

    detokenizer = Detokenizer(decode_words, [1])
    assert [detokenizer.push(token) for token in (2, 3)] == [" w2", " w3"]


def filtered(text: list[str], stops: list[str]) -> tuple[str, bool]:
    stop = StopFilter(stops)
    out = ""
    for piece in text:
        out += stop.push(piece)
        if stop.stopped:
            return out, True
    return out + stop.flush(), False


def test_a_stop_string_across_pieces_ends_the_text_before_it() -> None:
    assert filtered(["one E", "N", "", "D two"], ["END"]) == ("one ", True)


def test_what_only_looked_like_a_stop_string_is_given_out() -> None:
    assert filtered(["one E", "N", "Dless"], ["ENDING"]) == ("one ENDless", False)
    assert filtered(["aaa", "b"], ["aab"]) == ("a", True)


def test_nothing_is_held_that_cannot_become_a_stop_string() -> None:
    stop = StopFilter(["END"])
    assert stop.push("one E") == "one "
    assert stop.push("x") == "Ex"


@given(st.lists(st.text("ab", max_size=3)), st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=3))
def test_the_text_ends_before_its_first_whole_stop_string_however_it_is_cut(texts: list[str], stops: list[str]) -> None:
    whole = "".join(texts)
    got, stopped = filtered(texts, stops)
    assert whole.startswith(got)
    assert stopped == any(stop in whole for stop in stops)
    assert not any(stop in got for stop in stops)
    assert stopped or got == whole
