"""`/v1/models` and `/v1/models/{model}`: OpenAI's form, or Anthropic's for its clients.

Source: https://platform.openai.com/docs/api-reference/models and https://docs.claude.com/en/api/models-list
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from llm.core.exceptions import LLMInvalidRequestError
from llm.providers.serving import anthropic_write

if TYPE_CHECKING:
    from llm.gateway.desk import Desk
    from llm.gateway.exchange import Exchange

PREFIX: Final = "/v1/models/"


async def models(desk: Desk, exchange: Exchange) -> None:
    """Tell what the caller may ask for by name: aliases and models."""
    names = desk.asking.models(exchange.caller)
    if of_anthropic(exchange):
        told = anthropic_write.write_models(names, created=_created(desk))
    else:
        told = {"object": "list", "data": [_model(desk, name) for name in names]}
    await exchange.answer(200, orjson.dumps(told))


async def model(desk: Desk, exchange: Exchange) -> None:
    """Tell of one of them."""
    name: str = exchange.scope["path"].removeprefix(PREFIX)
    desk.asking.provider_of(name)  # which refuses what there is not
    if not exchange.caller.may_use(name):
        raise LLMInvalidRequestError(f"there is no model {name[:100]!r} for this key", status=404, model=name)
    if of_anthropic(exchange):
        told = anthropic_write.write_models([name], created=_created(desk))["data"][0]
    else:
        told = _model(desk, name)
    await exchange.answer(200, orjson.dumps(told))


def of_anthropic(exchange: Exchange) -> bool:
    """Return whether a client of Anthropic's asks, at an address that both vendors have."""
    return exchange.header(b"anthropic-version") is not None


def _model(desk: Desk, name: str) -> dict[str, Any]:
    owner = desk.asking.provider_of(name)
    return {"id": name, "object": "model", "created": int(desk.started), "owned_by": owner}


def _created(desk: Desk) -> str:
    return datetime.fromtimestamp(int(desk.started), UTC).isoformat().replace("+00:00", "Z")
