"""litellm's Router over all keys; what it gives up, its caller repeats, with a pause that doubles."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .work import main

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .work import Ask, Task, Work

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # its price list is not fetched from the network
import litellm
from litellm.types.router import RouterRateLimitError

_AT_ONCE: Final = 32  # for each key
_SHORTEST: Final = 1.0  # seconds
_LONGEST: Final = 8.0


@asynccontextmanager
async def connect(work: Work, strategy: str) -> AsyncGenerator[Ask]:
    """Make a router that knows the keys and their limits."""
    logging.disable(logging.CRITICAL)
    models = [_deployment(work, key, limits) for key, limits in zip(work.keys, work.limits, strict=True)]
    router = litellm.Router(model_list=models, routing_strategy=strategy, num_retries=0)
    places = asyncio.Semaphore(_AT_ONCE * len(work.keys))

    async def once(task: Task) -> str:
        answer = await router.acompletion(
            work.model, [{"role": "user", "content": task.prompt}], max_tokens=task.max_tokens
        )
        return answer.choices[0].message.content or ""

    async def ask(task: Task) -> str:
        pause = _SHORTEST
        async with places:
            while True:
                try:
                    return await once(task)
                except (litellm.RateLimitError, RouterRateLimitError):  # the server's, and "all are cooling down"
                    await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - spreads the callers
                    pause = min(_LONGEST, 2 * pause)

    yield ask


def _deployment(work: Work, key: str, limits: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_name": work.model,
        "litellm_params": {
            "model": f"openai/{work.model}",
            "api_key": key,
            "api_base": work.base_url,
            "rpm": limits["requests_per_minute"],
            "tpm": limits["tokens_per_minute"],
        },
    }


if __name__ == "__main__":
    main(partial(connect, strategy=sys.argv[1]))
