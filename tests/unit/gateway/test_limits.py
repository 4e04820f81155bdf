"""A caller's own limits: a 429 with the truth about when, and what is left in the dialect's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llm.core.standing import Room
from llm.providers.serving.limits_write import anthropic_headers, duration, openai_headers

if TYPE_CHECKING:
    from collections.abc import Callable

    Serving = Callable[..., Any]

ASK: dict[str, Any] = {"model": "gpt-4o-mini", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello"}]}
KEYS = {name: {"key": f"gw-{name}-0123456789"} for name in ("alice", "bob")}
ALICE, BOB = ({"x-api-key": f"gw-{name}-0123456789"} for name in KEYS)
LIMITS = {"users": {"default": {"requests_per_minute": 2, "tokens_per_minute": 5000, "cost_per_day": 5}}}
ROOMS = [
    Room("requests", 60, 59.9, 0.5),
    Room("total_tokens", 1000, 0, 90.25),
    Room("input_tokens", 10, 1, 2),
    Room("output_tokens", 10, 1, 3),
]


async def test_each_key_has_its_own_limit_and_hears_when_there_is_room(serving: Serving) -> None:
    async with serving(limits=LIMITS, gateway={"api_keys": KEYS}) as it:
        path, spoof = "/v1/chat/completions", ASK | {"user": "bob"}
        answers = [await it.ask("POST", path, spoof, headers=ALICE) for _ in range(3)]
        bob = await it.ask("POST", path, ASK, headers=BOB)
        anthropic = await it.ask(
            "POST", "/v1/messages", ASK | {"metadata": {"user_id": "x"}}, headers=ALICE | {"x-user": "bob"}
        )
    assert [status for status, _, _ in answers] == [200, 200, 429]
    assert bob[0] == 200
    _, body, headers = answers[-1]
    assert body["error"]["code"] == "rate_limit_exceeded"
    assert 50 <= int(headers["retry-after"]) <= 61
    assert 0 <= int(headers["retry-after"]) * 1000 - int(headers["retry-after-ms"]) < 1000
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("2", "0")
    assert headers["x-ratelimit-reset-requests"]
    assert headers["x-ratelimit-limit-tokens"] == "5000"
    assert anthropic[0] == 429
    assert anthropic[2]["anthropic-ratelimit-requests-remaining"] == "0"
    assert anthropic[2]["anthropic-ratelimit-requests-reset"].endswith("Z")


async def test_a_caller_without_limits_hears_of_none(serving: Serving) -> None:
    async with serving(limits={"users": {"alice": {"requests_per_day": 1}}}, gateway={"api_keys": KEYS}) as it:
        assert it.manager.parts.rooms("bob") == []
        assert [room.unit for room in it.manager.parts.rooms("alice")] == ["requests"]
    async with serving() as it:
        assert it.manager.parts.rooms("bob") == []


def test_what_is_left_is_told_in_openais_names() -> None:
    assert openai_headers(ROOMS) == [
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"59"),
        (b"x-ratelimit-reset-requests", b"500ms"),
        (b"x-ratelimit-limit-tokens", b"1000"),
        (b"x-ratelimit-remaining-tokens", b"0"),
        (b"x-ratelimit-reset-tokens", b"1m30.25s"),
    ]


def test_what_is_left_is_told_in_anthropics_names() -> None:
    told = dict(anthropic_headers(ROOMS, 1_763_800_000.9))
    assert len(told) == 12
    assert told[b"anthropic-ratelimit-input-tokens-limit"] == b"10"
    assert told[b"anthropic-ratelimit-tokens-reset"] == b"2025-11-22T08:28:11Z"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.02, "20ms"), (1.5, "1.5s"), (360, "6m0s"), (3600, "1h0m0s"), (0.0, "0ms")]
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text
