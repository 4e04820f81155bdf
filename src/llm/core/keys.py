"""A key: its provider, kept warm and made anew in time, and whether it may be used."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from llm.utils.redact import redact

from .call import Charge
from .exceptions import LLMAuthenticationError, LLMPoolExhaustedError
from .foreign import FOREIGN_AS_OURS
from .protocols import Charging
from .trial import Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from llm.utils.clock import Clock
    from llm.utils.redact import Secret

    from .call import Call
    from .exceptions import LLMException
    from .protocols import Provider
    from .types import TokenUsage


_REASON_CHARS: Final = 200

_logger = logging.getLogger("llm.keys")


class KeyState(StrEnum):
    """Whether a key takes part in the rotation."""

    AVAILABLE = "available"
    OUT_OF_CREDIT = "out_of_credit"
    REJECTED = "rejected"


_AVAILABLE: Final = KeyState.AVAILABLE  # here once, as in `call`


class Key:
    """One key of a provider and the client that calls through it.

    The client is initialised before its first call. When it has been idle for `idle_timeout` seconds or has lived for
    `max_lifetime`, the next call makes a new one, and the old one closes when its last call has ended.

    Attributes:
        fingerprint: Name of the key that may be shown.
        state: Whether it takes part.
        forbidden: Models that it may not use.
        error: Why it left the rotation.
        trials: When it, as None, or a model on it is tried again by a call: what a health check cannot tell.
        refusal: What the provider said when it last refused the key for a limit.
        calls: Calls in flight on it.
    """

    def __init__(  # noqa: PLR0913 - what a key is made of, once
        self,
        fingerprint: str,
        make: Callable[[], Provider],
        *,
        clock: Clock,
        idle_timeout: float,
        max_lifetime: float,
        secret: Secret | None = None,
    ) -> None:
        """Make the first client; nothing is opened yet. `secret` is what must not be told of it."""
        self.fingerprint: str = fingerprint
        self.state: KeyState = KeyState.AVAILABLE
        self.forbidden: set[str] = set()
        self.error: LLMException | None = None
        self.trials: dict[str | None, Trial] = {}
        self.refusal: str | None = None
        self.calls: int = 0
        self._make = make
        self._clock = clock
        self._idle_timeout = idle_timeout
        self._max_lifetime = max_lifetime
        self._secrets = () if secret is None else (secret,)
        self.client: Client = Client(make(), clock.now())

    def serves(self, model: str) -> bool:
        """Return whether it may be used for `model`."""
        if self.state is _AVAILABLE and model not in self.forbidden:
            return True
        return bool(self.trials) and self._may_try(model)

    def refuse(
        self,
        error: LLMException,
        *,
        model: str | None = None,
        state: KeyState = KeyState.REJECTED,
        call: Call | None = None,
    ) -> None:
        """Leave the rotation, or only its part for `model`; `call` is the one that was refused."""
        known = model in self.forbidden if model is not None else self.state is state
        self.error = error
        if model is not None:
            self.forbidden.add(model)
        else:
            self.state = state
        if model is None and state is KeyState.REJECTED:  # a health check tells when that is over
            self.trials.pop(None, None)
        elif model in self.trials:
            self.trials[model].refused(self._clock.now(), call)
        else:
            self.trials[model] = Trial(self._clock.now())
        if not known:
            what = state.value if model is None else f"not for {model}"
            _logger.warning("key %s left the rotation, %s: %s", self.fingerprint, what, self.reason(cooling=False))

    def tried_by(self, call: Call, model: str) -> None:
        """Know that `call` finds out whether what kept the key from serving `model`, if anything did, is over."""
        for part in self._out(model):
            self.trials[part].begin(call)
            call.note(self._clock.now(), "trial", self.fingerprint)

    def served(self, call: Call) -> bool:
        """Take part again with what `call` tried and was served with; return whether there was such."""
        parts = [part for part, trial in self.trials.items() if trial.is_of(call)]
        for part in parts:
            del self.trials[part]
            if part is None:
                self.state = KeyState.AVAILABLE
            else:
                self.forbidden.discard(part)
            what = "" if part is None else f" for {part}"
            _logger.info("key %s is in the rotation again%s", self.fingerprint, what)
        if self.state is KeyState.AVAILABLE and not self.forbidden:
            self.error = None
        return bool(parts)

    def undecided(self, call: Call) -> bool:
        """Let the next call try what `call` did, where it found nothing out; return whether there was such."""
        tried = [trial.undecided(call) for trial in self.trials.values()]  # all of them
        return any(tried)

    def look(self) -> bool:
        """Let a call try what was refused long enough ago; return whether there is anything new."""
        now = self._clock.now()
        opened = [trial.look(now) for trial in self.trials.values()]  # all of them
        return any(opened)

    def hide_in(self, error: LLMException) -> None:
        """Take the key out of an error's words, and a cause with it that may repeat them."""
        told = redact(error.message, self._secrets)
        if told != error.message:
            error.message, error.args, error.__cause__ = told, (told,), None

    def reason(self, *, cooling: bool) -> str | None:
        """Return in a short line, without secrets, why it may not be used; None where it may."""
        told = self.refusal if cooling else self.error.message if self.error is not None else None
        if told is None:
            return None
        line = " ".join(redact(told, self._secrets).split())
        return line if len(line) <= _REASON_CHARS else f"{line[:_REASON_CHARS].rpartition(' ')[0]} …"

    def restore(self) -> None:
        """Take part again."""
        self.state = KeyState.AVAILABLE
        self.forbidden.clear()
        self.trials.clear()
        self.error = None

    def borrow(self) -> tuple[Client, Client | None]:
        """Return the client for one more call, and one that was replaced and waits for nobody, to be closed.

        Raises:
            LLMException: No new one could be made; the old one stays in use.
        """
        now = self._clock.now()
        client, retired = self.client, None
        if now - client.born >= self._max_lifetime or (
            not client.calls and now - client.last_used >= self._idle_timeout
        ):
            newer = self._newer(now)
            client.retired = True
            retired = None if client.calls else client
            client = self.client = newer
        client.calls += 1
        client.last_used = now
        self.calls += 1
        return client, retired

    def retire_idle(self) -> Client | None:
        """Put a new client in the place of one that idled too long, and return that one, to be closed.

        Raises:
            LLMException: No new one could be made; the old one stays in use.
        """
        idle, now = self.client, self._clock.now()
        if idle.calls or now - idle.last_used < self._idle_timeout:
            return None
        self.client = self._newer(now)
        idle.retired = True
        return idle

    def give_back(self, client: Client) -> Client | None:
        """End a call; return the client where it is retired and this was its last call, to be closed."""
        client.calls -= 1
        client.last_used = self._clock.now()
        self.calls -= 1
        return client if client.retired and not client.calls else None

    def _newer(self, now: float) -> Client:
        with FOREIGN_AS_OURS:
            return Client(self._make(), now)

    def _out(self, model: str) -> list[str | None]:
        """Return what keeps it from serving `model`: None is the key as such."""
        whole: list[str | None] = [] if self.state is KeyState.AVAILABLE else [None]
        return [*whole, model] if model in self.forbidden else whole

    def _may_try(self, model: str) -> bool:
        return all(part in self.trials and self.trials[part].open for part in self._out(model))


