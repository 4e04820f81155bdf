"""`HTTPProvider`: one key at one vendor, a dialect on a transport."""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from llm.core.exceptions import LLMException, LLMInvalidRequestError
from llm.core.standing import HealthStatus
from llm.core.stream import LLMStream
from llm.core.structured import shape_of
from llm.utils.redact import Address, Secret, redact

from .closed import ClosedTransport
from .dialect import EmbeddingDialect, Passing, joined
from .errors import error_for
from .failure import read_failure, retry_after
from .frames import bare
from .limit_headers import Told
from .source import ReplyChunks
from .structured import RefusedWays, Way, shaped
from .unwrap import UnwrappedEvents, unwrapped
from .wire import senseless

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from llm.core.call import Charge, LimitReport
    from llm.core.protocols import EmbeddingLimits, ProviderFactory, ProviderSettings, Reply, Transport
    from llm.core.types import LLMRequest, LLMResponse, TokenUsage

    from .dialect import Dialect, EventReader

_MANY_VECTORS: Final = 256 * 1024  # bytes
_OK: Final = HTTPStatus.OK.value  # for every call; a look at an enum's member costs as much as a function
_TOO_MANY: Final = HTTPStatus.TOO_MANY_REQUESTS.value
_UNREAD: Final = b'{"message": "what it says did not come whole"}'


