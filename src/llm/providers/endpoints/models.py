"""`/models` and `/models/{model}`: OpenAI's form, or Anthropic's for its clients.

Source: https://platform.openai.com/docs/api-reference/models and https://docs.claude.com/en/api/models-list
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from llm.core.exceptions import LLMInvalidRequestError
from llm.providers.serving import anthropic_write, openai_write

from .answers import Reply
from .inquiry import JSON

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .inquiry import Inquiry
    from .service import Service


async def models(service: Service, inquiry: Inquiry) -> Reply:
    """Tell what the caller may ask for by name: aliases and models."""
    return Reply(orjson.dumps(_written(service, inquiry, service.asking.models(inquiry.caller))), [JSON])


def model(service: Service, inquiry: Inquiry, name: str) -> Reply:
    """Tell of one of them.

    Raises:
        LLMInvalidRequestError: There is none of this name, or not for this caller.
    """
    if not inquiry.caller.may_use(name):
        raise LLMInvalidRequestError(f"there is no model {name[:100]!r} for this key", status=404, model=name)
    return Reply(orjson.dumps(_written(service, inquiry, [name])["data"][0]), [JSON])


def _written(service: Service, inquiry: Inquiry, names: Sequence[str]) -> dict[str, Any]:
    owners = {name: service.asking.provider_of(inquiry.caller, name) for name in names}  # refuses what there is not
    if inquiry.anthropic:
        created = datetime.fromtimestamp(int(service.started), UTC).isoformat().replace("+00:00", "Z")
        return anthropic_write.write_models(names, created=created)
    return openai_write.write_models(owners, created=int(service.started))
