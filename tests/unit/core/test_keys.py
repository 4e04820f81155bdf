"""A key: kept warm, made anew in time, never closed under a call."""

from __future__ import annotations

import asyncio

import pytest

from llm.core.call import Call, Charge
from llm.core.exceptions import LLMAuthenticationError, LLMQuotaExceededError, LLMServerError
from llm.core.keys import Client, Key, KeyState, Slot
from llm.core.types import TokenUsage
from llm.testing import FakeClock, FakeProvider


class Charging(FakeProvider):
    def charge(self, request: object, expected_output: int) -> Charge:
        raise NotImplementedError

    def used(self, usage: TokenUsage) -> Charge:
        return Charge(usage.input_tokens - usage.cached_input_tokens, usage.output_tokens)


class Made:
    """A factory that remembers what it made."""

    def __init__(self) -> None:
        self.providers: list[FakeProvider] = []
        self.fail = False

    def __call__(self) -> FakeProvider:
        if self.fail:
            raise OSError("no socket left")
        self.providers.append(FakeProvider())
        return self.providers[-1]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def made() -> Made:
    return Made()


@pytest.fixture
def key(clock: FakeClock, made: Made) -> Key:
    return Key("key-1", made, clock=clock, idle_timeout=300, max_lifetime=3600)


async def test_a_client_that_was_idle_too_long_is_made_anew_and_the_old_one_is_to_be_closed(
    key: Key, clock: FakeClock
) -> None:
    old, _ = key.borrow()
    assert key.give_back(old) is None
    await clock.advance(299.0)
    same, retired = key.borrow()
    assert (same, retired) == (old, None)
    key.give_back(same)
    await clock.advance(300.0)
    new, retired = key.borrow()
    assert new is not old
    assert retired is old


async def test_a_client_in_use_is_never_idle(key: Key, clock: FakeClock) -> None:
    old, _ = key.borrow()
    await clock.advance(1000.0)
    same, retired = key.borrow()
    assert (same, retired) == (old, None)


async def test_a_client_that_lived_too_long_closes_when_its_last_call_has_ended(key: Key, clock: FakeClock) -> None:
    old, _ = key.borrow()
    assert key.borrow() == (old, None)
    await clock.advance(3600.0)
    new, retired = key.borrow()
    assert new is not old
    assert retired is None
    assert key.calls == 3
    assert key.give_back(old) is None
    assert key.give_back(old) is old
    assert key.give_back(new) is None
    assert key.calls == 0


async def test_where_no_new_client_can_be_made_the_old_one_stays_in_use(key: Key, clock: FakeClock, made: Made) -> None:
    old, _ = key.borrow()
    await clock.advance(3600.0)
    made.fail = True
    with pytest.raises(LLMServerError, match="no socket"):
        key.borrow()
    assert key.client is old
    assert key.calls == 1
    assert key.give_back(old) is None  # not retired, so not to be closed


async def test_a_provider_is_initialised_once_however_many_calls_come_first() -> None:
    class Slow(FakeProvider):
        count = 0

        async def initialize(self) -> None:
            self.count += 1
            await FakeClock().sleep(0)
            await super().initialize()

    provider = Slow()
    client = Client(provider, 0.0)
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(client.prepare())
    assert provider.count == 1
    assert client.ready


async def test_initialising_is_tried_again_after_a_failure() -> None:
    class FailsOnce(FakeProvider):
        failures = 1

        async def initialize(self) -> None:
            if self.failures:
                self.failures -= 1
                raise LLMAuthenticationError("not yet")
            await super().initialize()

    client = Client(FailsOnce(), 0.0)
    with pytest.raises(LLMAuthenticationError):
        await client.prepare()
    assert not client.ready
    await client.prepare()
    assert client.ready


