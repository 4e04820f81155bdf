"""The behaviour of a `MockUpstream`: what it answers to a request, without a socket and without a wait."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import orjson

from llm.core.exceptions import LLMInvalidRequestError
from llm.providers.serving.fields import is_mapping

from .accounts import Account, Lease
from .batches import Call, Shelf
from .batches_anthropic import AnthropicDesk
from .batches_openai import OpenAIDesk
from .exchange import Exchange, MockRequest, Play
from .faults import FaultPlan
from .service import Service, Work, failed, whole
from .spoil import spoil
from .vendor import Failure, Stamp
from .vendor_responses import speaker

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llm.core.types import LLMRequest
    from llm.utils.clock import Clock

    from .accounts import Limits, Refusal
    from .batches import BatchScript, Desk, MockBatch
    from .faults import Fault
    from .service import Answerer, Seconds
    from .vendor import Route, Vendor


class _RefusedError(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


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
        batches: BatchScript,
        seed: int,
    ) -> None:
        """Start with all limits as they are at their start."""
        self.requests: list[MockRequest] = []
        self.probes: list[MockRequest] = []
        self.active: int = 0
        self.most_active: int = 0
        self._vendor = vendor
        self._clock = clock
        self._accounts = {name: Account(of, start=clock.now(), mode=mode) for name, of in limits.items()}
        self._groups = groups
        self._unlimited = Account({}, start=clock.now(), mode=mode)
        self._random = Random(seed)  # noqa: S311 - a mock's dice
        self._faults = FaultPlan(faults, Random(seed + 1))  # noqa: S311 - a mock's dice
        self._service = Service(vendor, clock, answer=answer, seconds=service, chunk_size=chunk_size)
        shelf = Shelf(vendor, batches, groups, self._service.row)
        self._desk: Desk | None = _desk(vendor.name, shelf)
        self._network = network
        self._models = models
        self._api_keys = api_keys
        self._per_key: Counter[str | None] = Counter()
        self._arrived = {True: 0, False: 0}  # requests and probes; the lists of them are the test's to clear

    @property
    def batches(self) -> list[MockBatch]:
        """Batches that were submitted, in order."""
        return [] if self._desk is None else self._desk.shelf.batches

    def delay(self) -> float:
        """Return seconds that a message takes, one way."""
        low, high = self._network
        return self._random.uniform(low, high) if high > 0 else 0.0

    def close(self) -> None:
        """Drop what would still be settled."""
        self._service.close()

    def arrive(self, method: str, path: str, headers: Mapping[str, str], body: bytes, *, query: str = "") -> Exchange:
        """Take a request that arrives now, and decide all of its answer."""
        headers = {name.lower(): value for name, value in headers.items()}
        route = self._vendor.route(method, path)
        asked = _object(body)
        counted = route in ("answer", "embeddings")
        log = self.requests if counted else self.probes
        self._arrived[counted] += 1
        record = MockRequest(
            self._arrived[counted],
            path,
            self._clock.now(),
            self._vendor.key(headers),
            headers,
            asked or {},
            stream=asked is not None and asked.get("stream") is True,
            method=method,
        )
        log.append(record)
        stamp = Stamp(record.number, record.at, self._clock.wall())
        if counted:
            play = self._play(asked, record, stamp)
        else:
            play = self._aside(
                route,
                asked,
                record,
                stamp,
                Call(method, _behind(path), _named(query), headers, body, record.key, stamp),
            )
        record.status = play.status
        play.headers |= self._vendor.identify(record.number)
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        return Exchange(record, play, self._clock, self._ended, delay=self.delay())

    def _ended(self, record: MockRequest) -> None:
        self.active -= 1
        if record.left and record.stream and record.charge is not None:
            self._service.left(record.number, record.sent)

    def _aside(
        self, route: Route | None, body: Mapping[str, Any] | None, record: MockRequest, stamp: Stamp, call: Call
    ) -> Play:
        fault = self._faults.meet_aside(record.method, record.path, record.key)
        record.fault = None if fault is None else fault.kind
        if fault is not None and fault.is_refusal:
            return self._refuse(fault, record, stamp)
        if route is None and self._desk is not None and self._desk.owns(call.method, call.path):
            play = self._serve(self._desk, call)
        else:
            play = self._probe(route, body, record, stamp)
        return play if fault is None else self._spoilt(play, fault, stamp)

    def _serve(self, desk: Desk, call: Call) -> Play:
        if not self._known(call.key):
            return failed(self._vendor, self._vendor.failure("auth"), call.stamp)
        try:
            said = desk.serve(call)
        except (ValueError, KeyError, TypeError):  # of a body that is none
            said = self._vendor.failure("invalid")
        return failed(self._vendor, said, call.stamp) if isinstance(said, Failure) else said

    def _spoilt(self, play: Play, fault: Fault, stamp: Stamp) -> Play:
        late = fault.seconds if fault.kind == "slow" else 0.0
        play.head_at += late
        play.frames = [frame._replace(at=frame.at + late) for frame in play.frames]
        return spoil(play, fault, self._vendor, stamp, stream=False)

    def _probe(self, route: Route | None, body: Mapping[str, Any] | None, record: MockRequest, stamp: Stamp) -> Play:
        if route not in self._vendor.public and not self._known(record.key):
            return failed(self._vendor, self._vendor.failure("auth"), stamp)
        if route is None:
            return failed(self._vendor, self._vendor.failure("unknown_path"), stamp)
        try:
            data = self._vendor.aside(route, body or {}, self._models or ("mock-model",), stamp)
        except LLMInvalidRequestError as error:
            return failed(self._vendor, _invalid(self._vendor, error), stamp)
        return whole(data, stamp.now)

    def _play(self, body: Mapping[str, Any] | None, record: MockRequest, stamp: Stamp) -> Play:
        key, vendor = record.key, speaker(self._vendor, record.path, record.body)
        self._per_key[key] += 1
        fault = self._faults.meet(record.number, key, self._per_key[key])
        record.fault = None if fault is None else fault.kind
        if fault is not None and fault.is_refusal:
            return self._refuse(fault, record, stamp)
        try:
            request = self._understand(vendor, body, key)
        except _RefusedError as refused:
            return failed(self._vendor, refused.failure, stamp)
        account = self._account(key)
        charge = self._vendor.charge(request)
        admitted = account.admit(stamp.now, charge)
        if not isinstance(admitted, Lease):
            return self._limit(admitted, account, request, stamp)
        record.charge = charge
        headers = self._vendor.limit_headers(account, stamp)
        late = fault.seconds if fault is not None and fault.kind == "slow" else 0.0
        work = Work(request, record.body, stamp, admitted, late, vendor)
        play = self._service.answer(work) if request.embed is None else self._service.embed(work, request.embed)
        play.headers |= headers
        return play if fault is None else spoil(play, fault, vendor, stamp, stream=record.stream)

    def _understand(self, vendor: Vendor, body: Mapping[str, Any] | None, key: str | None) -> LLMRequest:
        if not self._known(key):
            raise _RefusedError(self._vendor.failure("auth"))
        if body is None:
            raise _RefusedError(replace(self._vendor.failure("invalid"), message="the body is no JSON object"))
        try:
            request = vendor.read(body)
        except LLMInvalidRequestError as error:
            raise _RefusedError(_invalid(self._vendor, error)) from error
        if self._models is not None and request.model not in self._models:
            raise _RefusedError(self._vendor.failure("missing"))
        return request

    def _refuse(self, fault: Fault, record: MockRequest, stamp: Stamp) -> Play:
        if fault.kind == "reset_before":
            return Play(0, {}, [], stamp.now, "reset")
        failure = self._vendor.failure(fault.kind)
        if fault.message is not None:
            failure = replace(failure, message=fault.message.replace("{key}", record.key or ""))
        play = failed(self._vendor, failure, stamp)
        if fault.kind == "redirect":
            play.headers["location"] = "/elsewhere"
        if isinstance(fault.retry_after, str):
            play.headers["retry-after"] = fault.retry_after
        elif fault.retry_after is not None:
            play.headers["retry-after"] = f"{fault.retry_after:g}"
        play.headers |= {name.lower(): value for name, value in (fault.headers or {}).items()}
        return play

    def _limit(self, refusal: Refusal, account: Account, request: LLMRequest, stamp: Stamp) -> Play:
        play = failed(self._vendor, self._vendor.too_much(refusal, request.model or ""), stamp)
        play.headers |= self._vendor.limit_headers(account, stamp)
        if refusal.seconds != float("inf"):
            play.headers |= self._vendor.retry_headers(refusal.seconds)
        return play

    def _account(self, key: str | None) -> Account:
        if key is None:
            return self._unlimited
        return self._accounts.get(self._groups.get(key, key)) or self._accounts.get(key) or self._unlimited

    def _known(self, key: str | None) -> bool:
        return self._api_keys is None or key in self._api_keys


def _desk(vendor: str, shelf: Shelf) -> Desk | None:
    match vendor:
        case "openai":
            return OpenAIDesk(shelf)
        case "anthropic":
            return AnthropicDesk(shelf)
        case _:
            return None


def _behind(path: str) -> str:
    return path.removeprefix("/v1")


def _named(query: str) -> dict[str, str]:
    return dict(parse_qsl(query))


def _object(body: bytes) -> Mapping[str, Any] | None:
    try:
        read: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return read if is_mapping(read) else None


def _invalid(vendor: Vendor, error: LLMInvalidRequestError) -> Failure:
    return replace(vendor.failure("invalid"), message=error.message)
