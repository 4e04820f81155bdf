"""From a configuration's limits to accounts, and who pays what."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llm.limits.admission import Levels
from llm.limits.concurrency import Concurrency
from llm.limits.memory import Account, AccountBook
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from llm.core.config import LLMConfig
    from llm.core.config.limits import RateLimits
    from llm.core.config.providers import ProviderConfig
    from llm.core.config.slots import SlotConfig
    from llm.core.exceptions import LimitScope
    from llm.utils.clock import Clock

_VENDOR_HOSTS = frozenset({"api.openai.com", "api.anthropic.com", "openrouter.ai"})
_VENDORS = frozenset({"openai", "anthropic", "openrouter"})

_system_books: list[AccountBook] = [AccountBook()]
_other_books: weakref.WeakKeyDictionary[Clock, AccountBook] = weakref.WeakKeyDictionary()


def book_of(clock: Clock) -> AccountBook:
    """Return the accounts that all managers of this process share; a clock of its own has accounts of its own."""
    if isinstance(clock, SystemClock):
        return _system_books[0]
    return _other_books.setdefault(clock, AccountBook())


def _after_fork() -> None:
    _system_books[0] = AccountBook()  # the old one's lock may be held by a thread that the child does not have


os.register_at_fork(after_in_child=_after_fork)


class Accounts:
    """The accounts of one configuration."""

    def __init__(self, config: LLMConfig, clock: Clock) -> None:
        """Hold to the configuration's limits from now on."""
        self.book: AccountBook = book_of(clock)
        self._config = config
        self._clock = clock
        self._users: dict[str, Account] = {}
        self._everything = self._account("global", config.limits.global_, "global")

    def of_slot(self, provider: str, section: ProviderConfig, slot: SlotConfig) -> Account:
        """Return what a slot's limits are counted on: its group and model family, at its provider's address."""
        address = section.base_url or (section.type if section.type in _VENDORS else provider)
        account = self.book.account(("key", str(address), slot.group, slot.family))
        account.state(self._clock.now(), slot.limits.stated(), level="key", bucket=_refills(section))
        return account

    def levels(self, max_size: int) -> Levels:
        """Return what every call to one provider pays beside its key's limits."""
        running = Account()
        running.limits = (Concurrency("max_size", max_size, level="provider"),)
        return Levels((self._everything, running), self.user if self._config.limits.users else None)

    def user(self, name: str) -> Account | None:
        """Return a user's account; those who are not named share the one of `default`."""
        account = self._users.get(name)
        if account is None:
            users = self._config.limits.users
            named = name if name in users else "default"
            limits = users.get(named)
            if limits is None:
                return None
            account = self._account(("user", named), limits, "user")
            if name in users:
                self._users[name] = account
        return account

    def budgeted(self) -> bool:
        """Return whether any limit is in US dollars."""
        slots = (slot for section in self._config.providers.values() for slot in section.slots)
        several = (self._config.limits.global_, *self._config.limits.users.values(), *(slot.limits for slot in slots))
        return any(limits.cost_per_day is not None for limits in several)

    def status(self) -> dict[str, dict[str, float]]:
        """Return how full the limits of everything and of the users are, 0 to 1."""
        now = self._clock.now()
        named = {"global": self._everything, **{f"user {name}": account for name, account in self._users.items()}}
        return {
            name: {limit.name: round(limit.saturation(now), 4) for limit in account.limits}
            for name, account in named.items()
            if account.limits
        }

    def _account(self, name: str | tuple[str, str], limits: RateLimits, level: LimitScope) -> Account:
        stated = limits.stated()
        account = self.book.account((name, tuple(sorted(stated.items()))))
        account.state(self._clock.now(), stated, level=level, bucket=False)
        return account


def _refills(section: ProviderConfig) -> bool:
    if section.base_url is None:
        return section.type in _VENDORS
    return urlsplit(str(section.base_url)).hostname in _VENDOR_HOSTS
