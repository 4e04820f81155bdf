"""`/v1/metrics`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm.gateway.desk import Desk
    from llm.gateway.exchange import Exchange


async def metrics(desk: Desk, exchange: Exchange) -> None:
    """Tell Prometheus what the gateway, its manager and the process counted; of several workers, each."""
    accept = (exchange.header(b"accept") or b"").decode("latin-1")
    others = None if desk.siblings is None else await desk.siblings.ask()
    page, kind = await asyncio.to_thread(desk.write_metrics, accept, others)
    await exchange.answer(200, page, [(b"content-type", kind.encode())])
