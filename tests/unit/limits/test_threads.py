"""Threads of several loops share accounts: whoever asks a limit holds the lock, since to ask is to forget what left."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from llm.core.call import Charge, Ticket
from llm.core.config import load_config
from llm.core.exceptions import LLMRateLimitError
from llm.limits.moments import Memory
from llm.runtime.accounts import Accounts, book_of
from llm.testing import FakeClock

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from llm.limits.memory import AccountBook

    from .conftest import Bench

    Start = Callable[[Coroutine[Any, Any, str]], asyncio.Task[str]]
    Watch = Callable[[AccountBook], list[bool]]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Have it noted of each look into a window whether the book's lock was held."""

    def begin(book: AccountBook) -> list[bool]:
        held: list[bool] = []
        expire = Memory.expire

        def looked(memory: Memory, now: float) -> None:
            held.append(book.lock._is_owned())  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
            expire(memory, now)

        monkeypatch.setattr(Memory, "expire", looked)
        return held

    return begin


async def test_whoever_waits_at_a_users_limit_is_looked_after_under_the_lock(
    bench: Bench, start: Start, watch: Watch
) -> None:
    alice = bench.account(level="user", requests_per_minute=1, bucket=False)
    queue = bench.queue(bench.account(), users={"alice": alice})
    held = watch(bench.book)
    await bench.pay(queue, "first", user="alice")
    waits = start(bench.pay(queue, "second", user="alice"))
    await bench.settle()
    with pytest.raises(LLMRateLimitError):
        await bench.pay(queue, "third", user="alice", user_wait=1.0)
    late = start(bench.pay(queue, "fourth", user="alice", user_wait=125.0))
    await bench.clock.advance(30.0)
    assert not queue.explain(Ticket(Charge(), "m", "alice")).admitted
    await bench.clock.advance(31.0)
    assert await waits == "key-0"
    await bench.clock.advance(200.0)
    with suppress(LLMRateLimitError):
        await late
    assert held
    assert all(held)


def test_a_model_is_chosen_under_the_lock(bench: Bench, watch: Watch) -> None:
    small, large = (bench.account(requests_per_minute=1, bucket=False) for _ in range(2))
    queue = bench.queue(("small", small), ("large", large))
    small.limits[0].take(0.0, 1.0)
    held = watch(bench.book)
    assert [queue.choose_model() for _ in range(2)] == ["large", "large"]
    assert held
    assert all(held)


def test_the_status_is_told_under_the_lock(watch: Watch) -> None:
    clock = FakeClock()
    limits = {"global": {"requests_per_minute": 5}, "users": {"default": {"requests_per_minute": 5}}}
    accounts = Accounts(
        load_config({"providers": {"openai": {"api_keys": ["k"], "models": ["m"]}}, "limits": limits}), clock
    )
    accounts.apply()
    accounts.user("ann")
    held = watch(book_of(clock))
    assert set(accounts.status()) == {"global", "user ann"}
    assert held
    assert all(held)
