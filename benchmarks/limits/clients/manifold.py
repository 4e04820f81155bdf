"""This package: one manager with all keys and their limits."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from llm import LLMManager

from .work import main

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .work import Ask, Task, Work


@asynccontextmanager
async def connect(work: Work) -> AsyncGenerator[Ask]:
    """Open a manager; it knows the limits and that the server refills as the vendor's own does."""
    section = {
        "base_url": work.base_url,
        "api_keys": work.keys,
        "models": [work.model],
        "quota_groups": work.groups,
        "rate_limits": [{**limits, "algorithm": "token_bucket"} for limits in work.limits],
    }
    async with LLMManager.open({"providers": {"openai": section}}) as manager:
        client = manager.get_client()

        async def ask(task: Task) -> str:
            return str(await client.complete(task.prompt, max_tokens=task.max_tokens))

        yield ask


if __name__ == "__main__":
    main(connect)
