"""From a configuration's limits to accounts, and who pays what."""

from __future__ import annotations

import hashlib
import os
import weakref
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from llm.core.standing import Room
from llm.limits.admission import Levels
from llm.limits.concurrency import Concurrency
from llm.limits.memory import Account, AccountBook
from llm.providers.compatible import SERVERS
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from llm.core.config import LLMConfig
    from llm.core.config.limits import RateLimits
    from llm.core.config.providers import ProviderConfig
    from llm.core.config.slots import SlotConfig
    from llm.core.exceptions import LimitScope
    from llm.limits.base import Limit
    from llm.limits.sharing import Sharing
    from llm.utils.clock import Clock

_MANY_USERS: Final = 10_000
"""Users not named by the configuration, above which the accounts of those who took nothing of late are dropped."""

_VENDORS = {"openai": "api.openai.com", "anthropic": "api.anthropic.com", "openrouter": "openrouter.ai"}
_VENDOR_HOSTS = frozenset(_VENDORS.values())

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
    """The accounts of one configuration.

    They are shared with other managers of the process, so nothing about them changes before `apply`.
    """

    def __init__(
        self, config: LLMConfig, clock: Clock, before: Accounts | None = None, sharing: Sharing | None = None
    ) -> None:
        """Find the accounts; those of a configuration `before` this one hand on their level.

        With `sharing` they are counted in a store, and the copies here are this manager's own: what other managers of
        the process take comes from there.
        """
        self.book: AccountBook = book_of(clock) if sharing is None else sharing.book
        self._sharing = sharing
        self._config = config
        self._clock = clock
        self._users: dict[str, Account] = {}
        self._many = _MANY_USERS
        self._stating: list[Callable[[], None]] = []
        self._everything = self._account(("global",), config.limits.global_)
        self._stating.append(partial(self._state_shared, before))
        self._before = before

    def apply(self) -> None:
        """Hold to the configuration's limits from now on."""
        stating, self._stating = self._stating, []
        with self.book.lock:
            for state in stating:
                state()

    def of_slot(self, provider: str, section: ProviderConfig, slot: SlotConfig) -> Account:
        """Return what a slot's limits are counted on: its group and model family, at its provider's address."""
        name = ("key", _address(provider, section), slot.group, slot.family)
        account = self._shared(name, self.book.account(name))
        stated, bucket = slot.limits.stated(), _refills(section)
        self._stating.append(lambda: account.state(self._clock.now(), stated, level="key", bucket=bucket))
        return account

    def levels(self, max_size: int) -> Levels:
        """Return what every call to one provider pays beside its key's limits."""
        running = Account()
        running.hold_to((Concurrency("max_size", max_size, level="provider"),))
        return Levels((self._everything, running), self.user if self._config.limits.users else None)

    def user(self, name: str) -> Account | None:
        """Return a user's account: an own one for each, with the limits of `default` for those who are not named."""
        account = self._users.get(name)
        if account is None:
            limits = self._limits_of(name)
            if limits is None:
                return None
            account = self._account(("user", name), limits)
            with self.book.lock:  # two threads may meet a user at once
                self._state(account, limits, "user", None if self._before is None else self._before.known(name))
            self._users[name] = account
            if len(self._users) > self._many:
                self._drop_idle()
        return account

    def known(self, name: str) -> Account | None:
        """Return a user's account if there is one already."""
        return self._users.get(name)

    def counts_dollars(self, section: ProviderConfig) -> bool:
        """Return whether some user's calls to a provider are held to a limit in US dollars."""
        return any(self.budgeted(section, user) for user in (None, *self._config.limits.users))

    def budgeted(self, section: ProviderConfig, user: str | None) -> bool:
        """Return whether a user's calls to a provider are held to a limit in US dollars."""
        of_user = None if user is None else self._limits_of(user)
        several = (self._config.limits.global_, of_user, *section.rate_limits)
        return any(limits is not None and limits.counts_dollars for limits in several)

    def resets_in(self, user: str) -> float | None:
        """Return seconds until the first of a user's budgets is whole again; None where none has anything taken.

        Budgets are the limits that refuse, those per day and in dollars. Of several the one that is whole first
        counts; calls that still run count as what they reserve.
        """
        account = self.known(user)
        now = self._clock.now()
        with self.book.lock:
            limits = () if account is None else account.limits
            waits = [limit.wait(now, limit.capacity) for limit in limits if limit.refuses]
            return min([seconds for seconds in waits if seconds > 0.0], default=None)

    def rooms(self, user: str) -> list[Room]:
        """Return what a user's limits in tokens and requests still let through; of those in a unit the fullest's."""
        account = self.user(user)
        if account is None:
            return []
        now = self._clock.now()
        fullest: dict[str, tuple[float, Limit]] = {}
        with self.book.lock:
            for limit in account.limits:
                share = limit.saturation(now)
                if limit.timed and limit.unit != "cost" and share >= fullest.get(limit.unit, (0.0,))[0]:
                    fullest[limit.unit] = share, limit
            return [
                Room(
                    unit,
                    limit.capacity,
                    max(0.0, min(limit.capacity, limit.free(now))),
                    limit.wait(now, limit.capacity),
                )
                for unit, (_, limit) in fullest.items()
            ]

    def status(self) -> dict[str, dict[str, float]]:
        """Return how full the limits of everything and of the users are, 0 to 1."""
        now = self._clock.now()
        users = self._users.copy()  # exporters ask from threads of their own
        named = {"global": self._everything, **{f"user {name}": account for name, account in users.items()}}
        with self.book.lock:  # to ask a window is to have it forget what left
            return {
                name: {limit.name: round(limit.saturation(now), 4) for limit in account.limits}
                for name, account in named.items()
                if account.limits
            }

    def _limits_of(self, user: str) -> RateLimits | None:
        users = self._config.limits.users
        return users.get(user, users.get("default"))

    def _account(self, name: tuple[str, ...], limits: RateLimits) -> Account:
        return self._shared(name, self.book.account(self._named(name, limits)))

    def _named(self, name: tuple[str, ...], limits: RateLimits) -> Hashable:
        # By their limits, too: managers of different configurations do not change each other's.
        return name if self._sharing is not None else (name, tuple(sorted(limits.stated().items())))

    def _shared(self, name: tuple[str, ...], account: Account) -> Account:
        if self._sharing is not None:
            self._sharing.share(account, _name_in_store(name))
        return account

    def _state(self, account: Account, limits: RateLimits, level: LimitScope, old: Account | None) -> None:
        now = self._clock.now()
        if old is not None and not account.limits:
            account.hold_to(old.limits)
        account.state(now, limits.stated(), level=level, bucket=False)
        if old is not None:  # limits that were in force before, and come back
            account.catch_up(now, old)

    def _state_shared(self, before: Accounts | None) -> None:
        old = None if before is None else before._everything
        self._state(self._everything, self._config.limits.global_, "global", old)
        for name in () if before is None else tuple(before._users):
            self.user(name)
        self._before = None

    def _drop_idle(self) -> None:
        now = self._clock.now()
        named = self._config.limits.users
        for name, account in list(self._users.items()):
            with self.book.lock:
                taken = any(limit.saturation(now) for limit in account.limits)
            if name not in named and not taken:
                del self._users[name]
                limits = self._limits_of(name)
                if limits is not None:
                    self.book.forget(self._named(("user", name), limits))
                    if self._sharing is not None:
                        self._sharing.forget(account)
        self._many = max(_MANY_USERS, 2 * len(self._users))


def _name_in_store(name: tuple[str, ...]) -> str:
    """Return the same name in every process, of which nobody can tell an address, a key's group or a user."""
    digest = hashlib.sha256("\0".join(name).encode(errors="surrogatepass")).hexdigest()[:32]
    return f"{name[0]}-{digest}"


def _address(provider: str, section: ProviderConfig) -> str:
    if section.base_url is None and section.type in SERVERS:
        return _bare(str(SERVERS[section.type].base_url))
    if section.base_url is None:
        return _VENDORS.get(section.type, provider)
    # The vendor's address is the same with and without its path, said or not.
    address = str(section.base_url)
    host = urlsplit(address).hostname
    return host if host in _VENDOR_HOSTS else _bare(address)


def _bare(address: str) -> str:
    return address.rstrip("/").removesuffix("/v1")


def _refills(section: ProviderConfig) -> bool:
    if section.base_url is None:
        return section.type in _VENDORS
    return urlsplit(str(section.base_url)).hostname in _VENDOR_HOSTS
