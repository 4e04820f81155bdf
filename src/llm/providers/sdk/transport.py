"""`SDKTransport`: requests that the vendor's own client has addressed and signed."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import httpx2

from llm.core.exceptions import LLMConnectionError, LLMException, LLMInvalidRequestError
from llm.providers.frames import bare

from .line import outcome_of
from .replies import BedrockReply, Reached

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anthropic import AsyncAnthropic
    from anthropic.lib.bedrock import AsyncAnthropicBedrock
    from anthropic.lib.vertex import AsyncAnthropicVertex
    from openai import AsyncOpenAI

    from llm.core.protocols import Reply

_CREDENTIALS: Final = frozenset({"authorization", "x-api-key"})
_VERSION: Final = "anthropic-version"


class Vendor(NamedTuple):
    """A client, and what must be known to speak through it.

    Attributes:
        client: The vendor's.
        error: What it raises of itself.
        root: Address that the dialect puts its paths behind, which the client puts behind its own.
        rewrites: It reads the body, and may write another in its place.
        version: What the body says of Anthropic's wire format where the platform wants it there.
        frames: Its streams come in AWS's binary frames.
        lists: It can list its models.
    """

    client: AsyncOpenAI | AsyncAnthropic | AsyncAnthropicBedrock | AsyncAnthropicVertex
    error: type[Exception]
    root: str
    rewrites: bool = False
    version: str | None = None
    frames: bool = False
    lists: bool = True


class SDKTransport:
    """A `Transport` for one key: the vendor's client writes each request, and our own connections carry it.

    The client's retries, time-outs, redirects and exceptions never come into play, for it sees no answer.
    """

    def __init__(self, vendor: Vendor, *, hidden: frozenset[str] = frozenset()) -> None:
        """Speak through the vendor's client; `hidden` are names of headers that the client must not see."""
        self._vendor = vendor
        left = _CREDENTIALS if vendor.version is None else _CREDENTIALS | {_VERSION}
        self._left = left | hidden
        self._closed = False

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        """Send once and return when the answer's head is there.

        Raises:
            LLMInvalidRequestError: The vendor's client will not send it.
            LLMConnectionError: No answer, or no credentials to ask with; `.sent` tells whether it may have arrived.
            LLMTimeoutError: No connection within the connect time.
        """
        if self._closed:
            raise LLMConnectionError("the transport is closed already; open a new manager", sent=False, retryable=False)
        failure: BaseException
        try:
            response = await self._write(method, url.removeprefix(self._vendor.root), self._passed_on(headers), body)
            return self._reply(method, outcome_of(response))
        except LLMException as error:
            failure = bare(error)
        except Exception as error:  # noqa: BLE001 - whatever the client, and what it asks for credentials, may raise
            failure = self._unwritten(error)
        except BaseException as error:  # noqa: BLE001 - raised below, without the frames that hold the key
            failure = bare(error)
        raise failure

    async def close(self) -> None:
        """Close the client; the connections are the manager's."""
        self._closed = True
        await self._vendor.client.close()

    async def _write(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> httpx2.Response:
        client = self._vendor.client
        options: Any = {"headers": headers}
        if method == "GET":
            return await client.get(path, cast_to=httpx2.Response, options=options)
        if self._vendor.rewrites:
            return await client.post(path, cast_to=httpx2.Response, body=self._read(body), options=options)
        return await client.post(path, cast_to=httpx2.Response, content=body, options=options)

    def _read(self, body: bytes | None) -> dict[str, Any]:
        # Not by orjson, which reads whole numbers beyond 64 bits, such as a tool was called with, as fractions.
        read: dict[str, Any] = json.loads(body or b"{}")
        if self._vendor.version is not None:
            read.setdefault("anthropic_version", self._vendor.version)
        return read

    def _passed_on(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return what our dialect says that the client does not say itself, and better."""
        return {name: headers[name] for name in headers if name.lower() not in self._left}

    def _reply(self, method: str, reply: Reply) -> Reply:
        vendor = self._vendor
        if method == "GET" and not vendor.lists and reply.status == HTTPStatus.NOT_FOUND:
            return Reached(reply)
        return BedrockReply(reply) if vendor.frames else reply

    def _unwritten(self, error: Exception) -> LLMException:
        name = type(self._vendor.client).__name__
        if isinstance(error, self._vendor.error):
            return LLMInvalidRequestError(f"{name} does not send the request: {' '.join(str(error).split())}")
        return LLMConnectionError(
            f"{name} could not write the request: {type(error).__name__}; check its credentials, and that it can reach "
            "who gives them",
            sent=False,
        )