async def test_what_a_providers_code_should_not_raise_as_it_begins_is_an_error_of_ours() -> None:
    class Broken(FakeProvider):
        async def initialize(self) -> None:
            raise KeyError("model")

    with pytest.raises(LLMServerError, match="KeyError: 'model'") as caught:
        await Client(Broken(), 0.0).prepare()
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_refused_key_leaves_whole_or_for_a_model_and_can_come_back(key: Key) -> None:
    slots = [Slot(0, "a", key), Slot(1, "b", key), Slot(2, "*", key)]
    error = LLMAuthenticationError("no")
    key.refuse(error, model="a")
    assert [slot.serves("a") for slot in slots] == [False, False, False]
    assert [slot.serves("b") for slot in slots] == [False, True, True]
    key.refuse(LLMQuotaExceededError("gone"), state=KeyState.OUT_OF_CREDIT)
    assert not any(slot.serves("b") for slot in slots)
    assert key.state is KeyState.OUT_OF_CREDIT
    key.restore()
    assert (key.state, key.error) == (KeyState.AVAILABLE, None)
    assert slots[0].serves("a")


def test_usage_becomes_a_charge_by_the_providers_rule_or_the_common_one() -> None:
    usage = TokenUsage(10, 5, 4)
    assert Client(FakeProvider(), 0.0).used(usage) == Charge(10, 5, 15)
    assert Client(Charging(), 0.0).used(usage) == Charge(6, 5)
    assert Client(FakeProvider(), 0.0).used(TokenUsage()) is None


async def test_only_who_tries_a_key_without_credit_makes_its_pause_longer(key: Key, clock: FakeClock) -> None:
    error = LLMQuotaExceededError("gone")
    early, tries = Call(0.0), Call(0.0)
    key.refuse(error, state=KeyState.OUT_OF_CREDIT, call=early)
    key.refuse(error, state=KeyState.OUT_OF_CREDIT, call=early)
    await clock.advance(300.0)
    assert key.look()
    key.tried_by(tries, "a")
    assert not key.serves("a")
    key.refuse(error, state=KeyState.OUT_OF_CREDIT, call=early)  # sent before the key left
    assert not key.served(early)
    assert not key.undecided(early)
    key.refuse(error, state=KeyState.OUT_OF_CREDIT, call=tries)
    await clock.advance(599.0)
    assert not key.look()
    await clock.advance(1.0)
    assert key.look()
    assert key.serves("a")


async def test_a_call_that_ended_before_it_was_sent_leaves_the_try_to_the_next(key: Key, clock: FakeClock) -> None:
    key.refuse(LLMQuotaExceededError("gone"), state=KeyState.OUT_OF_CREDIT)
    await clock.advance(300.0)
    assert key.look()
    call = Call(0.0)
    key.tried_by(call, "a")
    assert not key.look()
    call.ended(1.0)
    assert key.look()
    assert key.serves("a")


async def test_a_model_that_was_forbidden_to_a_key_without_credit_takes_both_to_come_back(
    key: Key, clock: FakeClock
) -> None:
    key.refuse(LLMAuthenticationError("no"), model="a")
    key.refuse(LLMQuotaExceededError("gone"), state=KeyState.OUT_OF_CREDIT)
    await clock.advance(300.0)
    assert key.look()
    call = Call(0.0)
    key.tried_by(call, "b")
    assert key.served(call)
    assert (key.serves("b"), key.state, key.error is None) == (True, KeyState.AVAILABLE, False)
    other = Call(0.0)
    key.tried_by(other, "a")
    assert not key.serves("a")
    assert key.served(other)
    assert (key.serves("a"), key.error) == (True, None)


async def test_a_key_that_is_refused_as_such_is_not_tried_by_calls(key: Key, clock: FakeClock) -> None:
    key.refuse(LLMQuotaExceededError("gone"), state=KeyState.OUT_OF_CREDIT)
    key.refuse(LLMAuthenticationError("no"))
    await clock.advance(10_000.0)
    assert not key.look()
    assert not key.serves("a")
