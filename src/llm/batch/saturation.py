"""How full the limits of each key are while many requests run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm.core.manager import LLMManager


def saturation_of(manager: LLMManager) -> dict[str, float]:
    """Return how full the fullest limit of each key is, 0 to 1, by the key's fingerprint.

    Where there are several providers the name is `provider/fingerprint`. Keys without limits are not there.
    """
    chains = manager.parts.chains
    fullest: dict[str, float] = {}
    for provider, chain in chains.items():
        for slot in chain.pool.queue.slots:
            shares = chain.pool.queue.saturation(slot).values()
            name = slot.key.fingerprint if len(chains) == 1 else f"{provider}/{slot.key.fingerprint}"
            if shares:
                fullest[name] = max(fullest.get(name, 0.0), *shares)
    return fullest
