"""What headers say of limits, in all their forms; and that it reaches the call's record."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.core.call import Call, LimitReport
from llm.core.exceptions import LLMRateLimitError
from llm.core.types import LLMRequest
from llm.providers.anthropic import AnthropicDialect
from llm.providers.base import HTTPProvider
from llm.providers.limit_headers import Told, anthropic_reports, openai_reports
from llm.providers.openai import OpenAIDialect

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.protocols import ProviderSettings

    from .conftest import Server

NOW = 1_700_000_000.0
TOLD = Told(NOW, 0.0)


def openai(limit: str = "500", remaining: str = "499", reset: str | None = None) -> dict[str, str]:
    headers = {"x-ratelimit-limit-requests": limit, "x-ratelimit-remaining-requests": remaining}
    return headers if reset is None else headers | {"x-ratelimit-reset-requests": reset}


def anthropic(name: str, limit: int, remaining: int, reset: float) -> dict[str, str]:
    moment = datetime.fromtimestamp(reset, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    start = f"anthropic-ratelimit-{name}"
    return {f"{start}-limit": str(limit), f"{start}-remaining": str(remaining), f"{start}-reset": moment}


def test_openais_headers_tell_of_requests_and_tokens() -> None:
    headers = openai(reset="120ms") | {
        "x-ratelimit-limit-tokens": "200000",
        "x-ratelimit-remaining-tokens": "199000",
        "x-ratelimit-reset-tokens": "0.3s",
    }
    assert openai_reports(headers, TOLD) == (
        LimitReport("requests", 500.0, 499.0, 0.12),
        LimitReport("total_tokens", 200000.0, 199000.0, 0.3),
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("20ms", 0.02),
        ("1.5s", 1.5),
        ("6m0s", 360.0),
        ("1h2m3s", 3723.0),
        ("2m59.56s", 179.56),
        ("1m", 60.0),
        ("1h", 3600.0),
        ("1s5ms", 1.005),
        ("59", 59.0),
        ("0.25", 0.25),
        ("0", 0.0),
        (f"{NOW + 30:.0f}", 30.0),
        (f"{(NOW + 30) * 1000:.0f}", 30.0),
        (datetime.fromtimestamp(NOW + 30, UTC).isoformat(), 30.0),
        (f"{NOW - 30:.0f}", 0.0),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("s", None),
        ("soon", None),
        ("", None),
        ("9999999s", None),
        ("2024-99-99T00:00:00Z", None),
    ],
)
def test_a_reset_is_read_in_all_its_forms(text: str, seconds: float | None) -> None:
    (report,) = openai_reports(openai(reset=text), TOLD)
    assert report.reset == (None if seconds is None else pytest.approx(seconds))


def test_openrouters_headers_tell_of_requests_until_a_moment_in_milliseconds() -> None:
    headers = {
        "x-ratelimit-limit": "20",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": f"{(NOW + 42) * 1000:.0f}",
    }
    assert openai_reports(headers, TOLD) == (LimitReport("requests", 20.0, 0.0, 42.0),)


def test_anthropics_headers_tell_of_three_limits_and_their_rounding() -> None:
    headers = (
        anthropic("requests", 50, 49, NOW + 2)
        | anthropic("input-tokens", 40000, 39000, NOW + 3)
        | anthropic("output-tokens", 8000, 7000, NOW + 8)
        | anthropic("tokens", 8000, 7000, NOW + 8)
    )
    assert anthropic_reports(headers, TOLD) == (
        LimitReport("requests", 50.0, 49.0, 2.0),
        LimitReport("input_tokens", 40000.0, 39000.0, 3.0, 1000.0),
        LimitReport("output_tokens", 8000.0, 7000.0, 8.0, 1000.0),
    )


def test_anthropics_tokens_are_read_where_they_stand_alone_and_never_beyond_the_limit() -> None:
    headers = anthropic("tokens", 27741, 28000, NOW)
    assert anthropic_reports(headers, TOLD) == (LimitReport("total_tokens", 27741.0, 27741.0, 0.0, 1000.0),)


def test_moments_are_read_by_the_senders_clock_and_from_when_the_request_was_sent() -> None:
    headers = anthropic("requests", 50, 49, NOW + 30) | {"date": formatdate(NOW, usegmt=True)}
    (report,) = anthropic_reports(headers, Told(NOW - 5000.0, 4.0))
    assert report.reset == 33.0
    (report,) = anthropic_reports(headers | {"date": "yesterday"}, Told(NOW, 4.0))
    assert report.reset == 34.0


def test_a_refusals_reports_say_so() -> None:
    assert [report.refused for report in openai_reports(openai(), Told(NOW, 0.0, refused=True))] == [True]


@pytest.mark.parametrize(
    ("limit", "remaining"),
    [("500", "501"), ("0", "0"), ("0.5", "0.5"), ("-5", "-6"), ("500", "-1"), ("nan", "1"), ("500", "nan"),
     ("inf", "1"), ("1e300", "1"), ("many", "1"), ("500", "few"), ("", ""), ("500", "")],
)  # fmt: skip
def test_what_makes_no_sense_is_passed_over(limit: str, remaining: str) -> None:
    assert openai_reports(openai(limit, remaining), TOLD) == ()


def test_a_part_that_is_missing_is_no_report() -> None:
    assert openai_reports({"x-ratelimit-remaining-requests": "1"}, TOLD) == ()
    assert openai_reports({"x-ratelimit-limit-requests": "1"}, TOLD) == ()
    assert openai_reports({}, TOLD) == ()
    assert anthropic_reports({}, TOLD) == ()


@given(st.text(), st.text(), st.text(), st.text())
def test_no_text_breaks_the_reading(limit: str, remaining: str, reset: str, date: str) -> None:
    headers = openai(limit, remaining, reset) | {"date": date}
    for report in openai_reports(openai("5", "1", reset) | {"date": date}, TOLD) + openai_reports(headers, TOLD):
        assert 0 <= report.remaining <= report.limit
        assert report.reset is None or report.reset >= 0


# --- on the way through a provider ----------------------------------------------------------------------------------

SAID: dict[str, Any] = {
    "x_ratelimit_limit_requests": "3",
    "x_ratelimit_remaining_requests": "2",
    "x_ratelimit_reset_requests": "20s",
}


async def test_a_whole_answer_leaves_its_reports_on_the_calls_record(
    settings: ProviderSettings, server: Server, wire: Callable[[str], bytes]
) -> None:
    call = Call(0.0)
    server.says(wire("openai/answer.json"), **SAID)
    await HTTPProvider(settings, OpenAIDialect(server.url)).complete(LLMRequest("Hi", model="m", call=call))
    assert call.reports == (LimitReport("requests", 3.0, 2.0, 20.0),)


async def test_a_stream_leaves_them_as_soon_as_its_head_is_there(
    settings: ProviderSettings, server: Server, wire: Callable[[str], bytes]
) -> None:
    call = Call(0.0)
    server.says(wire("openai/stream.sse"), type="text/event-stream", **SAID)
    request = LLMRequest("Hi", model="m", call=call, stream=True)
    async with await HTTPProvider(settings, OpenAIDialect(server.url)).stream(request):
        assert call.reports == (LimitReport("requests", 3.0, 2.0, 20.0),)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_leaves_its_reports_too(settings: ProviderSettings, server: Server, *, stream: bool) -> None:
    call = Call(0.0)
    server.says(b"{}", status=429, **SAID)
    provider = HTTPProvider(settings, OpenAIDialect(server.url))
    request = LLMRequest("Hi", model="m", call=call, stream=stream)
    with pytest.raises(LLMRateLimitError):
        await (provider.stream(request) if stream else provider.complete(request))
    assert call.reports == (LimitReport("requests", 3.0, 2.0, 20.0, refused=True),)


async def test_anthropics_answers_are_read_in_their_own_words(settings: ProviderSettings, server: Server) -> None:
    call = Call(0.0)
    server.says(b"{}", status=429, **{"anthropic-ratelimit-requests-limit": "5", **SAID},
                anthropic_ratelimit_requests_remaining="4")  # fmt: skip
    with pytest.raises(LLMRateLimitError):
        await HTTPProvider(settings, AnthropicDialect(server.url)).complete(LLMRequest("Hi", model="m", call=call))
    assert call.reports == (LimitReport("requests", 5.0, 4.0, refused=True),)
