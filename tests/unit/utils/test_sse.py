from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.utils.sse import Event, EventDecoder, EventTooLargeError


def decode(*pieces: bytes) -> list[Event]:
    decoder = EventDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [("", b"a"), ("", b"b")]),
        (b"data:a\n\n", [("", b"a")]),
        (b"data:  a\n\n", [("", b" a")]),
        (b"event: ping\ndata: {}\n\n", [("ping", b"{}")]),
        (b"event: a\ndata: 1\ndata: 2\n\n", [("a", b"1\n2")]),
        (b"event: a\nevent: b\ndata:1\n\n", [("b", b"1")]),
        (b"event: \xff\ndata: 1\n\n", [("\ufffd", b"1")]),
        (b"data: 1\ndata: 2\ndata\n\n", [("", b"1\n2\n")]),
        (b": OPENROUTER PROCESSING\n\ndata: a\n\n", [("", b"a")]),
        (b": note\ndata: a\nid: 7\nretry: 10\nunknown: x\n\n", [("", b"a")]),
        (b"event: lonely\n\ndata: a\n\n", [("", b"a")]),
        (b"\n\n\n\ndata: a\n\n\n\n\ndata: b\n\n", [("", b"a"), ("", b"b")]),
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [("", b"a")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [("", b"a"), ("", b"b")]),
        (b"data: a\r\rdata: b\r\r", [("", b"a"), ("", b"b")]),
        (b"data: a\n\ndata: cut\n", [("", b"a")]),
        (b"", []),
    ],
)
def test_events_are_read_as_the_standard_says(stream: bytes, events: list[Event]) -> None:
    assert decode(stream) == events


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1e"])
def test_other_line_separators_do_not_split_an_event(separator: str) -> None:
    text = f"a{separator}b".encode()
    assert decode(b"data: " + text + b"\n\n") == [("", text)]


def test_a_carriage_return_at_the_end_of_the_bytes_ends_its_event_at_once() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"data: a\r\n\r") == [("", b"a")]
    assert decoder.feed(b"\ndata: b\r\n\r\n") == [("", b"b")]


_line = st.sampled_from(
    [b"data: x", b"data:", b"data: \xe2\x80\xa8y", b": c", b"event: e", b"id: 1", b"", b"junk", b"data: 1:2"]
)
_ending = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.tuples(_line, _ending)), st.lists(st.integers(0, 200)))
def test_events_do_not_depend_on_where_the_bytes_are_cut(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    stream = b"".join(line + ending for line, ending in lines)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(places)]
    assert decode(*pieces) == decode(stream)
    assert decode(*(stream[i : i + 1] for i in range(len(stream)))) == decode(stream)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_events_are_whole_and_in_order_wherever_two_cuts_fall(ending: bytes) -> None:
    stream = ending.join([b"data: one", b"", b"event: e", b"data: two", b"", b"data: three", b"", b""])
    for second in range(len(stream) + 1):
        for first in range(second + 1):
            events = decode(stream[:first], stream[first:second], stream[second:])
            assert events == [("", b"one"), ("e", b"two"), ("", b"three")]


@pytest.mark.parametrize(
    "pieces", [[b"data: 0123456789"], [b"data: ", b"0123", b"456789"], [b"data: 0\n\ndata: 0123456789\n\n"]]
)
def test_an_event_over_the_cap_is_refused(pieces: list[bytes]) -> None:
    decoder = EventDecoder(max_bytes=12)
    with pytest.raises(EventTooLargeError, match="12 bytes"):
        list(map(decoder.feed, pieces))


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_a_long_event_of_many_lines_in_small_pieces_is_not_copied_with_each_of_them() -> None:
    decoder = EventDecoder()
    for _ in range(100_000):  # copied each time it would be 45 GB
        assert decoder.feed(b": no end\n") == []
    assert decoder.feed(b"data: x\n") == []
    assert decoder.feed(b"\n") == [("", b"x")]


def test_events_under_the_cap_pass_however_many_come_at_once() -> None:
    assert EventDecoder(max_bytes=12).feed(b"data: a\n\n" * 5) == [("", b"a")] * 5
