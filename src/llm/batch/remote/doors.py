"""The keys through which a vendor's batch API is asked, by turns."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from llm.core.exceptions import LLMConfigurationError, LLMTimeoutError
from llm.core.keys import no_key_left
from llm.providers.base import HTTPProvider
from llm.providers.wire import read_object

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from llm.core.exceptions import LLMException
    from llm.core.keys import Key
    from llm.core.pool import Pool
    from llm.core.protocols import Reply
    from llm.utils.clock import Clock


class Door:
    """One key, and the vendor behind it."""

    def __init__(self, provider: str, key: Key, clock: Clock) -> None:
        """Ask with a key of a provider."""
        self.provider: str = provider
        self._key = key
        self._clock = clock

    @property
    def fingerprint(self) -> str:
        """Name of the key that may be shown."""
        return self._key.fingerprint

    def redacted(self, text: str) -> str:
        """Return what the vendor said, without the key."""
        provider = self._key.client.provider
        return provider.redacted(text) if isinstance(provider, HTTPProvider) else text

    async def ask(
        self,
        method: str,
        url: str,
        *,
        seconds: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Ask for a JSON object.

        Raises:
            LLMException: It failed, or took longer than `seconds`.
        """
        async with self._borrowed() as provider:
            try:
                async with self._clock.timeout(seconds):
                    reply = await provider.send(method, url, body, headers)
                    try:
                        return read_object(await reply.read())
                    finally:
                        reply.close()
            except TimeoutError:
                raise self._late(f"no answer came within {seconds:g} seconds") from None

    async def lines(self, url: str, *, seconds: float) -> AsyncGenerator[bytes, None]:
        """Yield the lines of a file, as they come, with the memory of one.

        Raises:
            LLMException: It failed, or nothing came for `seconds`.
        """
        async with self._borrowed() as provider:
            reply = await self._opened(provider, url, seconds)
            try:
                held: list[bytes] = []
                while data := await self._chunk(reply, seconds):
                    first, *others = data.split(b"\n")
                    held.append(first)
                    if others:
                        yield b"".join(held)
                        for line in others[:-1]:
                            yield line
                        held = [others[-1]]
                if any(held):
                    yield b"".join(held)
            finally:
                reply.close()

    async def _opened(self, provider: HTTPProvider, url: str, seconds: float) -> Reply:
        try:
            async with self._clock.timeout(seconds):
                return await provider.send("GET", url)
        except TimeoutError:
            raise self._late(f"no results came within {seconds:g} seconds") from None

    async def _chunk(self, reply: Reply, seconds: float) -> bytes:
        try:
            async with self._clock.timeout(seconds):
                return await reply.chunk()
        except TimeoutError:
            raise self._late(f"nothing more of the results came for {seconds:g} seconds") from None

    def _late(self, said: str) -> LLMTimeoutError:
        message = f"{said}; it can be asked again"
        return LLMTimeoutError(message, phase="total", provider=self.provider, key=self.fingerprint, retryable=True)

    @asynccontextmanager
    async def _borrowed(self) -> AsyncGenerator[HTTPProvider]:
        client, retired = self._key.borrow()
        try:
            if retired is not None:
                await retired.provider.close()
            await client.prepare()
            provider = client.provider
            if not isinstance(provider, HTTPProvider):
                raise LLMConfigurationError(f"{self.provider!r} has no batch API that could be asked")
            yield provider
        finally:
            ended = self._key.give_back(client)
            if ended is not None:
                await ended.provider.close()


class Doors:
    """The keys of one provider."""

    def __init__(self, provider: str, pool: Pool, clock: Clock) -> None:
        """Take the keys of a pool; its limits are those of calls, and do not hold for batches."""
        self._provider = provider
        self._slots = pool.queue.slots
        keys = {slot.key.fingerprint: slot.key for slot in self._slots}
        self._doors = {name: Door(provider, key, clock) for name, key in keys.items()}
        self._shut: dict[str, LLMException] = {}
        self._turn = 0

    def next(self, model: str, before: str | None = None) -> Door:
        """Return the key whose turn it is, of those that may use a model; the one `before`, where that may.

        Raises:
            LLMException: None is left; says why.
        """
        offering = [slot for slot in self._slots if slot.offers(model)]
        able = dict.fromkeys(
            slot.key.fingerprint
            for slot in offering
            if slot.key.serves(model) and slot.key.fingerprint not in self._shut
        )
        if not able:
            refused = [self._shut[slot.key.fingerprint] for slot in offering if slot.key.fingerprint in self._shut]
            raise refused[0] if refused else no_key_left(self._provider, model, offering)
        names = [before] if before in able else list(able)
        self._turn += before not in able
        return self._doors[names[(self._turn - 1) % len(names)]]

    def named(self, fingerprint: str | None) -> list[Door]:
        """Return the key of this name, and behind it the others, any of which may see the same batches."""
        first = [door for name, door in self._doors.items() if name == fingerprint]
        return first + [door for name, door in self._doors.items() if name != fingerprint]

    def shut(self, door: Door, error: LLMException) -> None:
        """Submit nothing more with a key in this run."""
        self._shut[door.fingerprint] = error
