"""Which provider a model goes to, and which models there are, for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMManager
from llm.core.exceptions import LLMAuthenticationError, LLMInvalidRequestError
from llm.core.types import LLMRequest
from llm.providers.endpoints.asking import Asking
from llm.providers.endpoints.caller import ANYONE, Caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Serving = Callable[..., Any]

KEYS = {
    "alice": {"key": "gw-alice-0123456789"},
    "bob": {"key": "gw-bob-0123456789", "models": ["small", "fast"]},
}
ALICE, BOB = ({"x-api-key": f"gw-{name}-0123456789"} for name in KEYS)


def providers(address: str = "http://127.0.0.1:9/v1") -> dict[str, Any]:
    """Return three, of which one takes any model."""
    return {
        "first": {"type": "openai", "base_url": address, "api_keys": ["k1"], "models": ["small"]},
        "second": {"type": "openai", "base_url": address, "api_keys": ["k2"], "models": ["small", "large", "org/own"]},
        "open": {"type": "openai", "base_url": address, "api_keys": ["k3"], "models": ["*"]},
    }


@pytest.fixture
async def manager() -> AsyncIterator[LLMManager]:
    aliases = {"fast": {"targets": ["second/small", "first/small"]}}
    async with LLMManager.open({"providers": providers(), "aliases": aliases}) as manager:
        yield manager


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        (None, None),
        ("small", "first"),
        ("large", "second"),
        ("org/own", "second"),
        ("second/small", "second"),
        ("fast", "first"),
        ("open/whatever", "open"),
        ("unheard-of", "open"),
        ("unheard/of", "open"),
    ],
)
def test_a_model_goes_to_the_provider_that_lists_it(
    manager: LLMManager, model: str | None, provider: str | None
) -> None:
    assert Asking(manager).provider_of(ANYONE, model) == provider


async def test_a_model_that_nobody_has_is_refused_with_those_there_are() -> None:
    told = {"providers": {name: providers()[name] for name in ("first", "second")}}
    async with LLMManager.open(told) as manager:
        asking = Asking(manager)
        for name in ("nothing", "second/nothing", "third/small"):
            with pytest.raises(LLMInvalidRequestError, match="small, large") as refused:
                asking.provider_of(ANYONE, name)
            assert (refused.value.status, refused.value.model) == (404, name)
        await manager.reload({"providers": providers()})
        assert asking.provider_of(ANYONE, "nothing") == "open"
        client = asking.client_for(ANYONE, "small")
        assert asking.client_for(ANYONE, "small") is client


async def test_a_refusal_names_no_model_that_the_caller_may_not_ask_for() -> None:
    bob = Caller("bob", "bob", ("small", "gone"))
    async with LLMManager.open({"providers": {"second": providers()["second"]}}) as manager:
        with pytest.raises(LLMInvalidRequestError, match=r"ask for one of small \(model gone"):
            Asking(manager).continuing(bob, LLMRequest("x", model="gone"))


def test_names_are_listed_once_each(manager: LLMManager) -> None:
    asking = Asking(manager)
    assert sorted(asking.models(ANYONE)) == ["fast", "large", "org/own", "second/small", "small"]
    assert asking.models(Caller("bob", "bob", ("fast", "x"))) == ["fast"]


async def test_a_caller_asks_for_its_own_models_only(manager: LLMManager) -> None:
    asking = Asking(manager)
    bob = Caller("bob", "bob", ("small",))
    with pytest.raises(LLMAuthenticationError, match="large"):
        await asking.answer(bob, LLMRequest("x", model="large"))
    with pytest.raises(LLMAuthenticationError, match="large"):
        asking.stream(bob, LLMRequest("x", model="large"))
    with pytest.raises(LLMInvalidRequestError, match="models: expected none"):
        await asking.answer(bob, LLMRequest("x", model="small", extra={"models": ["large"]}))
    assert await asking.count(bob, LLMRequest("x")) == await asking.count(bob, LLMRequest("x", model="small")) > 0
    with pytest.raises(LLMAuthenticationError, match="large"):
        await asking.count(bob, LLMRequest("x", model="large"))


async def test_models_are_listed_for_each_key_in_each_form(serving: Serving) -> None:
    section = {"models": ["small", "large"]}
    config = {"aliases": {"fast": {"targets": ["openai/small"]}}, "gateway": {"api_keys": KEYS}}
    async with serving(section=section, **config) as it:
        _, alice, _ = await it.ask("GET", "/v1/models", headers=ALICE)
        _, bob, _ = await it.ask("GET", "/v1/models", headers=BOB)
        _, anthropic, headers = await it.ask("GET", "/v1/models", headers=BOB | {"anthropic-version": "2023-06-01"})
        one = await it.ask("GET", "/v1/models/openai/large", headers=ALICE)
        hers = await it.ask("GET", "/v1/models/large", headers=BOB)
        nobodys = await it.ask("GET", "/v1/models/nothing", headers=BOB | {"anthropic-version": "2023-06-01"})
    assert {model["id"] for model in alice["data"]} == {"small", "large", "fast"}
    assert [model["owned_by"] for model in bob["data"]] == ["openai", "openai"]
    assert [model["type"] for model in anthropic["data"]] == ["model", "model"]
    assert anthropic["data"][0]["created_at"].endswith("Z")
    assert headers["request-id"]
    assert one[1]["id"] == "openai/large"
    assert (hers[0], hers[1]["error"]["code"]) == (404, "model_not_found")
    assert (nobodys[0], nobodys[1]["error"]["type"]) == (404, "not_found_error")