class HTTPProvider:
    """One key at one vendor. It sends once, never repeats and never waits for capacity."""

    def __init__(self, settings: ProviderSettings, dialect: Dialect, refused: RefusedWays | None = None) -> None:
        """Take the key, the way to the network, and the dialect for the settings' base URL.

        `refused` is what the keys of a section know together of the ways to ask for a `response_model`.

        Raises:
            LLMConfigurationError: The key holds characters that no header may.
        """
        self._name = settings.name
        self._clock = settings.clock
        self._transport: Transport = settings.transport
        self._dialect = dialect
        self._url = Address(dialect.url)
        self._embeddings = dialect.embeddings if isinstance(dialect, EmbeddingDialect) else None
        hidden = [value for value in settings.headers.values() if isinstance(value, Secret)]
        self._secrets = tuple(hidden) if settings.key is None else (settings.key, *hidden)
        self._key = None if settings.key is None else settings.key.fingerprint
        self._headers = joined(dialect.headers(settings.key), settings.headers)
        self._refused = RefusedWays() if refused is None else refused

    @classmethod
    def factory(cls, dialect: Callable[[str | None], Dialect]) -> ProviderFactory:
        """Return a factory of providers that speak `dialect`, which is made for a base URL."""
        refused = RefusedWays()
        return lambda settings: cls(settings, dialect(settings.base_url), refused)

    async def initialize(self) -> None:
        """Do nothing: the first call opens the connection."""

    async def complete(self, request: LLMRequest) -> LLMResponse:
        """Answer whole.

        Raises:
            LLMException: The one failure there was; nothing is repeated.
        """
        reply: Reply | None = None
        try:
            asked, by_tool = self._shaped(request)
            reply = await self._post(request, self._url, self._dialect.encode(asked, stream=False))
            response = self._dialect.decode(await self._answer(reply), provider=self._name, key=self._key)
            return unwrapped(response) if by_tool else response
        except LLMException as error:
            self._failed(error, request, reply)
            failure = bare(error)
        reply = None  # what came may repeat a key, and a traceback may show it
        raise failure

    async def stream(self, request: LLMRequest) -> LLMStream:
        """Return a stream whose first chunk is in hand.

        Raises:
            LLMException: It failed before; nothing is repeated.
        """
        try:
            return await self._begun(request)
        except LLMException as error:
            failure = bare(error)
        raise failure

    async def embed(self, request: LLMRequest) -> LLMResponse:
        """Return the vectors of `request.embed`.

        Raises:
            LLMException: The one failure there was; nothing is repeated.
        """
        try:
            return await self._vectors(request)
        except LLMException as error:
            failure = bare(error)
        raise failure

    async def send(
        self, method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a request that is no call, such as one of a batch API, with this key; return the answer, still unread.

        Args:
            method: HTTP method.
            url: Where to; a server that may have the key.
            body: Its body.
            headers: Headers that go before those of every request; names are in lower case.

        Raises:
            LLMException: There is no answer, or one with a failure's status.
        """
        reply: Reply | None = None
        try:
            reply = await self._send(method, Address(url), body, headers)
            if reply.status == _OK:
                return reply
            raise await self._failure(reply)
        except LLMException as error:
            self._tell(error, None, reply)
            failure = bare(error)
        raise failure

    def redacted(self, text: str) -> str:
        """Return a text of the vendor's, which may repeat a key, without its secrets."""
        return redact(text, self._secrets)

    @property
    def url(self) -> str:
        """Where it sends calls for answers."""
        return self._dialect.url

    @property
    def embedding_limits(self) -> EmbeddingLimits | None:
        """The most that one request for vectors may hold; None where the dialect has none."""
        return None if self._embeddings is None else self._embeddings.limits

    async def health_check(self) -> HealthStatus:
        """Ask for the list of models, which costs no tokens."""
        started = self._clock.now()
        reply: Reply | None = None
        try:
            reply = await self._send("GET", Address(self._dialect.health_url))
            await self._answer(reply)
        except LLMException as error:
            self._tell(error, None, reply)
            return HealthStatus(healthy=False, latency=self._clock.now() - started, error=str(error))
        return HealthStatus(healthy=True, latency=self._clock.now() - started)

    async def close(self) -> None:
        """Send nothing from now on; the transport is the manager's, and closed by it."""
        self._transport = ClosedTransport()

    def charge(self, request: LLMRequest, expected_output: int) -> Charge:
        """Return what the vendor charges at admission; `expected_output` stands in for a missing `max_tokens`."""
        return self._dialect.charge(request, expected_output)

    def used(self, usage: TokenUsage) -> Charge:
        """Return what an answer of this usage takes in the end."""
        return self._dialect.used(usage)

    async def _vectors(self, request: LLMRequest) -> LLMResponse:
        reply: Reply | None = None
        try:
            if self._embeddings is None:
                raise LLMInvalidRequestError("this kind of provider makes no embeddings; use one of type openai")
            reply = await self._post(request, Address(self._embeddings.url), self._embeddings.encode(request))
            body = await self._answer(reply)
            decode = partial(self._embeddings.decode, body, request, provider=self._name, key=self._key)
            # 2048 vectors of 1536 numbers are 17 MB and take a fifth of a second, in which other calls go on.
            return decode() if len(body) < _MANY_VECTORS else await asyncio.to_thread(decode)
        except LLMException as error:
            self._tell(error, request.model, reply)
            raise

    async def _begun(self, request: LLMRequest) -> LLMStream:
        reply: Reply | None = None
        try:
            asked, by_tool = self._shaped(request)
            reply = await self._post(request, self._url, self._dialect.encode(asked, stream=True))
            if reply.status != _OK or not _is_stream(reply):
                raise await self._no_stream(reply)
            events: EventReader = self._dialect.events()
            if by_tool:
                events = UnwrappedEvents(events)
            source = ReplyChunks(reply, events, self._clock, self._teller(request.model, reply))
            return await LLMStream(source, provider=self._name, key=self._key).begin()
        except LLMException as error:
            self._failed(error, request, reply)
            raise

    async def _post(self, request: LLMRequest, url: str, body: bytes) -> Reply:
        """Send a call, and note on its record what the answer's head says of the limits, however the answer goes on."""
        sent = self._clock.now()
        call = request.call
        carrier = None if call is None or call.trace is None else call.trace.carrier
        reply = await self._send("POST", url, body, carrier)
        if call is not None:
            call.heard = partial(self._reports, reply.headers, sent, self._clock.now(), reply.status)
        return reply

    def _reports(self, headers: Mapping[str, str], sent: float, came: float, status: int) -> tuple[LimitReport, ...]:
        wall = self._clock.wall() - (self._clock.now() - came)
        return self._dialect.reports(headers, Told(wall, came - sent, status == _TOO_MANY))

    def _shaped(self, request: LLMRequest) -> tuple[LLMRequest, bool]:
        """Return what to ask, and whether the answer comes as a call of the answer tool."""
        if request.response_model is None:
            return request, False
        ways = self._dialect.ways(request, shape_of(request.response_model))
        way = self._refused.choose(request, ways)
        return shaped(request, way, ways.schema), way is Way.TOOL

    def _failed(self, error: LLMException, request: LLMRequest, reply: Reply | None) -> None:
        self._tell(error, request.model, reply)
        if request.response_model is not None:
            ways = self._dialect.ways(request, shape_of(request.response_model))
            self._refused.learn(request, ways, error)

    def _send(
        self, method: str, url: str, body: bytes | None = None, carrier: Mapping[str, str] | None = None
    ) -> Awaitable[Reply]:
        headers = self._headers if carrier is None else Passing(self._headers, carrier)
        return self._transport.request(method, url, headers=headers, body=body)

    async def _answer(self, reply: Reply) -> bytes:
        if reply.status != _OK:
            raise await self._failure(reply)
        try:  # as `_read`, without a coroutine more
            return await reply.read()
        finally:
            reply.close()

    async def _no_stream(self, reply: Reply) -> LLMException:
        if reply.status != _OK:
            return await self._failure(reply)
        failure = read_failure(await _read(reply))
        if failure.message or failure.codes:
            return error_for(200, failure)
        return senseless(f"{_type_of(reply) or 'no content type'} where a stream of events was asked for")

    async def _failure(self, reply: Reply) -> LLMException:
        status = reply.status
        try:
            body = await _read(reply)
        except LLMException:
            if status < HTTPStatus.MULTIPLE_CHOICES:
                raise
            body = _UNREAD  # the status says what it is, all the same
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            host = _host_of(reply.headers.get("location", ""))
            return LLMInvalidRequestError(
                f"the provider redirects to {host}, which is not followed, for the key would go there; set base_url "
                "to where the provider is"
            )
        if status < HTTPStatus.MULTIPLE_CHOICES:
            return senseless(f"{len(body)} bytes under a status that is no answer")
        return error_for(status, read_failure(body))

    def _teller(self, model: str | None, reply: Reply) -> Callable[[LLMException], None]:
        return lambda error: self._tell(error, model, reply)

    def _tell(self, error: LLMException, model: str | None, reply: Reply | None) -> None:
        """Complete an error by what is known here, and take keys out of its words."""
        error.message = self.redacted(error.message)
        error.args = (error.message,)
        error.provider = self._name
        error.model = model
        error.key = self._key
        if reply is None:
            return
        headers = reply.headers
        error.status = error.status or reply.status
        told = error.request_id or headers.get("x-request-id") or headers.get("request-id")
        error.request_id = None if told is None else redact(told, self._secrets)
        if error.retry_after is None:
            error.retry_after = retry_after(headers, self._clock.wall())


async def _read(reply: Reply) -> bytes:
    try:
        return await reply.read()
    finally:
        reply.close()


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or "elsewhere"
    except ValueError:  # it is no address at all
        return "elsewhere"


def _type_of(reply: Reply) -> str:
    return reply.headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_stream(reply: Reply) -> bool:
    # Some servers that speak a dialect name no type at all; what they send is held to the closing event all the same.
    return _type_of(reply) in {"text/event-stream", ""}
