"""A transport under the vendors' own clients: their requests become calls of a manager, without a network.

Source: https://www.python-httpx.org/advanced/transports/ for what a transport answers, and
https://www.python-httpx.org/advanced/timeouts/ for what a read time-out bounds.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import httpx2

from llm.core.exceptions import LLMConfigurationError, LLMException, LLMInvalidRequestError, LLMRateLimitError

from .endpoints import models
from .endpoints.answers import Events
from .endpoints.caller import Caller
from .endpoints.faults import OWN
from .endpoints.inquiry import Inquiry
from .endpoints.service import Service
from .endpoints.table import ADDRESSES, MODELS

if TYPE_CHECKING:
    from types import TracebackType

    from llm.core.client import LLMClient
    from llm.core.manager import LLMManager
    from llm.utils.clock import Clock

    from .endpoints.answers import Reply
    from .endpoints.faults import Refusal
    from .endpoints.inquiry import Header

_CLOSED: Final = "the manager behind this transport is closed; open another one, and take a transport of that"
_ELSEWHERE: Final = (
    "this transport is of a manager of another event loop; in this one take http_transport() of `await manager.here()`"
)
_FINAL: Final = (b"x-should-retry", b"false")


class ManagerTransport(httpx2.AsyncBaseTransport):
    """What `manager.http_transport()` returns.

    It answers at any host, below `/v1` or where there is none. Keys that clients send are not looked at. What failed is
    told as the vendor would, and that it is final where the chain has repeated it already. A request's read time-out
    bounds the wait for an answer, and for each event of a stream.
    """

    def __init__(
        self, manager: LLMManager, loop: asyncio.AbstractEventLoop, *, user: str | None = None, priority: int = 0
    ) -> None:
        """Ask `manager`, which is of `loop`, in a user's name; somebody else closes it."""
        self._manager = manager
        self._loop = loop
        self._priority = priority
        self._caller = Caller(user=user)
        self._service = Service(manager, OWN, self._client)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request; a stream when its first event is there.

        Raises:
            ConnectError: The manager is closed.
            ReadTimeout: No answer came within the request's read time-out.
        """
        inquiry = _Asked(request, self._caller)
        try:
            self._check_loop()
            if self._manager.closed:
                raise httpx2.ConnectError(_CLOSED, request=request)
            answer = await self._answered(inquiry)
        except LLMException as error:
            return self._refused(inquiry, error)
        headers = [*answer.headers, *inquiry.names()]
        if isinstance(answer, Events):
            return httpx2.Response(200, headers=headers, stream=_Pieces(answer, self._service.clock, request))
        return _whole(200, headers, answer.body)

    async def _answered(self, inquiry: _Asked) -> Reply | Events:
        async with _Reading(self._service.clock, inquiry.request):
            return await self._ask(inquiry)

    async def _ask(self, inquiry: _Asked) -> Reply | Events:
        method, path = inquiry.request.method, inquiry.path
        address = ADDRESSES.get((method, path))
        if address is not None:
            return await address.endpoint(self._service, inquiry)
        if method == "GET" and path.startswith(f"{MODELS}/"):
            return models.model(self._service, inquiry, path.removeprefix(f"{MODELS}/"))
        there = ", ".join(f"{method} {path}" for method, path in ADDRESSES)
        raise LLMInvalidRequestError(f"there is no {method} {path[:100]} on this transport, but {there}", status=404)

    def _refused(self, inquiry: _Asked, error: LLMException) -> httpx2.Response:
        dialect = self._service.anthropic if inquiry.anthropic else self._service.openai
        refusal: Refusal = dialect.refusal(error, inquiry.request_id)
        headers = [*refusal.headers, *inquiry.names()]
        if isinstance(error, LLMRateLimitError):
            headers += self._service.limits(inquiry)
        if "retry" in self._manager.config.global_.middleware or isinstance(error, LLMConfigurationError):
            headers.append(_FINAL)
        return _whole(refusal.status, headers, refusal.body)

    def _client(self, provider: str | None, user: str | None) -> LLMClient:
        return self._manager.get_client(provider, user=user, priority=self._priority)

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise LLMConfigurationError(_ELSEWHERE)


class _Asked(Inquiry):
    """A request of a client in this process."""

    __slots__ = ("path", "request")

    def __init__(self, request: httpx2.Request, caller: Caller) -> None:
        self.request: httpx2.Request = request
        self.path: str = _path(request.url.path)
        given = request.headers.get("x-request-id")
        named = None if given is None else given.encode("ascii", "replace")
        super().__init__(named, caller=caller, anthropic=_is_anthropics(request, self.path))

    async def body(self) -> bytes:
        """Return the whole body."""
        return await self.request.aread()

    def names(self) -> list[Header]:
        """Return the headers that tell the request's name."""
        name = self.request_id
        return [(b"x-request-id", name), (b"request-id", name)] if self.anthropic else [(b"x-request-id", name)]


class _Pieces(httpx2.AsyncByteStream):
    """A stream on its way to a client, a piece when it comes; closing it ends the call."""

    def __init__(self, events: Events, clock: Clock, request: httpx2.Request) -> None:
        self._events = events
        self._clock = clock
        self._request = request

    def __aiter__(self) -> _Pieces:
        """Return itself."""
        return self

    async def __anext__(self) -> bytes:
        """Return what came.

        Raises:
            ReadTimeout: Nothing came within the request's read time-out; the call is ended.
        """
        if self._events.over:
            raise StopAsyncIteration
        async with _Reading(self._clock, self._request):
            return await self._events.piece()

    async def aclose(self) -> None:
        """End the call, if it goes on."""
        self._events.leave()


class _Reading:
    """The time that a request leaves for what is read next."""

    __slots__ = ("_request", "_scope", "_seconds")

    def __init__(self, clock: Clock, request: httpx2.Request) -> None:
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        self._request = request
        self._seconds = timeouts.get("read")
        self._scope = None if self._seconds is None else clock.timeout(self._seconds)

    async def __aenter__(self) -> None:
        if self._scope is not None:
            await self._scope.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let everything through but the end of the time.

        Raises:
            ReadTimeout: The time is over.
        """
        if self._scope is None:
            return
        try:
            await self._scope.__aexit__(kind, error, traceback)
        except TimeoutError as late:
            told = f"nothing came for {self._seconds:g} seconds, the client's read time-out"
            raise httpx2.ReadTimeout(told, request=self._request) from late


def _path(path: str) -> str:
    """Return a path behind its `/v1`, whatever stands before that."""
    _, found, rest = path.partition("/v1/")
    return f"/{rest}" if found else path


def _is_anthropics(request: httpx2.Request, path: str) -> bool:
    address = ADDRESSES.get((request.method, path))
    return "anthropic-version" in request.headers or (address is not None and address.anthropic)


def _whole(status: int, headers: list[Header], body: bytes) -> httpx2.Response:
    head = [*headers, (b"content-length", b"%d" % len(body))]
    return httpx2.Response(status, headers=head, stream=httpx2.ByteStream(body))
