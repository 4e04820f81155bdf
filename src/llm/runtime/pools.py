"""The pools of the providers: slots, keys and what makes a key's client."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from llm.core.exceptions import LLMConfigurationError, LLMException
from llm.core.keys import Key, Slot
from llm.core.pool import Pool
from llm.core.protocols import EngineSettings, Provider, ProviderSettings
from llm.limits.admission import AdmissionQueue

from .registry import provider_factory

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from llm.core.config import LLMConfig
    from llm.core.config.providers import ProviderConfig
    from llm.core.settlement import Settlement
    from llm.limits.confirming import ConfirmedQueue
    from llm.limits.sharing import Sharing
    from llm.utils.clock import Clock
    from llm.utils.redact import Secret

    from .accounts import Accounts
    from .guards import Guards
    from .vendors import Vendors


class Pools:
    """Makes the pools of one configuration."""

    def __init__(  # noqa: PLR0913 - what pools are made of, once
        self,
        config: LLMConfig,
        *,
        clock: Clock,
        spawn: Callable[[Coroutine[object, object, None]], None],
        accounts: Accounts,
        vendors: Vendors,
        guards: Guards,
        sharing: Sharing | None,
    ) -> None:
        """Make no pool yet.

        Args:
            config: What they are made from.
            clock: Their time.
            spawn: Runs what must not delay a call.
            accounts: What their slots' limits are counted on.
            vendors: Gives each key its way to the network.
            guards: Their breakers.
            sharing: The store of their limits; None where they are this process's own.
        """
        self._config = config
        self._clock = clock
        self._spawn = spawn
        self._accounts = accounts
        self._vendors = vendors
        self._guards = guards
        self._sharing = sharing

    def pool(self, name: str, section: ProviderConfig, settlement: Settlement) -> Pool:
        """Return the pool of one provider; opens nothing.

        Raises:
            LLMConfigurationError: No provider is of the section's type, or its factory makes none.
        """
        config, clock = self._config, self._clock
        try:
            factory = provider_factory(section.type)
        except LLMConfigurationError as error:
            raise LLMConfigurationError(f"providers.{name}.type: {error}") from error.__cause__
        make = partial(self._key, name, section, factory)
        keys: dict[Secret | None, Key] = {}
        slots = [
            (
                Slot(slot.index, slot.model, keys.get(slot.key) or keys.setdefault(slot.key, make(slot.key))),
                self._accounts.of_slot(name, section, slot),
            )
            for slot in section.slots
        ]
        sharing = self._sharing
        kind = AdmissionQueue if sharing is None else partial(_confirmed(), sharing=sharing, spawn=self._spawn)
        queue: AdmissionQueue = kind(
            name,
            slots,
            clock=clock,
            book=self._accounts.book,
            levels=self._accounts.levels(config.pool.max_size),
            max_waiting=config.pool.max_waiting,
            circuits=self._guards.circuits(name),
        )
        return Pool(
            name,
            queue,
            clock=clock,
            timeouts=config.global_.timeouts,
            acquire_timeout=config.pool.acquire_timeout,
            spawn=self._spawn,
            settlement=settlement,
        )

    def _key(
        self, name: str, section: ProviderConfig, factory: Callable[[ProviderSettings], Any], key: Secret | None
    ) -> Key:
        settings = ProviderSettings(
            name=name,
            models=section.models,
            clock=self._clock,
            transport=self._vendors.transport(name, section, key),
            key=key,
            base_url=section.address,
            device=section.device,
            engine=EngineSettings() if section.engine is None else EngineSettings(**section.engine.model_dump()),
            api=section.api,
            headers=section.headers,
            on_unsupported=section.on_unsupported,
            models_ttl=section.models_ttl,
            routing={} if section.routing is None else section.routing.body(),
        )
        try:
            return Key(
                name if key is None else key.fingerprint,
                lambda: _provider(factory(settings), section.type),
                clock=self._clock,
                idle_timeout=self._config.pool.idle_timeout,
                max_lifetime=self._config.pool.max_lifetime,
                secret=key,
            )
        except LLMConfigurationError as error:
            raise LLMConfigurationError(f"providers.{name}: {error}") from error.__cause__
        except LLMException:
            raise
        except Exception as error:  # told by its kind alone, since its words may hold a secret that only they know
            raise LLMConfigurationError(
                f"providers.{name}: the factory of providers of type {section.type!r} raised {type(error).__name__} "
                "(see __cause__); it is called with a ProviderSettings, and returns a Provider"
            ) from error


def _confirmed() -> type[ConfirmedQueue]:
    from llm.limits.confirming import ConfirmedQueue  # noqa: PLC0415 - only where limits are shared

    return ConfirmedQueue


def _provider(made: object, kind: str) -> Provider:
    if isinstance(made, Provider):
        return made
    wanted = ("initialize", "complete", "stream", "health_check", "close")
    missing = ", ".join(name for name in wanted if not hasattr(made, name))
    raise LLMConfigurationError(
        f"the factory of providers of type {kind!r} made a {type(made).__name__}, which lacks {missing}; return an "
        "object with all methods of llm's Provider"
    )
