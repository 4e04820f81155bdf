"""The way to the server: one script, sent in pipelines, and one subscription; on one server or on a cluster."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pkgutil import get_data
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias
from urllib.parse import unquote, urlsplit

from llm.core.exceptions import LLMConfigurationError
from llm.limits.ledger import StoreLostError
from llm.utils.redact import Secret, redact

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from redis.asyncio import Redis, RedisCluster

    from llm.utils.clock import Clock

_CONNECT: Final = 1.0  # seconds
_ANSWER: Final = 1.0  # seconds
_CLOSE: Final = 1.0  # seconds
_SCRIPT: Final = get_data("llm.limits.redis", "ledger.lua") or b""  # read here, since no loop may wait for a file
_SHA: Final = hashlib.sha1(_SCRIPT, usedforsecurity=False).hexdigest()

Message: TypeAlias = tuple[tuple[str, ...], tuple[str | bytes | int, ...]]
"""What the script is given: keys, all of one slot, and arguments."""


class Link:
    """A connection to the store, made when it is first needed. Its address is a secret."""

    def __init__(self, url: str, clock: Clock) -> None:
        """Keep the address; nothing is connected yet.

        Raises:
            LLMConfigurationError: The package that speaks to a Redis is missing, or the address is none.
        """
        try:
            import redis
            from redis.asyncio.connection import parse_url
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError:
            raise LLMConfigurationError(
                "limits.store: redis needs redis, which is not installed; type: pip install 'llm-manifold[redis]'"
            ) from None
        self._url = Secret(url)
        self._hidden = (self._url, *_passwords(url))
        self._clock = clock
        self._client: Redis | RedisCluster | None = None
        with suppress(ValueError):
            parse_url(url)
            # Whoever asks does so again, where it is worth it. What the package is, which it reads from files for each
            # connection, no server needs to know; how to say so differs with its version.
            unnamed = ("driver_info",) if hasattr(redis, "driver_info") else ("lib_name", "lib_version")
            self._options: dict[str, Any] = {
                "socket_connect_timeout": _CONNECT,
                "socket_timeout": None,
                "retry": Retry(NoBackoff(), 0),
                "protocol": 2,
                **dict.fromkeys(unnamed),
            }
            self._redis = redis.asyncio.Redis
            return
        raise LLMConfigurationError("limits.url: not the address of a Redis, as redis://host:6379/0 or rediss://… is")

    async def run(self, messages: Sequence[Message]) -> list[Any]:
        """Send them to the script all at once, and return its answers.

        Raises:
            StoreLostError: Some were not answered in time, or not well; any may have been heard all the same.
        """
        try:
            client = self._client or await self._connect()
            async with self._clock.timeout(_ANSWER):
                return await self._answers(client, messages)
        except Exception as error:  # noqa: BLE001 - whatever the package raises: nothing of it counts
            await self.close()
            raise self._lost(error) from None

    async def listen(self, channel: str, began: Callable[[], None], heard: Callable[[bytes], None]) -> NoReturn:
        """Tell what is published there, on a connection of its own; `began`: from now on nothing is missed.

        Raises:
            StoreLostError: It cannot be made, or broke.
        """
        listener = self._redis.from_url(self._place(), **self._options)
        subscription = listener.pubsub()
        try:
            async with self._clock.timeout(_ANSWER):
                await subscription.subscribe(channel)  # which only sends it
                await subscription.get_message(timeout=None)  # the server's word that it was heard
            began()
            while True:
                message = await subscription.get_message(timeout=None)
                if message is not None and isinstance(message["data"], bytes):
                    heard(message["data"])
        except Exception as error:  # noqa: BLE001 - whatever the package raises: nothing is heard any more
            raise self._lost(error) from None
        finally:
            await self._end(subscription.aclose, listener.aclose)

    async def close(self) -> None:
        """Let go the connection; the next message makes a new one."""
        client, self._client = self._client, None
        if client is not None:
            await self._end(client.aclose)

    async def _connect(self) -> Redis | RedisCluster:
        from redis.asyncio import RedisCluster

        async with self._clock.timeout(_CONNECT):
            self._client = client = self._redis.from_url(self._url.reveal(), **self._options)
            told = await client.info("server")
        if told.get("redis_mode", told.get("server_mode")) != "cluster":
            return client
        await self.close()
        async with self._clock.timeout(_CONNECT):
            self._client = cluster = RedisCluster.from_url(self._url.reveal(), **self._options)
            await cluster.initialize()
        return cluster

    async def _answers(self, client: Redis | RedisCluster, messages: Sequence[Message]) -> list[Any]:
        from redis.exceptions import NoScriptError

        answers = await _pipelined(client, "EVALSHA", _SHA, messages)
        unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            again = await _pipelined(client, "EVAL", _SCRIPT, [messages[at] for at in unknown])
            for at, answer in zip(unknown, again, strict=True):
                answers[at] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def _place(self) -> str:
        """Return the address of a server that can be listened to: on a cluster, of any that serves."""
        url, client = self._url.reveal(), self._client
        if client is None or isinstance(client, self._redis):
            return url
        parts, node = urlsplit(url), client.get_random_node()
        host = f"[{node.host}]" if ":" in node.host else node.host
        return parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@{host}:{node.port}".lstrip("@")).geturl()

    def _lost(self, error: Exception) -> StoreLostError:
        reason = redact(" ".join(str(error).split()), self._hidden) or "no answer in time"
        return StoreLostError(f"the store of limits cannot be used: {type(error).__name__}: {reason}")

    async def _end(self, *closing: Callable[[], Awaitable[None]]) -> None:
        for close in closing:
            with suppress(Exception):
                async with self._clock.timeout(_CLOSE):
                    await close()


async def _pipelined(
    client: Redis | RedisCluster, command: str, script: str | bytes, messages: Sequence[Message]
) -> list[Any]:
    if len(messages) == 1:  # as most do; a pipeline of one costs half as much again
        [(keys, words)] = messages
        try:
            return [await client.execute_command(command, script, len(keys), *keys, *words)]
        except Exception as error:  # noqa: BLE001 - as a pipeline does, for whoever sent it to see
            return [error]
    pipeline = client.pipeline(transaction=False)
    for keys, words in messages:
        pipeline.execute_command(command, script, len(keys), *keys, *words)
    return await pipeline.execute(raise_on_error=False)


def _passwords(url: str) -> list[Secret]:
    """Return what must not be shown of an address, as it is written there and as it is meant."""
    userinfo = url.partition("://")[2].rpartition("@")[0]
    password = userinfo.partition(":")[2]
    return [Secret(text) for text in {userinfo, password, unquote(password)} if text]
