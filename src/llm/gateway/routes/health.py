"""`/v1/health`, `/livez` and `/readyz`: what needs no key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from llm.gateway.desk import Desk
    from llm.gateway.exchange import Exchange


async def health(desk: Desk, exchange: Exchange) -> None:
    """Tell how the gateway and its providers are, from what their keys met; nobody is asked."""
    found = told(desk)
    await exchange.answer(200 if found["status"] == "ok" else 503, orjson.dumps(found))


async def live(desk: Desk, exchange: Exchange) -> None:
    """Tell that the process answers."""
    del desk
    await exchange.answer(200, b'{"status":"ok"}')


async def ready(desk: Desk, exchange: Exchange) -> None:
    """Tell whether calls should be sent here."""
    status = told(desk)["status"]
    await exchange.answer(200 if status == "ok" else 503, orjson.dumps({"status": status}))


def told(desk: Desk) -> dict[str, Any]:
    """Return what `/v1/health` tells."""
    chains = desk.manager.parts.chains
    providers = {
        name: any(slot.key.serves(slot.model) for slot in chain.pool.queue.slots) for name, chain in chains.items()
    }
    able = "ok" if any(providers.values()) else "unavailable"
    status = "draining" if desk.draining or desk.manager.closed else able
    default = desk.manager.parts.default_provider
    models = [model for model in chains[default].pool.queue.models() if model != "*"]
    return {
        "status": status,
        "model": models[0] if models else None,
        "providers": {name: "healthy" if healthy else "unhealthy" for name, healthy in providers.items()},
    }