class Client:
    """A provider with its age and its calls in flight.

    Attributes:
        provider: What is called.
        born: Monotonic seconds at which it was made.
        last_used: Monotonic seconds of its last call's start or end.
        calls: Calls in flight.
        retired: Whether a newer one took its place.
        ready: Whether it was initialised.
    """

    __slots__ = ("_charging", "_lock", "born", "calls", "last_used", "provider", "ready", "retired")

    def __init__(self, provider: Provider, now: float) -> None:
        """Keep a provider that was just made."""
        self.provider: Provider = provider
        self.born: float = now
        self.last_used: float = now
        self.calls: int = 0
        self.retired: bool = False
        self.ready: bool = False
        self._lock = asyncio.Lock()
        self._charging = provider if isinstance(provider, Charging) else None

    def used(self, usage: TokenUsage) -> Charge | None:
        """Return what an answer of this usage takes from the limits; None where the provider told no usage.

        Raises:
            TypeError: What it told are no numbers.
        """
        if not usage.input_tokens + usage.output_tokens > 0:  # so written, what is no number is none either
            return None
        if self._charging is not None:
            return self._charging.used(usage)
        return Charge(usage.input_tokens, usage.output_tokens, usage.total_tokens)

    async def prepare(self) -> None:
        """Initialise the provider once, however many calls come first; after a failure the next call tries again.

        Raises:
            LLMException: It failed.
        """
        async with self._lock:
            if not self.ready:
                with FOREIGN_AS_OURS:
                    await self.provider.initialize()
                self.ready = True


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """Entry `index` of a provider's lists.

    Attributes:
        index: Place in the lists, from 0.
        model: Model that it serves; `*` serves any.
        key: Its key, which other slots may share.
    """

    index: int
    model: str
    key: Key

    def serves(self, model: str) -> bool:
        """Return whether it may take a call for `model` now or later, limits aside."""
        return (self.model == model or self.model == "*") and self.key.serves(model)  # noqa: PLR1714 - no tuple

    def offers(self, model: str) -> bool:
        """Return whether it is for `model`, be its key in the rotation or not."""
        return self.model == model or self.model == "*"  # noqa: PLR1714 - without a tuple


def no_key_left(provider: str, model: str, slots: Iterable[Slot], *, needed: str = "") -> LLMException:
    """Every key that had the model (and is as `needed`) left the rotation; tells why the first of them did."""
    keys = [slot.key for slot in slots]
    error = next((key.error for key in keys if key.error is not None), None)
    if error is None:
        return LLMPoolExhaustedError(
            f"no key of {provider!r} serves {model!r}; name another model, or give another key",
            provider=provider,
            model=model,
        )
    left = type(error)(
        f"no key of {provider!r} is left for {model!r}{needed}: {error.message}",
        provider=provider,
        model=model,
        key=error.key,
        status=error.status,
        retryable=False,
    )
    if isinstance(left, LLMAuthenticationError):
        left.model_only = any(key.state is KeyState.AVAILABLE for key in keys)
    return left
