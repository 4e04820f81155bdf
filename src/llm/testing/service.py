"""How a `MockUpstream` makes an answer: what it says, when each piece goes out, and what it costs in the end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import orjson

from llm.core.exceptions import LLMException, LLMInvalidRequestError
from llm.core.types import LLMResponse, TokenUsage
from llm.providers.errors import wire_for
from llm.providers.serving.openai_embeddings import write_embeddings
from llm.utils.clock import Timer

from .accounts import Lease
from .echo import answer as echo
from .echo import vectors
from .exchange import Frame, Play
from .script import cut
from .vendor import Failure
from .vendor_responses import speaker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llm.core.texts import EmbeddingInput
    from llm.core.types import LLMRequest
    from llm.utils.clock import Clock

    from .vendor import Stamp, Vendor

Answerer: TypeAlias = "Callable[[LLMRequest], LLMResponse | str | Exception]"
Seconds: TypeAlias = "float | Callable[[LLMRequest], float]"


class Work(NamedTuple):
    """An admitted request.

    Attributes:
        request: What it asks.
        body: Its body.
        stamp: When it came.
        lease: What it took.
        late: Seconds that a fault makes it late.
        vendor: Who speaks at the path that it came to.
    """

    request: LLMRequest
    body: Mapping[str, Any]
    stamp: Stamp
    lease: Lease
    late: float
    vendor: Vendor


@dataclass(slots=True)
class _Settlement:
    lease: Lease
    usage: TokenUsage
    timer: Timer
    pieces: int = field(default=1)


class Service:
    """Answers admitted requests, and settles them when their time is over."""

    def __init__(
        self, vendor: Vendor, clock: Clock, *, answer: Answerer | None, seconds: Seconds, chunk_size: int
    ) -> None:
        """Answer by `answer`, or with an echo, `seconds` after admission."""
        self._vendor = vendor
        self._clock = clock
        self._answer = answer
        self._seconds = seconds
        self._chunk_size = chunk_size
        self._unsettled: dict[int, _Settlement] = {}

    def answer(self, work: Work) -> Play:
        """Return the play of a chat's answer."""
        said = self._say(work.request, work.vendor, work.stamp)
        if isinstance(said, Failure):
            work.lease.settle(work.stamp.now, self._vendor.used(TokenUsage()))
            return failed(self._vendor, said, work.stamp)
        seconds = self._seconds_of(work.request)
        settlement = self._settle_at(work, seconds, said.usage)
        if not work.request.stream:
            return whole(work.vendor.whole(said, work.stamp), work.stamp.now + work.late + seconds)
        pieces = work.vendor.events(work.body, said, list(cut(said, self._chunk_size)), work.stamp)
        settlement.pieces = len(pieces) - 1
        frames = _spread(pieces, work.stamp.now + work.late, seconds)
        return Play(200, {"content-type": "text/event-stream; charset=utf-8"}, frames, frames[0].at)

    def embed(self, work: Work, asked: EmbeddingInput) -> Play:
        """Return the play of an answer with vectors, which OpenAI's dialect alone has."""
        response = self._vectors(work.request, asked)
        if isinstance(response, Failure):
            work.lease.settle(work.stamp.now, self._vendor.used(TokenUsage()))
            return failed(self._vendor, response, work.stamp)
        seconds = self._seconds_of(work.request)
        self._settle_at(work, seconds, response.usage)
        data = orjson.dumps(write_embeddings(response, work.body))
        return whole(data, work.stamp.now + work.late + seconds)

    def row(self, url: str, body: Mapping[str, Any], stamp: Stamp) -> bytes | Failure:
        """Return the body that answers a row of a batch, or its failure; no limit counts it, and it takes no time."""
        vendor = speaker(self._vendor, url, body)
        try:
            request = vendor.read(body)
        except LLMInvalidRequestError as error:
            return replace(vendor.failure("invalid"), message=error.message)
        if request.embed is None:
            said = self._say(request, vendor, stamp)
            return said if isinstance(said, Failure) else vendor.whole(said, stamp)
        made = self._vectors(request, request.embed)
        return made if isinstance(made, Failure) else orjson.dumps(write_embeddings(made, body))

    def left(self, number: int, sent: int) -> None:
        """Settle a stream that was left after so many pieces, if it was still going on."""
        if number in self._unsettled:
            self._settle(number, sent)

    def close(self) -> None:
        """Drop what would still be settled."""
        for settlement in self._unsettled.values():
            settlement.timer.cancel()
        self._unsettled.clear()

    def _seconds_of(self, request: LLMRequest) -> float:
        return self._seconds(request) if callable(self._seconds) else self._seconds

    def _vectors(self, request: LLMRequest, asked: EmbeddingInput) -> LLMResponse | Failure:
        said = None if self._answer is None else self._answer(request)
        if isinstance(said, Exception):
            return self._worded(said)
        response = vectors(asked, request.model or "")
        return replace(response, embeddings=said.embeddings) if isinstance(said, LLMResponse) else response

    def _say(self, request: LLMRequest, vendor: Vendor, stamp: Stamp) -> LLMResponse | Failure:
        said = None if self._answer is None else self._answer(request)
        if isinstance(said, Exception):
            return self._worded(said)
        if not isinstance(said, LLMResponse):
            said = echo(request, said)
        usage = said.usage
        if usage == TokenUsage():
            usage = echo(replace(request, max_tokens=None), said.content).usage
        return replace(
            said,
            id=said.id or vendor.answer_id(stamp.number),
            model=said.model or request.model or "",
            usage=usage,
            finish_reason=said.finish_reason or ("tool_calls" if said.tool_calls else "stop"),
        )

    def _worded(self, said: Exception) -> Failure:
        if isinstance(said, LLMException):
            return _told(self._vendor, said)
        return replace(self._vendor.failure("server_error"), message=str(said))

    def _settle_at(self, work: Work, seconds: float, usage: TokenUsage) -> _Settlement:
        # By time and not by reading: a vendor's work goes on whether the client reads or not, until the client leaves.
        number = work.stamp.number
        timer = self._clock.call_later(work.late + seconds, partial(self._settle, number))
        settlement = self._unsettled[number] = _Settlement(work.lease, usage, timer)
        return settlement

    def _settle(self, number: int, sent: int | None = None) -> None:
        settlement = self._unsettled.pop(number)
        settlement.timer.cancel()
        used = settlement.usage
        if sent is not None:
            output = used.output_tokens * min(sent, settlement.pieces) // settlement.pieces
            used = replace(used, output_tokens=output)
        settlement.lease.settle(self._clock.now(), self._vendor.used(used))


def whole(data: bytes, at: float) -> Play:
    """Return the play of a JSON body that goes out at `at`, in monotonic seconds."""
    return Play(200, {"content-type": "application/json"}, [Frame(at, data)], at, length=len(data))


def failed(vendor: Vendor, failure: Failure, stamp: Stamp) -> Play:
    """Return the play of an error, at once."""
    data = vendor.envelope(failure, stamp) if failure.page is None else failure.page.encode()
    play = whole(data, stamp.now)
    play.status = failure.status
    if failure.page is not None:
        play.headers["content-type"] = "text/html"
    return play


def _spread(pieces: list[bytes], start: float, seconds: float) -> list[Frame]:
    # Evenly over the time from admission to the last token; the closing event comes with the last.
    last = len(pieces) - 1
    return [Frame(start + seconds * min(place + 1, last) / last, data) for place, data in enumerate(pieces)]


def _told(vendor: Vendor, error: LLMException) -> Failure:
    wire = wire_for(error, anthropic=vendor.name == "anthropic")
    return Failure(error.status or wire.status, wire.type, error.message, wire.code)
