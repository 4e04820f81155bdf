from __future__ import annotations

import pytest

from llm.core.types import TokenUsage
from llm.progress import Progress
from llm.progress.words import busiest, clean, dollars, duration, errors, facts, line, percent, rows, speed

HALFWAY = Progress(
    total=10_000,
    answered=1102,
    failed=2,
    skipped=100,
    in_flight=64,
    elapsed=38.4,
    rows_per_second=31.2,
    overall_rows_per_second=28.75,
    input_tokens_per_second=4120.0,
    output_tokens_per_second=910.0,
    usage=TokenUsage(156_400, 34_600),
    cache_hits=199,
    cost=0.41,
    expected_cost=3.4,
    errors={"LLMTimeoutError": 1, "LLMAPIError": 1},
    seconds_left=240.0,
)


@pytest.mark.parametrize(
    ("amount", "said"),
    [(0.0, "$0.00"), (0.0041, "$0.0041"), (0.00999, "$0.0100"), (0.000_041_4, "$0.000041"), (0.01, "$0.01"),
     (3.4, "$3.40"), (1204.5, "$1,204.50")],
)  # fmt: skip
def test_dollars(amount: float, said: str) -> None:
    assert dollars(amount) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (41.4, "41 s"), (119, "119 s"), (120, "2 min"), (240, "4 min"), (3569, "59 min"), (3570, "1 h"),
     (7500, "2 h 5 min"), (7199, "2 h"), (172_800, "2 d"), (273_600, "3 d 4 h"), (172_799, "48 h")],
)  # fmt: skip
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("rate", "said"), [(0.0, "0.0 rows/s"), (0.5, "30.0 rows/min"), (31.24, "31.2 rows/s"), (1204.0, "1,204.0 rows/s")]
)
def test_rates(rate: float, said: str) -> None:
    assert speed(rate) == said


@pytest.mark.parametrize(("share", "said"), [(0.0, "0 %"), (0.29, "29 %"), (0.9999, "99 %"), (1.0, "100 %")])
def test_what_is_not_done_is_not_a_hundred_percent(share: float, said: str) -> None:
    assert percent(share) == said


def test_rows_with_and_without_a_total() -> None:
    assert rows(HALFWAY) == "1,204 of 10,000 rows (12 %)"
    assert rows(Progress(answered=1204)) == "1,204 rows"


def test_a_line_says_it_all() -> None:
    assert line(HALFWAY) == (
        "1,204 of 10,000 rows (12 %), 31.2 rows/s, 4,120 tokens/s in, 910 out, 18 % cached, $0.41 of about $3.40, "
        "2 failed, 4 min left"
    )


def test_the_last_line_tells_the_whole_run() -> None:
    assert line(HALFWAY, ended=True) == (
        "1,204 of 10,000 rows (12 %) in 38 s, 28.8 rows/s, 156,400 tokens in, 34,600 out, 18 % cached, $0.41, "
        "2 failed (LLMAPIError 1, LLMTimeoutError 1)"
    )


def test_a_line_leaves_out_what_nobody_knows_yet() -> None:
    assert line(Progress(waiting="a\nb")) == "0 rows, 0.0 rows/s, waiting: a b"


def test_the_cost_of_rows_without_a_price_is_at_least_that_of_the_others() -> None:
    told = Progress(total=10, answered=2, cost=0.2, unpriced=1)
    assert line(told).endswith("at least $0.20")
    assert "$" not in line(Progress(total=10, answered=2, unpriced=2))
    assert line(Progress(answered=2, cost=0.2)).endswith(", $0.20")


def test_facts_are_a_line_each() -> None:
    assert [tuple(each) for each in facts(HALFWAY)] == [
        ("rate", "31.2 rows/s, 4 min left, 38 s so far, 64 running, 100 done before"),
        ("tokens", "4,120/s in, 910/s out; 156,400 in, 34,600 out"),
        ("cache", "18 % (199 rows)"),
        ("cost", "$0.41 of about $3.40"),
        ("failed", "2: LLMAPIError 1, LLMTimeoutError 1"),
    ]
    assert facts(Progress(waiting="no key"))[-1] == ("waiting", "no key")


def test_the_last_facts_tell_the_whole_run() -> None:
    assert dict(facts(HALFWAY, ended=True)) == {
        "rate": "28.8 rows/s in 38 s, 100 done before",
        "tokens": "156,400 in, 34,600 out",
        "cache": "18 % (199 rows)",
        "cost": "$0.41",
        "failed": "2: LLMAPIError 1, LLMTimeoutError 1",
    }


def test_the_most_frequent_failures_are_named() -> None:
    kinds = {"A": 1, "B": 2000, "C": 3, "D": 4, "E": 5, "F\x1b": 6}
    assert errors(kinds) == "B 2,000, F  6, E 5, D 4, and 2 more kinds"


def test_the_fullest_keys_are_shown_in_their_places() -> None:
    keys = {"a": 0.1, "b": 0.9, "c\n": 7.0, "d": 0.2, "e": 0.0}
    assert busiest(keys, 2) == ([("b", 0.9), ("c ", 1.0)], 3)
    assert busiest(keys, 5) == ([("a", 0.1), ("b", 0.9), ("c ", 1.0), ("d", 0.2), ("e", 0.0)], 0)


def test_never_is_only_one_key_left_out() -> None:
    keys, more = busiest({"a": 0.1, "b": 0.9, "c": 0.5}, 2)
    assert (len(keys), more) == (1, 2)


def test_no_name_controls_a_terminal() -> None:
    assert clean("a\x1b]0;title\x07b\r\n\x9b2J\u202e東京 [b]") == "a ]0;title b   2J 東京 [b]"
