"""One line per call, on the logger `llm.calls`, and one per attempt, on `llm.attempts` at DEBUG.

The facts of a line are attributes of its record, too, for structured logs: `call`, `provider`, `model`, `key` (a
fingerprint), `input_tokens`, `output_tokens`, `cost` (US dollars), `latency` and `waited` (seconds; the second for a
key), `attempts`, `cached`, `outcome` (`answered`, `failed` or `cancelled`), `error`; with `log_content` also `prompt`
and `answer`.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from llm.core.exceptions import LLMException
from llm.core.stream import at_end
from llm.utils.redact import redact

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm.core.call import Call
    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult
    from llm.core.types import LLMRequest, LLMResponse
    from llm.utils.clock import Clock
    from llm.utils.redact import Secret

# Quiet where the program has no logging of its own; the standard library would print warnings to stderr.
logging.getLogger("llm").addHandler(logging.NullHandler())
_calls: Final = logging.getLogger("llm.calls")
_attempts: Final = logging.getLogger("llm.attempts")

_FACTS: Final = (
    "%(outcome)s: provider=%(provider)s model=%(model)s key=%(key)s attempts=%(attempts)s cached=%(cached)s "
    "latency=%(latency).3f waited=%(waited).3f input_tokens=%(input_tokens)s output_tokens=%(output_tokens)s "
    "cost=%(cost)s"
)
_CALL: Final = "call %(call)s " + _FACTS
_ATTEMPT: Final = "attempt %(attempts)s of call %(call)s " + _FACTS
_ERROR: Final = " error=%(error)s"
_CONTENT: Final = " prompt=%(prompt)s answer=%(answer)s"


class LoggingMiddleware:
    """Logs attempts where it stands in a chain, and whole calls as a `CallObserver`.

    Answered and cancelled calls are logged at INFO, failed ones at WARNING.
    """

    def __init__(
        self, clock: Clock, *, provider: str, log_content: bool = False, secrets: Iterable[Secret] = ()
    ) -> None:
        """Make the layer of one provider's chain.

        Args:
            clock: Its time.
            provider: Section of the configuration.
            log_content: Whether prompts and answers are logged.
            secrets: What must appear in no line, whoever wrote it into a prompt, a model's name or an error.
        """
        self._clock = clock
        self._provider = provider
        self._log_content = log_content
        self._secrets = tuple(secrets)

    async def __call__(self, request: LLMRequest, call_next: CallNext) -> LLMResult:
        """Pass on, and log the attempt when it has ended."""
        if not _attempts.isEnabledFor(logging.DEBUG):
            return await call_next(request)
        log = partial(self._attempted, request, self._clock.now())
        try:
            result = await call_next(request)
        except BaseException as error:
            log(None, error)
            raise
        return at_end(result, log)

    def call_ended(
        self, call: Call, request: LLMRequest, response: LLMResponse | None, error: BaseException | None
    ) -> None:
        """Log the call."""
        level = logging.INFO if error is None or _outcome(error) == "cancelled" else logging.WARNING
        if _calls.isEnabledFor(level):
            latency = self._clock.now() - call.started if response is None else response.latency
            facts = self._facts(call, request, response, error, latency)
            spent = call.spent  # by answers that did not do
            if response is None and spent is not None:
                facts |= {"input_tokens": spent.input_tokens, "output_tokens": spent.output_tokens, "cost": spent.cost}
            self._log(_calls, level, _CALL, facts)

    def _attempted(
        self, request: LLMRequest, started: float, response: LLMResponse | None, error: BaseException | None
    ) -> None:
        facts = self._facts(request.call, request, response, error, self._clock.now() - started)
        self._log(_attempts, logging.DEBUG, _ATTEMPT, facts)

    def _log(self, logger: logging.Logger, level: int, template: str, facts: dict[str, Any]) -> None:
        if "error" in facts:
            template += _ERROR
        if "prompt" in facts:
            template += _CONTENT
        logger.log(level, template, facts, extra=facts)

    def _facts(
        self,
        call: Call | None,
        request: LLMRequest,
        response: LLMResponse | None,
        error: BaseException | None,
        latency: float,
    ) -> dict[str, Any]:
        usage = None if response is None else response.usage
        facts: dict[str, Any] = {
            "call": None if call is None else call.number,
            "outcome": _outcome(error),
            "provider": self._provider,
            "model": self._line(request.model or (response.model if response is not None else "")),
            "key": getattr(error if response is None else response, "key", None),
            "attempts": None if call is None else call.sends,
            "cached": response is not None and response.cached,
            "latency": latency,
            "waited": 0.0 if call is None else call.queue_seconds,
            "input_tokens": None if usage is None else usage.input_tokens,
            "output_tokens": None if usage is None else usage.output_tokens,
            "cost": None if response is None else response.cost,
        }
        if error is not None:
            facts["error"] = self._error(error)
        if self._log_content:
            texts = [message.text for message in request.messages] if request.embed is None else request.embed.texts
            facts["prompt"] = self._line("\n".join(texts))
            facts["answer"] = None if response is None else self._line(response.content)
        return facts

    def _error(self, error: BaseException) -> str:
        # The message of a stranger's exception may hold anything, content included.
        name = type(error).__name__
        return f"{name}: {self._line(str(error))}" if isinstance(error, LLMException) else name

    def _line(self, text: str) -> str:
        # One line, so that no upstream and no prompt can write a line of its own.
        return " ".join(redact(text, self._secrets).splitlines())


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "answered"
    return "cancelled" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "failed"
