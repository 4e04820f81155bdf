"""What comes on a connection: requests parsed, within bounds on their heads and bodies."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import unquote

import httptools

from .connection import Connection, Phase
from .cycle import Cycle
from .guards import MOST_DISCARDED, MOST_HEAD, MOST_HEADERS, MOST_PIPELINED, MOST_TARGET
from .refusal import Refusal

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

_NOTED: Final = frozenset({b"host", b"expect", b"content-length", b"transfer-encoding"})
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_NO_HTTP: Final = Refusal(400, "this is no valid HTTP request")


class _StopError(Exception):
    """A request is refused in the middle of its parsing."""


class HTTPConnection(Connection, asyncio.BufferedProtocol):  # pyright: ignore[reportIncompatibleMethodOverride] # uvicorn narrows a transport
    """A client's connection, as far as it speaks HTTP/1.1 or 1.0.

    What comes is read into memory that all connections share: it is taken out at once.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """As `Connection`."""
        super().__init__(config, server_state, app_state, _loop)
        self._parser = self.parser = httptools.HttpRequestParser(self)  # uvicorn's is lenient, which ours is not
        self._refusal = _NO_HTTP
        self._passed = False  # whether a request ended in the data at hand
        self._head = 0  # bytes of the head that were parsed
        self._raw = 0  # bytes that came of it before
        self._body = 0
        self._unparsed = 0  # bytes of a body that the parser is not to see
        self._noted: dict[bytes, bytes] = {}
        self._discarded = 0

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the parser, which knows this connection, so that both are gone at once."""
        super().connection_lost(exc)
        vars(self).pop("_parser", None)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where to put what comes."""
        del sizehint
        return self.state.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what came."""
        self.data_received(self.state.buffer[:nbytes])

    def data_received(self, data: bytes | memoryview) -> None:
        """Take what the client sent, as far as it is its turn; `data` is not needed any more on return."""
        if self.phase in (Phase.CLOSING, Phase.REFUSED):
            self._discarded += len(data)
            if self._discarded > MOST_DISCARDED:
                self.abort()
        elif self._unparsed:
            self._take_unparsed(data)
        else:  # of a later request, too, while one is answered: who reads on hears when the client leaves
            self._feed(data)

    def _take_unparsed(self, data: bytes | memoryview) -> None:
        """Take the body of a request that wished for another protocol: the parser leaves off at its head.

        Clients of Java ask for HTTP/2 with their first request, and go on with HTTP/1.1 where they are not heard.
        """
        body, rest = data[: self._unparsed], data[self._unparsed :]
        self._unparsed -= len(body)
        self.on_body(bytes(body))
        if not self._unparsed:
            self.on_message_complete()
        if rest:
            self.data_received(rest)

    def _wait_for_head(self) -> None:
        self.phase = Phase.HEAD
        self.due = self._now() + self.state.guards.header_timeout
        self._raw = 0

    def _feed(self, data: bytes | memoryview) -> None:
        self._passed = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._is_web_socket():
                self._upgrade()
            elif rest := data[upgrade.args[0] :]:
                self.data_received(rest)
            return
        except httptools.HttpParserError:
            self._refuse(self._refusal)
            return
        if self.phase is Phase.HEAD and not self._passed:
            self._raw += len(data)
            if self._raw > MOST_HEAD:
                self._refuse(Refusal(431, "the head of the request is too large"))

    def _stop(self, status: int, why: str) -> NoReturn:
        self._refusal = Refusal(status, why)
        raise _StopError

    def on_message_begin(self) -> None:
        """Begin a request."""
        if len(self._waiting) >= MOST_PIPELINED:
            self._stop(503, "too many requests at once on one connection; wait for an answer")
        self.url = b""
        self.headers = []
        self._head = self._body = 0
        if self._noted:
            self._noted = {}
        if self.phase is not Phase.HEAD:
            self._wait_for_head()

    def on_url(self, url: bytes) -> None:
        """Take a part of its target."""
        self.url += url
        if len(self.url) > MOST_TARGET:
            self._stop(414, f"the path is longer than {MOST_TARGET} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; one that follows the body counts, and is not looked at."""
        self._head += len(name) + len(value) + 4
        if self._head > MOST_HEAD:
            self._stop(431, f"the head of the request is larger than {MOST_HEAD} bytes")
        if self.phase is not Phase.HEAD:
            return
        name = name.lower()
        if name in _NOTED:
            if name in self._noted:
                self._stop(400, f"the request has the header {name.decode()} twice")
            self._noted[name] = value
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Have the request answered, where it may be; its body may still be on the way."""
        parser, noted, version = self._parser, self._noted, self._parser.get_http_version()
        upgrades = parser.should_upgrade()
        self._check_head(version, upgrades=upgrades)
        scope = self.scope = self._scope(version)
        if upgrades and self._should_upgrade():
            if self._answering is not None:
                self._stop(400, "a WebSocket cannot begin before the request ahead of it is answered")
            return
        guards = self.state.guards
        length = int(noted.get(b"content-length", b"0"))
        if length > guards.max_body_bytes:
            self._too_large()
        self._unparsed = length if upgrades else 0
        self.phase = Phase.BODY
        self.due = self._now() + guards.body_timeout
        cycle = self._newest = Cycle(
            scope,
            transport=self.transport,
            flow=self.flow,
            state=self.state,
            expects=version == "1.1" and noted.get(b"expect", b"").lower() == b"100-continue",
            keep_alive=version == "1.1" and parser.should_keep_alive(),
            answered=self._answered,
        )
        if self._answering is None:
            self._answer(cycle)
        else:
            self._waiting.appendleft(cycle)

    def _is_web_socket(self) -> bool:
        return self._parser.should_upgrade() and self._should_upgrade()

    def _too_large(self) -> None:
        most = self.state.guards.max_body_bytes
        self._stop(413, f"the body is larger than {most} bytes (gateway.max_body_bytes); send a smaller one")

    def _check_head(self, version: str, *, upgrades: bool) -> None:
        """Refuse a head that means nothing certain."""
        if len(self.headers) > MOST_HEADERS:
            self._stop(431, f"the request has more than {MOST_HEADERS} headers")
        if version == "1.1" and b"host" not in self._noted:
            self._stop(400, "a request names its Host")
        if version not in {"1.1", "1.0"}:
            self._stop(505, "expected HTTP/1.1 or HTTP/1.0")
        coding = self._noted.get(b"transfer-encoding")
        if coding is not None and (coding.lower() != b"chunked" or version == "1.0" or upgrades):
            self._stop(501, "of transfer codings this gateway knows `chunked` alone, in HTTP/1.1")

    def _scope(self, version: str) -> Any:  # noqa: ANN401 - ASGI's
        raw, _, query = self.url.partition(b"?")
        if raw[:1] != b"/":  # a whole address, as a proxy is asked, or none
            url = httptools.parse_url(self.url)
            raw, query = url.path, url.query or b""
        path = raw.decode("ascii")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": self._parser.get_method().decode("ascii"),
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw,
            "query_string": query,
            "headers": self.headers,
        }

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body += len(body)
        if self._body > self.state.guards.max_body_bytes:
            self._too_large()
        if self._newest is not None:
            self._newest.take(body)

    def on_message_complete(self) -> None:
        """Know that the request is whole."""
        self._passed = True
        if self._newest is None or self.phase is not Phase.BODY or self._unparsed:
            return  # a WebSocket begins, or the body is still to come
        self.phase = Phase.ANSWER
        self.due = math.inf
        self._newest.whole()
        self.flow.resume_reading()

    def _upgrade(self) -> None:
        self.state.watched.discard(self)
        self.handle_websocket_upgrade()
        self.parser = None  # type: ignore[assignment] # as uvicorn has it
        del self._parser
