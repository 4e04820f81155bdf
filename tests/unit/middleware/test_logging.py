from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from llm.core.call import Call
from llm.core.exceptions import LLMServerError
from llm.core.spent import Spent
from llm.core.stream import LLMStream
from llm.core.texts import EmbeddingInput
from llm.core.types import LLMRequest, LLMResponse, TokenUsage
from llm.middleware.logging import LoggingMiddleware
from llm.utils.redact import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llm.core.stream import LLMResult
    from llm.utils.clock import Clock

    Dispatch = Callable[[LLMRequest], Awaitable[LLMResult]]

SECRET = Secret("an-odd-key-of-no-known-form")
RESPONSE = LLMResponse(
    "1", "the answer", "gpt-4o-mini", "openai", TokenUsage(10, 5), cost=0.25, latency=1.5, key="key-00000001"
)


@pytest.fixture
def layer(clock: Clock) -> LoggingMiddleware:
    return LoggingMiddleware(clock, provider="openai", secrets=[SECRET])


def request_of(text: str = "the prompt", model: str = "gpt-4o-mini") -> LLMRequest:
    call = Call(99.0)
    call.sends = 2
    return LLMRequest(text, model=model, call=call)


def end(layer: LoggingMiddleware, request: LLMRequest, outcome: LLMResponse | BaseException) -> None:
    assert request.call is not None
    if isinstance(outcome, LLMResponse):
        layer.call_ended(request.call, request, outcome, None)
    else:
        layer.call_ended(request.call, request, None, outcome)


def test_the_line_of_a_failed_call_tells_what_answers_that_did_not_do_have_taken(
    layer: LoggingMiddleware, caplog: pytest.LogCaptureFixture
) -> None:
    request = request_of()
    assert request.call is not None
    request.call.spent = Spent(20, 8, 0, 0.5)
    end(layer, request, LLMServerError("it does not fit"))
    assert "input_tokens=20 output_tokens=8 cost=0.5" in caplog.text


def test_a_call_is_one_line_with_its_facts(layer: LoggingMiddleware, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llm")
    request = request_of()
    assert request.call is not None
    request.call.queue_seconds = 0.25
    end(layer, request, RESPONSE)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("llm.calls", logging.INFO)
    facts = {
        "call": request.call.number,
        "outcome": "answered",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "key": "key-00000001",
        "attempts": 2,
        "cached": False,
        "latency": 1.5,
        "waited": 0.25,
        "input_tokens": 10,
        "output_tokens": 5,
        "cost": 0.25,
    }
    assert {name: getattr(record, name) for name in facts} == facts
    told = "attempts=2 cached=False latency=1.500 waited=0.250 input_tokens=10 output_tokens=5 cost=0.25"
    assert record.getMessage().endswith(f"answered: provider=openai model=gpt-4o-mini key=key-00000001 {told}")


@pytest.mark.parametrize(
    ("error", "level", "outcome"),
    [
        (LLMServerError("the provider failed"), logging.WARNING, "failed"),
        (asyncio.CancelledError(), logging.INFO, "cancelled"),
        (GeneratorExit(), logging.INFO, "cancelled"),
    ],
)
def test_failures_are_warnings_and_cancellations_are_not(
    error: BaseException, level: int, outcome: str, layer: LoggingMiddleware, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "llm")
    end(layer, request_of(), error)
    [record] = caplog.records
    assert (record.levelno, vars(record)["outcome"], vars(record)["latency"]) == (level, outcome, 1.0)
    assert type(error).__name__ in record.getMessage()


async def test_an_attempt_is_one_line_at_debug(
    layer: LoggingMiddleware, dispatch: Dispatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "llm")
    result = await layer(request_of(), dispatch)
    if isinstance(result, LLMStream):
        assert caplog.records == []
        await result.response()
    [record] = caplog.records
    assert (record.name, record.levelno) == ("llm.attempts", logging.DEBUG)
    assert "attempt 2 of call" in record.getMessage()
    assert (vars(record)["latency"], vars(record)["key"]) == (2.0, "key-00000001")


async def test_a_failed_attempt_is_logged_and_raised(
    layer: LoggingMiddleware, caplog: pytest.LogCaptureFixture
) -> None:
    async def failing(_: LLMRequest) -> LLMResult:
        raise LLMServerError("no", key="key-00000002")

    caplog.set_level(logging.DEBUG, "llm")
    with pytest.raises(LLMServerError):
        await layer(request_of(), failing)
    [record] = caplog.records
    assert (record.levelno, vars(record)["key"]) == (logging.DEBUG, "key-00000002")


async def test_above_debug_attempts_are_silent(
    layer: LoggingMiddleware, dispatch: Dispatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "llm")
    result = await layer(request_of(), dispatch)
    if isinstance(result, LLMStream):
        await result.response()
    assert caplog.records == []


@pytest.mark.parametrize("log_content", [False, True])
async def test_content_is_logged_only_when_asked_for_and_keys_never(
    log_content: bool,
    clock: Clock,
    dispatch: Dispatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "llm")
    layer = LoggingMiddleware(clock, provider="openai", log_content=log_content, secrets=[SECRET])
    request = request_of(f"the prompt with {SECRET.reveal()} and sk-proj-abcdefgh", model=f"a-{SECRET.reveal()}")
    result = await layer(request, dispatch)
    if isinstance(result, LLMStream):
        await result.response()
    end(layer, request, RESPONSE)
    end(layer, request, LLMServerError(f"bad key {SECRET.reveal()} or Bearer abcdefgh12345"))
    end(layer, request, ValueError("the prompt"))
    told = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert len(caplog.records) == 4
    assert ("the prompt" in told, "the answer" in told) == (log_content, log_content)
    assert SECRET.reveal() not in told
    assert "sk-proj" not in told
    assert "abcdefgh12345" not in told


def test_nobody_can_write_a_line_of_their_own(layer: LoggingMiddleware, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llm")
    end(layer, request_of(model="x\ncall 1 answered"), LLMServerError("one\r\ntwo"))
    assert len(caplog.records[0].getMessage().splitlines()) == 1


def test_a_program_without_logging_sees_nothing(layer: LoggingMiddleware, capfd: pytest.CaptureFixture[str]) -> None:
    end(layer, request_of(), LLMServerError("no"))
    assert capfd.readouterr().err == ""
    assert [type(handler) for handler in logging.getLogger("llm").handlers] == [logging.NullHandler]


@pytest.mark.parametrize("log_content", [False, True])
def test_texts_whose_vectors_are_asked_for_are_content(
    clock: Clock, caplog: pytest.LogCaptureFixture, *, log_content: bool
) -> None:
    caplog.set_level(logging.INFO, "llm")
    request = LLMRequest((), model="e", call=Call(99.0), embed=EmbeddingInput(["a first", "a second"]))
    layer = LoggingMiddleware(clock, provider="openai", log_content=log_content)
    end(layer, request, LLMResponse(model="e", usage=TokenUsage(4), embeddings=((0.515625,), (0.5,))))
    [record] = caplog.records
    assert ("a first a second" in record.getMessage()) is log_content
    assert "0.515625" not in record.getMessage()
    assert "input_tokens=4" in record.getMessage()
