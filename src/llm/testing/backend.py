"""The behaviour of a `MockUpstream`: what it answers to a request, without a socket and without a wait."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from llm.core.exceptions import LLMException, LLMInvalidRequestError
from llm.core.types import LLMResponse, TokenUsage
from llm.providers.errors import wire_for
from llm.providers.serving.fields import is_mapping
from llm.utils.clock import Timer

from .accounts import Account, Lease
from .echo import answer as echo
from .echo import prompt_tokens
from .exchange import Exchange, Frame, MockRequest, Play
from .faults import FaultPlan
from .script import cut
from .spoil import spoil
from .vendor import Failure, Stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from llm.core.types import LLMRequest
    from llm.utils.clock import Clock

    from .accounts import Limits, Refusal
    from .faults import Fault
    from .vendor import Route, Vendor

Answerer: TypeAlias = "Callable[[LLMRequest], LLMResponse | str | Exception]"
Seconds: TypeAlias = "float | Callable[[LLMRequest], float]"

_JSON = {"content-type": "application/json"}


class _RefusedError(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(slots=True)
class _Settlement:
    lease: Lease
    usage: TokenUsage
    pieces: int = 1
    timer: Timer = field(init=False)


class Backend:
    """Admits, answers, refuses and spoils; the faces do the waiting."""

    def __init__(  # noqa: PLR0913 - the options of MockUpstream
        self,
        vendor: Vendor,
        clock: Clock,
        *,
        limits: Mapping[str, Limits],
        groups: Mapping[str, str],
        mode: str,
        faults: Iterable[Fault],
        answer: Answerer | None,
        service: Seconds,
        network: tuple[float, float],
        chunk_size: int,
        models: tuple[str, ...] | None,
        api_keys: frozenset[str] | None,
        seed: int,
    ) -> None:
        """Start with all limits as they are at their start."""
        self.requests: list[MockRequest] = []
        self.probes: list[MockRequest] = []
        self.active = 0
        self.most_active = 0
        self._vendor = vendor
        self._clock = clock
        self._accounts = {name: Account(of, start=clock.now(), mode=mode) for name, of in limits.items()}
        self._groups = groups
        self._unlimited = Account({}, start=clock.now(), mode=mode)
        self._random = Random(seed)  # noqa: S311 - a mock's dice
        self._faults = FaultPlan(faults, Random(seed + 1))  # noqa: S311 - a mock's dice
        self._answer = answer
        self._service = service
        self._network = network
        self._chunk_size = chunk_size
        self._models = models
        self._api_keys = api_keys
        self._per_key: Counter[str | None] = Counter()
        self._unsettled: dict[int, _Settlement] = {}

    def delay(self) -> float:
        """Return seconds that a message takes, one way."""
        low, high = self._network
        return self._random.uniform(low, high) if high > 0 else 0.0

    def close(self) -> None:
        """Drop what would still be settled."""
        for settlement in self._unsettled.values():
            settlement.timer.cancel()
        self._unsettled.clear()

    def arrive(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Exchange:
        """Take a request that arrives now, and decide all of its answer."""
        headers = {name.lower(): value for name, value in headers.items()}
        route = self._vendor.route(method, path)
        asked = _object(body)
        counted = route in ("answer", "embeddings")
        log = self.requests if counted else self.probes
        record = MockRequest(
            len(log) + 1,
            path,
            self._clock.now(),
            self._vendor.key(headers),
            headers,
            asked or {},
            stream=asked is not None and asked.get("stream") is True,
        )
        log.append(record)
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        stamp = Stamp(record.number, record.at, self._clock.wall())
        play = self._play(route, asked, record, stamp) if counted else self._probe(route, asked, record, stamp)
        record.status = play.status
        play.headers |= self._vendor.identify(record.number)
        return Exchange(record, play, self._clock, self._ended, delay=self.delay())

    def _ended(self, record: MockRequest) -> None:
        self.active -= 1
        if record.left and record.stream and record.number in self._unsettled:
            self._settle(record.number, sent=record.sent)

    def _probe(self, route: Route | None, body: Mapping[str, Any] | None, record: MockRequest, stamp: Stamp) -> Play:
        if not self._known(record.key):
            return self._fail(self._vendor.failure("auth"), stamp)
        if route is None:
            return self._fail(self._vendor.failure("unknown_path"), stamp)
        try:
            data = self._vendor.aside(route, body or {}, self._models or ("mock-model",), stamp)
        except LLMInvalidRequestError as error:
            return self._fail(_invalid(self._vendor, error), stamp)
        return _whole(200, dict(_JSON), data, stamp.now)

    def _play(self, route: Route | None, body: Mapping[str, Any] | None, record: MockRequest, stamp: Stamp) -> Play:
        key = record.key
        self._per_key[key] += 1
        fault = self._faults.meet(record.number, key, self._per_key[key])
        record.fault = None if fault is None else fault.kind
        if fault is not None and fault.is_refusal:
            return self._refuse(fault, record, stamp)
        try:
            request = self._understand(body, key)
        except _RefusedError as refused:
            return self._fail(refused.failure, stamp)
        account = self._account(key)
        charge = self._vendor.charge(request)
        admitted = account.admit(stamp.now, charge)
        if not isinstance(admitted, Lease):
            return self._limit(admitted, account, request, stamp)
        record.charge = charge
        headers = self._vendor.limit_headers(account, stamp)
        play = self._serve(route, record.body, request, admitted, stamp, late=_late(fault))
        play.headers |= headers
        return play if fault is None else spoil(play, fault, self._vendor, stamp, stream=record.stream)

    def _understand(self, body: Mapping[str, Any] | None, key: str | None) -> LLMRequest:
        if not self._known(key):
            raise _RefusedError(self._vendor.failure("auth"))
        if body is None:
            raise _RefusedError(replace(self._vendor.failure("invalid"), message="the body is no JSON object"))
        try:
            request = self._vendor.read(body)
        except LLMInvalidRequestError as error:
            raise _RefusedError(_invalid(self._vendor, error)) from error
        if self._models is not None and request.model not in self._models:
            raise _RefusedError(self._vendor.failure("missing"))
        return request

    def _serve(  # noqa: PLR0913 - all that decides an answer
        self,
        route: Route | None,
        body: Mapping[str, Any],
        request: LLMRequest,
        lease: Lease,
        stamp: Stamp,
        *,
        late: float,
    ) -> Play:
        service = self._service(request) if callable(self._service) else self._service
        ends = stamp.now + service + late
        if route == "embeddings":
            data = self._vendor.aside("embeddings", body, (), stamp)
            self._settle_at(ends, stamp.number, _Settlement(lease, TokenUsage(prompt_tokens(request))))
            return _whole(200, dict(_JSON), data, ends)
        said = self._say(request, stamp)
        if isinstance(said, Failure):
            lease.settle(stamp.now, self._vendor.used(TokenUsage()))
            return self._fail(said, stamp)
        settlement = _Settlement(lease, said.usage)
        self._settle_at(ends, stamp.number, settlement)
        if not request.stream:
            return _whole(200, dict(_JSON), self._vendor.whole(said, stamp), ends)
        pieces = self._vendor.events(body, said, list(cut(said, self._chunk_size)), stamp)
        # Evenly over the time from admission to the last token; the closing event comes with the last.
        settlement.pieces = len(pieces) - 1
        step = service / settlement.pieces
        times = [min(ends, stamp.now + late + step * (place + 1)) for place in range(len(pieces))]
        frames = [Frame(at, data) for at, data in zip(times, pieces, strict=True)]
        return Play(200, {"content-type": "text/event-stream; charset=utf-8"}, frames, frames[0].at)

    def _say(self, request: LLMRequest, stamp: Stamp) -> LLMResponse | Failure:
        said = None if self._answer is None else self._answer(request)
        if isinstance(said, LLMException):
            return _told(self._vendor, said)
        if isinstance(said, Exception):
            raise said
        if not isinstance(said, LLMResponse):
            said = echo(request, said)
        usage = said.usage
        if usage == TokenUsage():
            usage = echo(replace(request, max_tokens=None), said.content).usage
        finish = said.finish_reason or ("tool_calls" if said.tool_calls else "stop")
        return replace(
            said,
            id=said.id or self._vendor.answer_id(stamp.number),
            model=said.model or request.model or "",
            usage=usage,
            finish_reason=finish,
        )

    def _settle_at(self, at: float, number: int, settlement: _Settlement) -> None:
        # By time and not by reading: a vendor's work goes on whether the client reads or not, until the client leaves.
        settlement.timer = self._clock.call_later(at - self._clock.now(), partial(self._settle, number))
        self._unsettled[number] = settlement

    def _settle(self, number: int, sent: int | None = None) -> None:
        settlement = self._unsettled.pop(number)
        settlement.timer.cancel()
        used = settlement.usage
        if sent is not None:
            output = used.output_tokens * min(sent, settlement.pieces) // settlement.pieces
            used = replace(used, output_tokens=output)
        settlement.lease.settle(self._clock.now(), self._vendor.used(used))

    def _refuse(self, fault: Fault, record: MockRequest, stamp: Stamp) -> Play:
        if fault.kind == "reset_before":
            return Play(0, {}, [], stamp.now, "reset")
        failure = self._vendor.failure(fault.kind)
        if fault.message is not None:
            failure = replace(failure, message=fault.message.replace("{key}", record.key or ""))
        play = self._fail(failure, stamp)
        if fault.kind == "redirect":
            play.headers["location"] = "/elsewhere"
        if isinstance(fault.retry_after, str):
            play.headers["retry-after"] = fault.retry_after
        elif fault.retry_after is not None:
            play.headers["retry-after"] = f"{fault.retry_after:g}"
        play.headers |= {name.lower(): value for name, value in (fault.headers or {}).items()}
        return play

    def _limit(self, refusal: Refusal, account: Account, request: LLMRequest, stamp: Stamp) -> Play:
        play = self._fail(self._vendor.too_much(refusal, request.model or ""), stamp)
        play.headers |= self._vendor.limit_headers(account, stamp)
        if refusal.seconds != float("inf"):
            play.headers |= self._vendor.retry_headers(refusal.seconds)
        return play

    def _fail(self, failure: Failure, stamp: Stamp) -> Play:
        if failure.page is not None:
            return _whole(failure.status, {"content-type": "text/html"}, failure.page.encode(), stamp.now)
        return _whole(failure.status, dict(_JSON), self._vendor.envelope(failure, stamp), stamp.now)

    def _account(self, key: str | None) -> Account:
        if key is None:
            return self._unlimited
        return self._accounts.get(self._groups.get(key, key)) or self._accounts.get(key) or self._unlimited

    def _known(self, key: str | None) -> bool:
        return self._api_keys is None or key in self._api_keys


def _object(body: bytes) -> Mapping[str, Any] | None:
    try:
        read: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return read if is_mapping(read) else None


def _whole(status: int, headers: dict[str, str], data: bytes, at: float) -> Play:
    return Play(status, headers, [Frame(at, data)], at, length=len(data))


def _late(fault: Fault | None) -> float:
    return fault.seconds if fault is not None and fault.kind == "slow" else 0.0


def _invalid(vendor: Vendor, error: LLMInvalidRequestError) -> Failure:
    return replace(vendor.failure("invalid"), message=error.message)


def _told(vendor: Vendor, error: LLMException) -> Failure:
    wire = wire_for(error, anthropic=vendor.name == "anthropic")
    return Failure(error.status or wire.status, wire.type, error.message, wire.code)
