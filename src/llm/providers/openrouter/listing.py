"""The list of models of one address: fetched once for all keys, kept for a while, and never in a call's way."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from llm.providers.errors import error_for
from llm.providers.failure import read_failure

from .models import find, read_models

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.protocols import ProviderSettings

    from .models import Accepted

_logger = logging.getLogger("llm.openrouter")

PATIENCE: Final = 2.0
"""Seconds that the first calls wait for the list, counted from its first fetch."""

_FETCH_SECONDS: Final = 30.0
_FIRST_PAUSE: Final = 15.0
_OK: Final = 200


class Listing:
    """What the models accept.

    The first calls wait for it, `PATIENCE` seconds at most, because it decides what they send; after that it is
    renewed beside the calls. Where fetching fails the old list stays, or nothing is known and requests go out as they
    are. It is tried again after a pause that doubles from 15 seconds up to `models_ttl`, and the log says so once until
    it works again.
    """

    def __init__(self, settings: ProviderSettings, url: str, headers: Mapping[str, str]) -> None:
        """Take where the list is, and what it is asked for with; nothing is fetched before the first call."""
        self._name = settings.name
        self._url = url
        self._headers = headers
        self._transport = settings.transport
        self._clock = settings.clock
        self._ttl = settings.models_ttl
        self._models: dict[str, Accepted] = {}
        self._due = self._clock.now()
        self._pause = _FIRST_PAUSE
        self._failing = False
        self._patient_until: float | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._told: set[tuple[str, str]] = set()
        self._users = 0

    def accepted(self, model: str) -> Accepted | None:
        """Return what a model takes; None where nobody knows."""
        return find(self._models, model)

    def dropped(self, model: str, parameters: list[str]) -> None:
        """Warn of parameters that were left out, once for a model and a parameter."""
        news = [name for name in parameters if (model, name) not in self._told]
        if news:
            self._told.update((model, name) for name in news)
            _logger.warning(
                "%s: %s does not take %s; left out (on_unsupported: refuse makes it an error)",
                self._name, model, ", ".join(news),
            )  # fmt: skip

    async def ready(self) -> None:
        """Have the list renewed where its time has come; wait for the very first one, but not long."""
        now = self._clock.now()
        if self._fetching is None and now >= self._due and self._users:
            self._fetching = asyncio.get_running_loop().create_task(self._fetch())
        if self._models or self._fetching is None:
            return
        if self._patient_until is None:
            self._patient_until = now + PATIENCE
        if now < self._patient_until:
            await self._wait(self._fetching, self._patient_until - now)

    def join(self) -> None:
        """Count in one who uses it."""
        self._users += 1

    async def leave(self) -> None:
        """Count one out; with the last one the fetch ends that runs."""
        self._users -= 1
        if not self._users and self._fetching is not None:
            fetching, self._fetching = self._fetching, None
            fetching.cancel()
            await asyncio.wait([fetching])

    async def _wait(self, fetching: asyncio.Task[None], seconds: float) -> None:
        try:
            async with self._clock.timeout(seconds):
                await asyncio.wait([fetching])
        except TimeoutError:
            _logger.info("%s: calls go on without the list of models, which is not there yet", self._name)

    async def _fetch(self) -> None:
        try:
            async with self._clock.timeout(_FETCH_SECONDS):
                self._models = read_models(await self._body())
        except Exception as error:  # noqa: BLE001 - whatever it is, no call fails for it
            self._failed(error)
        else:
            self._due, self._pause, self._failing = self._clock.now() + self._ttl, _FIRST_PAUSE, False
        finally:
            self._fetching = None

    async def _body(self) -> bytes:
        reply = await self._transport.request("GET", self._url, headers=self._headers)
        try:
            body = await reply.read()
        finally:
            reply.close()
        if reply.status != _OK:
            raise error_for(reply.status, read_failure(body))
        return body

    def _failed(self, error: Exception) -> None:
        self._due = self._clock.now() + self._pause
        self._pause = min(2 * self._pause, self._ttl)
        if self._failing:
            return
        self._failing = True
        # What the server said stays out: it may repeat a key.
        _logger.warning(
            "%s: the list of models could not be fetched (%s); calls go on with %s, and it is tried again",
            self._name, type(error).__name__, "the old one" if self._models else "none",
        )  # fmt: skip
