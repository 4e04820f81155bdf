"""What the limiter would do with a request now, where nothing is taken."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .exceptions import LLMException

if TYPE_CHECKING:
    from .client import LLMClient
    from .parts import Parts
    from .standing import Admission
    from .types import LLMRequest


def explained(client: LLMClient, parts: Parts, request: LLMRequest) -> Admission:
    """Return what would become of a request of the default provider's client.

    A call without a model is given one in turn; who only asks takes no turn, and is told of the one that is best off.

    Raises:
        LLMInvalidRequestError: No key has its model.
        LLMRateLimitError: It can never fit.
    """
    if request.model is not None:
        return _of(client, request)
    provider = parts.default_provider
    seen: list[Admission] = []
    refused: list[LLMException] = []
    for model in parts.chains[provider].pool.queue.models():
        try:
            seen.append(_of(client, replace(request, model=f"{provider}/{model}")))
        except LLMException as error:
            refused.append(error)
    if seen:
        return min(seen, key=lambda view: (not view.admitted, view.wait_seconds))
    if refused:
        raise refused[0]
    return _of(client, request)


def _of(client: LLMClient, request: LLMRequest) -> Admission:
    route, prepared, _ = client.prepare(request)
    ticket = route.chain.ticket(prepared, prepared.model or "")
    route.chain.pool.queue.check(ticket)
    return route.chain.pool.queue.explain(ticket)
