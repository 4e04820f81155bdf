"""The vendor's own client: one for each key, at most 32 requests at once on each, its own retries on."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Final

from openai import AsyncOpenAI

from .work import main

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .work import Ask, Task, Work

_AT_ONCE: Final = 32


@asynccontextmanager
async def connect(work: Work) -> AsyncGenerator[Ask]:
    """Open the clients; requests go to them in turn."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(AsyncOpenAI(api_key=key, base_url=work.base_url)) for key in work.keys
        ]
        places = [asyncio.Semaphore(_AT_ONCE) for _ in clients]
        turns = count()

        async def ask(task: Task) -> str:
            turn = next(turns) % len(clients)
            async with places[turn]:
                answer = await clients[turn].chat.completions.create(
                    model=work.model,
                    max_tokens=task.max_tokens,
                    messages=[{"role": "user", "content": task.prompt}],
                )
            return answer.choices[0].message.content or ""

        yield ask


if __name__ == "__main__":
    main(connect)
