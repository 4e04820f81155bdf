"""Breakers and budgets of retries: one for each provider, kept over a reload that leaves their section alone."""

# ruff: noqa: ANN401 - a configuration's values
from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMCircuitOpenError, LLMException, LLMManager, LLMServerError, register_provider
from llm.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BREAKER = {"min_calls": 2, "open_for": 100.0}


def config(**sections: Any) -> dict[str, Any]:
    one = {"type": "fake", "api_keys": ["k1"], "models": ["m"], **sections.pop("one", {})}
    other = {"type": "fake", "api_keys": ["k1"], "models": ["m"]}
    return {"providers": {"one": one, "other": other}, "circuit_breaker": BREAKER, **sections}


@pytest.fixture
async def manager() -> AsyncIterator[LLMManager]:
    """Its breaker for the first provider is open, and its budget has seen two calls and two retries."""

    def down(_: object) -> str:
        raise LLMServerError("down")

    register_provider("fake", lambda _: FakeProvider(down))
    retry = {"initial_delay": 0.0, "max_attempts": 3}
    async with LLMManager.open(config(retry=retry), clock=FakeClock()) as manager:
        for _ in range(2):
            with suppress(LLMException):
                await manager.get_client("one").chat("hello")
        yield manager


def state(manager: LLMManager, provider: str = "one") -> Any:
    return manager.get_status()["providers"][provider]["breakers"]["m"]["state"]


def budget(manager: LLMManager, provider: str = "one") -> Any:
    return manager.get_status()["providers"][provider]["retry_budget"]


async def test_each_provider_has_its_own_breakers_and_its_own_budget(manager: LLMManager) -> None:
    assert (state(manager), state(manager, "other")) == ("open", "closed")
    assert budget(manager) == {"calls": 2.0, "retries": 2.0, "allowed": 100.0, "refused": 0}
    assert budget(manager, "other")["calls"] == 0.0


async def test_clients_with_layers_of_their_own_share_the_providers_budget(manager: LLMManager) -> None:
    with pytest.raises(LLMCircuitOpenError):
        await manager.get_client("one", middleware=["retry"]).chat("hello")
    assert budget(manager)["calls"] == 3.0


@pytest.mark.parametrize(
    ("changed", "kept", "counted"),
    [
        ({}, "open", 2.0),
        ({"one": {"api_keys": ["k1", "k2"]}}, "open", 2.0),
        ({"circuit_breaker": {**BREAKER, "open_for": 50.0}}, "closed", 2.0),
        ({"retry": {"budget": 0.2}}, "open", 0.0),
        ({"one": {"base_url": "http://127.0.0.1:9/v1"}}, "closed", 0.0),
    ],
)
async def test_a_reload_keeps_what_was_seen_where_the_section_and_the_place_are_the_same(
    manager: LLMManager, changed: dict[str, Any], kept: str, counted: float
) -> None:
    await manager.reload(config(**changed))
    assert (state(manager), budget(manager)["calls"]) == (kept, counted)


async def test_a_reload_switches_them_off_and_on(manager: LLMManager) -> None:
    await manager.reload(config(circuit_breaker=None, retry={"budget": None}))
    shown = manager.get_status()["providers"]["one"]
    assert (shown["breakers"], shown["retry_budget"]) == ({}, None)
    with pytest.raises(LLMServerError):
        await manager.get_client("one", middleware=["rate_limit"]).chat("hello")
    await manager.reload(config())
    assert (state(manager), budget(manager)["calls"]) == ("closed", 0.0)


async def test_of_slots_for_any_model_the_status_has_the_models_that_were_called(manager: LLMManager) -> None:
    await manager.reload(config(one={"models": ["*"]}, circuit_breaker={}))
    assert manager.get_status()["providers"]["one"]["breakers"] == {}
    with pytest.raises(LLMServerError):
        await manager.get_client("one", middleware=["rate_limit"]).chat("hello", model="any")
    assert list(manager.get_status()["providers"]["one"]["breakers"]) == ["any"]
