"""Whose limits a call pays, and who shares them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llm.core.config import load_config
from llm.runtime import accounts as accounts_module
from llm.runtime.accounts import Accounts, book_of
from llm.testing import FakeClock
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from llm.core.config import LLMConfig
    from llm.limits.memory import Account

MODEL = "gpt-4o-mini"


def config(limits: dict[str, Any] | None = None, **providers: dict[str, Any]) -> LLMConfig:
    given = providers or {"openai": {}}
    sections = {name: {"api_keys": ["sk-life"], "models": [MODEL], **section} for name, section in given.items()}
    return load_config({"providers": sections, "limits": limits or {}})


def slots(accounts: Accounts, made_of: LLMConfig) -> list[Account]:
    return [
        accounts.of_slot(name, section, slot) for name, section in made_of.providers.items() for slot in section.slots
    ]


def take(account: Account, amount: float, now: float = 0.0) -> None:
    for limit in account.limits:
        limit.take(now, amount)


def test_all_managers_on_the_machines_time_share_and_a_clock_of_its_own_does_not() -> None:
    clock = FakeClock()
    assert book_of(SystemClock()) is book_of(SystemClock())
    assert book_of(clock) is book_of(clock)
    assert book_of(clock) is not book_of(FakeClock())
    assert book_of(clock) is not book_of(SystemClock())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({}, {}, True),
        ({}, {"type": "openai", "base_url": "https://api.openai.com/v1"}, True),
        ({"base_url": "http://127.0.0.1:9/v1"}, {"type": "openai", "base_url": "http://127.0.0.1:9/"}, True),
        ({"base_url": "http://127.0.0.1:9/v1"}, {"type": "openai", "base_url": "http://127.0.0.1:10/v1"}, False),
        ({}, {"type": "openai", "base_url": "http://127.0.0.1:9/v1"}, False),
        ({}, {"type": "openai", "api_keys": ["sk-another"]}, False),
        ({}, {"type": "anthropic"}, False),
        ({"type": "groq"}, {"type": "groq", "base_url": "https://api.groq.com/openai/v1/"}, True),
        ({"type": "groq"}, {"type": "mistral"}, False),
        ({"quota_groups": ["org"]}, {"type": "openai", "quota_groups": ["org"], "api_keys": ["sk-another"]}, True),
    ],
)
def test_slots_share_an_account_by_key_or_group_at_one_address(
    one: dict[str, Any], other: dict[str, Any], *, same: bool
) -> None:
    clock = FakeClock()
    first = config(openai=one)
    second = config(second={"type": "openai", **other})
    (left,), (right,) = slots(Accounts(first, clock), first), slots(Accounts(second, clock), second)
    assert (left is right) is same


def test_nothing_shared_changes_before_it_is_applied() -> None:
    clock = FakeClock()
    now = config({"global": {"requests_per_minute": 5}}, openai={"rate_limits": {"requests_per_minute": 5}})
    first = Accounts(now, clock)
    (account,) = slots(first, now)
    first.apply()
    later = config({"global": {"requests_per_minute": 5}}, openai={"rate_limits": {"requests_per_minute": 1}})
    second = Accounts(later, clock, first)
    assert slots(second, later) == [account]
    assert [limit.capacity for limit in account.limits] == [5.0]
    second.apply()
    assert [limit.capacity for limit in account.limits] == [1.0]


def test_each_user_has_an_own_account_named_or_not() -> None:
    limits = {"users": {"default": {"requests_per_minute": 2}, "vip": {"requests_per_minute": 9}}}
    accounts = Accounts(config(limits), FakeClock())
    accounts.apply()
    alice, bob, vip = accounts.user("alice"), accounts.user("bob"), accounts.user("vip")
    assert alice is not None
    assert bob is not None
    assert vip is not None
    assert alice is accounts.user("alice")
    take(alice, 2)
    assert accounts.status() == {
        "user alice": {"requests_per_minute": 1.0},
        "user bob": {"requests_per_minute": 0.0},
        "user vip": {"requests_per_minute": 0.0},
    }
    assert [limit.capacity for limit in vip.limits] == [9.0]


def test_without_a_default_who_is_not_named_has_no_limit() -> None:
    accounts = Accounts(config({"users": {"vip": {"requests_per_minute": 9}}}), FakeClock())
    accounts.apply()
    assert accounts.user("alice") is None
    assert accounts.user("vip") is not None


def test_users_who_took_nothing_of_late_are_dropped_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_module, "_MANY_USERS", 10)
    clock = FakeClock()
    limits = {"users": {"default": {"requests_per_day": 2}, "vip": {"requests_per_day": 2}}}
    accounts = Accounts(config(limits), clock)
    accounts.apply()
    accounts.user("vip")
    busy = accounts.user("busy")
    assert busy is not None
    take(busy, 1)
    for number in range(100):
        accounts.user(f"passing {number}")
    kept = accounts.status()
    assert {"user busy", "user vip"} <= set(kept)
    assert len(kept) <= 20
    assert accounts.user("busy") is busy


def test_a_reload_hands_the_levels_of_everything_and_of_users_on() -> None:
    clock = FakeClock()
    before = Accounts(
        config({"global": {"requests_per_day": 10}, "users": {"default": {"requests_per_day": 4}}}), clock
    )
    before.apply()
    alice = before.user("alice")
    assert alice is not None
    take(alice, 2)
    after = Accounts(
        config({"global": {"requests_per_day": 20}, "users": {"default": {"requests_per_day": 8}}}), clock, before
    )
    after.apply()
    assert after.status()["user alice"] == {"requests_per_day": 0.25}
    untouched = Accounts(config({"users": {"default": {"requests_per_day": 5}}}), clock)
    untouched.apply()
    other = untouched.user("alice")
    assert other is not None
    assert [limit.saturation(0.0) for limit in other.limits] == [0.0]


def test_limits_that_come_back_by_a_reload_know_what_was_taken_meanwhile() -> None:
    clock = FakeClock()

    def reloaded(tokens: float, running: int, before: Accounts | None = None) -> Accounts:
        users = {"default": {"tokens_per_day": tokens, "concurrent_requests": running}}
        accounts = Accounts(config({"users": users, "global": {"requests_per_hour": tokens}}), clock, before)
        accounts.apply()
        assert accounts.user("alice") is not None
        return accounts

    first = reloaded(10, 1)
    second = reloaded(20, 2, first)
    alice, everything = second.user("alice"), second.levels(9).shared[0]
    assert alice is not None
    take(everything, 14)
    alice.limits[0].take(0.0, 14.0)
    hold = alice.limits[1].take(0.0, 1.0)
    third = reloaded(10, 1, second)
    assert third.status() == {
        "global": {"requests_per_hour": 0.7},
        "user alice": {"tokens_per_day": 1.0, "concurrent_requests": 1.0},
    }
    alice.limits[1].settle(1.0, hold, 1.0)
    assert third.status()["user alice"] == {"tokens_per_day": 1.0, "concurrent_requests": 0.0}


@pytest.mark.parametrize(
    ("limits", "section", "user", "budgeted"),
    [
        ({}, {}, None, False),
        ({"global": {"cost_per_day": 1.0}}, {}, None, True),
        ({}, {"rate_limits": {"cost_per_day": 1.0}}, None, True),
        ({"users": {"default": {"cost_per_day": 1.0}}}, {}, None, False),
        ({"users": {"default": {"cost_per_day": 1.0}}}, {}, "alice", True),
        ({"users": {"vip": {"cost_per_day": 1.0}}}, {}, "alice", False),
        ({"users": {"vip": {"cost_per_day": 1.0}}}, {}, "vip", True),
        ({"global": {"cost_per_call": 1.0}}, {}, None, True),
        ({}, {"rate_limits": {"cost_per_call": 1.0}}, None, True),
        ({"users": {"vip": {"cost_per_call": 1.0}}}, {}, "vip", True),
        ({"users": {"vip": {"cost_per_call": 1.0}}}, {}, "alice", False),
    ],
)
def test_only_who_is_under_a_budget_is_held_to_it(
    limits: dict[str, Any], section: dict[str, Any], user: str | None, *, budgeted: bool
) -> None:
    made_of = config(limits, openai=section, local={"type": "local", "api_keys": []})
    accounts = Accounts(made_of, FakeClock())
    openai = made_of.providers["openai"]
    assert accounts.budgeted(openai, user) is budgeted
    dollars = "cost_per_" in str(limits) or "cost_per_" in str(section)
    assert accounts.counts_dollars(openai) is dollars
    if section:
        assert not accounts.counts_dollars(made_of.providers["local"])


@pytest.mark.parametrize(
    ("section", "bucket"),
    [
        ({}, True),
        ({"base_url": "https://api.openai.com/v1"}, True),
        ({"base_url": "http://127.0.0.1:9/v1"}, False),
    ],
)
def test_auto_begins_as_a_bucket_at_the_vendors_and_as_a_window_elsewhere(
    section: dict[str, Any], *, bucket: bool
) -> None:
    made_of = config(openai={"rate_limits": {"requests_per_minute": 60}, **section})
    accounts = Accounts(made_of, FakeClock())
    (account,) = slots(accounts, made_of)
    accounts.apply()
    (limit,) = account.limits
    limit.take(0.0, 60.0)
    assert (limit.wait(30.0, 20.0) == 0.0) is bucket


def test_a_status_that_another_thread_asks_for_is_whole_also_as_a_user_comes() -> None:
    accounts = Accounts(config({"users": {"default": {"requests_per_minute": 5}}}), FakeClock())
    accounts.apply()

    class Coming(str):
        """A user whose name is put into words just as another comes."""

        __slots__ = ()

        def __format__(self, how: str) -> str:
            accounts.user("bob")
            return str(self)

    accounts.user(Coming("ann"))
    assert set(accounts.status()) == {"user ann"}
    assert set(accounts.status()) == {"user ann", "user bob"}
