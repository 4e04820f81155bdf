"""The end of every chain: wait for a key that can pay, call through it, settle, and learn from what came.

One attempt, never more. Whatever happens, the lease goes back: nothing sent is refunded, what was sent stays charged.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn, TypeVar

from .bounds import Bound
from .call import Call, CallState, Charge, Ticket
from .embedding import check_embedding, embed
from .exceptions import (
    LLMAuthenticationError,
    LLMConnectionError,
    LLMException,
    LLMInvalidRequestError,
    LLMQuotaExceededError,
    LLMRateLimitError,
    LLMServerError,
    LLMTimeoutError,
)
from .foreign import FOREIGN_AS_OURS, as_ours
from .keys import KeyState, no_key_left
from .standing import HealthStatus
from .stream import LLMStream
from .types import LLMResponse, response_with

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from llm.utils.clock import Clock

    from .admitting import Admitting, Grant, Timeouts
    from .keys import Client, Key
    from .protocols import Provider
    from .settlement import Settlement
    from .stream import LLMResult
    from .types import LLMRequest, TokenUsage

_Told = TypeVar("_Told")

_logger = logging.getLogger("llm.keys")


class ReplacedError(Exception):
    """Ends the wait for keys in whose place others came; who waits goes on there."""


class Pool:
    """All keys of one provider; the `CallNext` at the end of its chain."""

    def __init__(  # noqa: PLR0913 - what a pool is made of, once
        self,
        provider: str,
        queue: Admitting,
        *,
        clock: Clock,
        timeouts: Timeouts,
        acquire_timeout: float | None,
        spawn: Callable[[Coroutine[object, object, None]], None],
        settlement: Settlement,
    ) -> None:
        """Make the pool.

        Args:
            provider: Section of the configuration.
            queue: Who may send, with which key.
            clock: Its time.
            timeouts: Seconds of one attempt.
            acquire_timeout: Seconds that a call may wait for a key; None for as long as its deadline allows.
            spawn: Runs what must not delay a call, such as closing a retired client.
            settlement: What an attempt took in the end.
        """
        self.provider: str = provider
        self.queue: Admitting = queue
        self._slots = queue.slots
        self._clock = clock
        self._timeouts = timeouts
        self._first_token = Bound(clock, timeouts.first_token)
        self._unary = Bound(clock, timeouts.attempt)
        self._acquire_timeout = acquire_timeout
        self._spawn = spawn
        self._settlement = settlement
        self._turn = -1  # of what takes no part in the limits
        self._followers: weakref.WeakSet[Pool] = weakref.WeakSet()

    async def __call__(self, request: LLMRequest) -> LLMResult:
        """Make one attempt.

        Raises:
            LLMException: It failed, or no key could take it.
        """
        call, model = request.call, request.model
        if call is None or model is None:
            raise LLMInvalidRequestError("a request reaches the pool through a client, which gives it call and model")
        if request.embed is not None:
            check_embedding(self._slots[0].key.client.provider, self.provider, model)
        if call.state is _CREATED:  # a chain without `rate_limit`: turns and concurrency only
            call.ticketed(self._clock.now(), Ticket(Charge(), model, call.user, call.priority, call.deadline))
        grant: Grant | None = None
        try:
            while grant is None:
                try:
                    grant = await (
                        self.queue.pay(call, timeout=self._acquire_timeout)
                        if call.patience is None
                        else self._paid_soon(call, call.patience)
                    )
                except ReplacedError:
                    continue
            return await self._attempt(request, call, model, grant)
        except BaseException as error:
            now = self._clock.now()
            # Without a provider's status it was our own encoder that refused: the request was never written.
            unwritten = isinstance(error, LLMInvalidRequestError) and error.status is None
            unsent = isinstance(error, (LLMConnectionError, LLMTimeoutError)) and not error.sent
            if (unsent or unwritten) and call.state is CallState.SENT:
                call.unsent(now, tried=not unwritten)
            if call.state in _LEASED:
                used = most = None
                if grant is not None:
                    used, most = self._settlement.in_vain(grant.charge, model, error)
                    grant.told(error, late=call.deadline is not None and now >= call.deadline)
                call.attempted(now, used, most)
            raise

    def follow(self, heir: Pool) -> None:
        """Have those who wait, and all who come, paid by the keys of the pool that takes this one's place."""
        old = self.queue
        for pool in (self, *self._followers):  # calls of pools that were replaced before may still run
            pool.queue = heir.queue
            heir._followers.add(pool)
        old.close(ReplacedError())

    def rest(self, model: str) -> float:
        """Return seconds until a key is not cooling, of those that the pool has today."""
        return self.queue.rest(model)

    def next_key(self, model: str) -> Key:
        """Return a key that may be used for `model`, by turns, for what takes no part in the limits.

        Raises:
            LLMInvalidRequestError: No key has the model; names those there are.
            LLMException: Every key that had it left the rotation; the kind of what the provider said.
        """
        slots = [slot for slot in self.queue.slots if slot.offers(model)]
        if not slots:
            self.queue.check(Ticket(Charge(requests=0), model))
        keys = list(dict.fromkeys(slot.key for slot in slots if slot.serves(model)))
        if not keys:
            raise no_key_left(self.provider, model, slots)
        self._turn += 1
        return keys[self._turn % len(keys)]

    async def ask_beside(self, key: Key, model: str, ask: Callable[[Provider], Awaitable[_Told]]) -> _Told:
        """Return what a key's provider answers to what takes no part in the limits.

        Raises:
            LLMException: It failed; a key that the provider refuses leaves the rotation.
        """
        client, retired = key.borrow()
        if retired is not None:
            self._close(retired)
        try:
            if not client.ready:
                await client.prepare()
            with FOREIGN_AS_OURS:
                return await ask(client.provider)
        except LLMException as error:
            self._name(error, key, model)
            self._take_out(error, key, model)
            raise
        finally:
            if (left := key.give_back(client)) is not None:
                self._close(left)

    async def health_check(self) -> HealthStatus:
        """Ask through every key at once; one healthy key is enough, and brings a refused key back."""
        answers = await self.ask(list(dict.fromkeys(slot.key for slot in self.queue.slots)))
        best = next((status for status in answers.values() if status.healthy), next(iter(answers.values())))
        told = "; ".join(f"{key.fingerprint}: {status.error}" for key, status in answers.items() if status.error)
        return HealthStatus(best.healthy, best.latency, None if best.healthy else told)

    def refused_keys(self) -> list[Key]:
        """Return the keys that the provider refused."""
        return list(dict.fromkeys(slot.key for slot in self.queue.slots if slot.key.state is KeyState.REJECTED))

    def try_again(self) -> None:
        """Let a call try each key without credit, and each model forbidden to a key, that is out for long enough."""
        opened = [key.look() for key in dict.fromkeys(slot.key for slot in self.queue.slots)]  # all of them
        if any(opened):
            self.queue.keys_changed()

    async def ask(self, keys: Sequence[Key]) -> dict[Key, HealthStatus]:
        """Ask through these keys at once how the provider is; a refused key that is healthy comes back."""
        async with asyncio.TaskGroup() as group:
            tasks = {key: group.create_task(_ask(key, self._clock)) for key in keys}
        answers = {key: task.result() for key, task in tasks.items()}
        for key, status in answers.items():
            if status.healthy and key.state is KeyState.REJECTED:
                key.restore()
                self.queue.keys_changed()
        return answers

    def close_idle(self, *, keep: int) -> None:
        """Close clients that nobody used for `pool.idle_timeout` seconds, but for `keep` of them.

        One in whose place no other can be made stays: the call that needs another tells why.
        """
        open_ = [key for key in dict.fromkeys(slot.key for slot in self.queue.slots) if key.client.ready]
        for key in open_[keep:]:
            with suppress(LLMException):
                if (idle := key.retire_idle()) is not None:
                    self._close(idle)

    async def close(self) -> None:
        """Close every key's client."""
        clients = {slot.key.client for slot in self._slots}
        for client in clients:
            await self._shut(client)

    async def _paid_soon(self, call: Call, patience: float) -> Grant:
        began = self._clock.now()
        try:
            async with self._clock.timeout(patience):
                return await self.queue.pay(call, timeout=self._acquire_timeout)
        except TimeoutError:
            message = f"no key of {self.provider!r} was free in the seconds of global.fallback_after"
            raise LLMTimeoutError(message, phase="pool", sent=False) from None
        finally:
            call.patience = max(0.0, patience - (self._clock.now() - began))

    async def _attempt(self, request: LLMRequest, call: Call, model: str, grant: Grant) -> LLMResult:
        key = grant.slot.key
        client, retired = key.borrow()
        if retired is not None:
            self._close(retired)
        stream: LLMStream | None = None
        try:
            if not client.ready:
                await client.prepare()
            call.sent(self._clock.now())
            result = await self._send(client.provider, request)
            grant.succeeded()
            if key.trials and key.served(call):
                self.queue.keys_changed()
            if call.heard is not None:
                grant.learn(call.heard)
            if isinstance(result, LLMStream):
                stream = result
                return self._streaming(stream, request, call, grant, client)
            used = self._used(client, model, result.usage, result.cost)
            grant.told(None)
            call.attempted(self._clock.now(), used)
            return self._signed(result, key)
        except LLMException as error:
            if call.heard is not None:
                grant.learn(call.heard, closely=True)
            self._learn(error, grant, call, model)
            raise
        finally:
            if key.trials and key.undecided(call):
                self.queue.keys_changed()
            # A stream's end gives the client back itself.
            if stream is None and (left := key.give_back(client)) is not None:
                self._close(left)

    async def _send(self, provider: Provider, request: LLMRequest) -> LLMResult:
        bound = self._first_token if request.stream else self._unary
        scope = bound.scope()
        try:
            with scope:
                if request.embed is not None:
                    return await embed(provider, request, request.embed)
                result: object = await (provider.stream(request) if request.stream else provider.complete(request))
                if isinstance(result, (LLMResponse, LLMStream)):  # pyright: ignore[reportUnnecessaryIsInstance]
                    return result
                _no_answer(result)
        except LLMException:
            raise
        except Exception as error:
            if not (scope.ended and isinstance(error, TimeoutError)):
                raise as_ours(error) from error
        if request.stream:
            message = f"no first chunk came within {bound.seconds:g} seconds (timeouts.first_token)"
            raise LLMTimeoutError(message, phase="first_token", retryable=True)
        message = f"no answer came within {bound.seconds:g} seconds (timeouts.attempt)"
        raise LLMTimeoutError(message, phase="total", retryable=True)

    def _streaming(self, stream: LLMStream, request: LLMRequest, call: Call, grant: Grant, client: Client) -> LLMStream:
        call.answering(self._clock.now())
        stream.provider, stream.key = self.provider, grant.slot.key.fingerprint
        stream.watch(self._clock, idle=self._timeouts.idle, deadline=call.deadline)

        def ended(_: object, error: BaseException | None) -> None:
            model = request.model or ""
            if isinstance(error, LLMException):  # first, so that who waits is not let go to a key that must rest
                self._learn(error, grant, call, model)
            try:
                if call.state is CallState.ANSWERING:
                    grant.told(error)
                    usage, paid = stream.usage, grant.charge
                    if usage is not None:
                        call.attempted(self._clock.now(), self._used(client, model, usage, stream.cost))
                    else:
                        call.attempted(self._clock.now(), *self._settlement.cut(paid, model, stream.all_text))
            finally:  # a provider's code may fail at its own usage
                if (left := grant.slot.key.give_back(client)) is not None:
                    self._close(left)

        stream.foreign = True
        stream.on_end(ended)
        return stream

    def _learn(self, error: LLMException, grant: Grant, call: Call, model: str) -> None:
        """Note where it failed, and take out of the rotation what the provider refuses."""
        slot = grant.slot
        self._name(error, slot.key, model)
        if isinstance(error, LLMRateLimitError):
            slot.key.refusal = error.message
            seconds = grant.refused(error.retry_after)
            call.note(self._clock.now(), "refused", (slot.key.fingerprint, seconds))
        else:
            call.note(self._clock.now(), "failed", (slot.key.fingerprint, type(error).__name__, error.status))
            self._take_out(error, slot.key, model, call)

    def _name(self, error: LLMException, key: Key, model: str) -> None:
        error.provider = error.provider or self.provider
        error.model = error.model or model
        error.key = error.key or key.fingerprint
        key.hide_in(error)  # which a provider's own code may tell

    def _take_out(self, error: LLMException, key: Key, model: str, call: Call | None = None) -> None:
        match error:
            case LLMQuotaExceededError():
                key.refuse(error, state=KeyState.OUT_OF_CREDIT, call=call)
            case LLMAuthenticationError():
                key.refuse(error, model=model if error.model_only else None, call=call)
            case _:
                return
        self.queue.keys_changed()
        error.retryable = self.queue.usable(model)  # another key may serve where this one cannot

    def _signed(self, response: LLMResponse, key: Key) -> LLMResponse:
        if response.provider == self.provider and response.key == key.fingerprint:
            return response
        return response_with(response, provider=self.provider, key=key.fingerprint)

    def _used(self, client: Client, model: str, usage: TokenUsage, cost: float | None) -> Charge | None:
        try:  # for every call, so without the steps of a scope
            return self._settlement.answered(client.used(usage), usage, model, cost)
        except LLMException:
            raise
        except Exception as error:  # what the provider's code made of it is no answer
            raise as_ours(error) from error

    def _close(self, client: Client) -> None:
        self._spawn(self._shut(client))

    async def _shut(self, client: Client) -> None:
        try:
            await client.provider.close()
        except Exception:
            _logger.exception("a client of %r failed as it was closed", self.provider)


_CREATED = CallState.CREATED  # here once, as in `call`
_LEASED = frozenset({CallState.PAID, CallState.SENT, CallState.ANSWERING})


async def _ask(key: Key, clock: Clock) -> HealthStatus:
    started = clock.now()
    try:
        await key.client.prepare()
        with FOREIGN_AS_OURS:
            status: object = await key.client.provider.health_check()
    except LLMException as error:
        key.hide_in(error)
        return HealthStatus(healthy=False, error=str(error))
    if not isinstance(status, HealthStatus):  # pyright: ignore[reportUnnecessaryIsInstance]  # it is anybody's code
        return HealthStatus(healthy=False, error=f"health_check returned {_kind(status)}; return a HealthStatus")
    return status if status.latency is not None else replace(status, latency=clock.now() - started)


def _no_answer(result: object) -> NoReturn:
    raise LLMServerError(
        f"the provider's code returned {_kind(result)}; return an LLMResponse from complete, an LLMStream from stream",
        retryable=False,
    )


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
