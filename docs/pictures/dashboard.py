"""Takes the README's pictures of the dashboard, in a real browser, of a real gateway before servers in this process.

`make picture-page` runs it. Time runs six times as fast in it at first, so that five minutes of charts take less than
one.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import shutil
import socket
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from PIL import Image
from playwright.async_api import async_playwright

from llm.core.exceptions import LLMException
from llm.core.manager import LLMManager
from llm.gateway.entry import Entry
from llm.gateway.guards import Guards
from llm.gateway.server import GatewayServer
from llm.testing import Fault, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from playwright.async_api import Browser, Page

    from llm.utils.clock import Timeout, Timer

PICTURES: Final = Path(__file__).parent
SPEED: Final = 6.0
KEY: Final = "sk-manifold-of-a-picture"
SECONDS: Final = 52.0
SIZES: Final = ((1440, 1300), (390, 1360))
ANSWER: Final = (
    "A token bucket fills at a steady rate and holds so much and no more. Each request takes its tokens out; one that "
    "finds too few waits until enough have come. So a burst passes as far as the bucket is full, and on average nobody "
    "goes faster than it fills."
)
USERS: Final = ("search", "support", "nightly", "alice")


class FastClock(SystemClock):
    """The machine's time, several times as fast until it is slowed down."""

    def __init__(self) -> None:
        """Start now."""
        self._speed = SPEED
        self._real = self._now = SystemClock.now()
        self._ahead = SystemClock().wall() - self._now
        self.now = self._fast_now

    def slow_down(self) -> None:
        """Go on at the machine's pace."""
        self._now, self._real, self._speed = self._fast_now(), SystemClock.now(), 1.0

    def _fast_now(self) -> float:
        return self._now + (SystemClock.now() - self._real) * self._speed

    def wall(self) -> float:
        """Return seconds since 1970."""
        return self._fast_now() + self._ahead

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds of its own."""
        await super().sleep(seconds / self._speed)

    def timeout(self, seconds: float | None) -> Timeout:
        """Return a scope of so many seconds of its own."""
        return super().timeout(None if seconds is None else seconds / self._speed)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call back after so many seconds of its own."""
        return super().call_later(seconds / self._speed, callback)


def configuration(openai: str, anthropic: str) -> dict[str, Any]:
    """Return what the gateway of the picture serves."""
    minute = {"algorithm": "token_bucket"}
    return {
        "providers": {
            "openai": {
                "base_url": openai,
                "api_keys": ["sk-picture-1", "sk-picture-2", "sk-picture-3"],
                "models": ["gpt-4o-mini", "gpt-4o-mini", "gpt-4o"],
                "rate_limits": [
                    {"requests_per_minute": 60, "tokens_per_minute": 7_000, **minute},
                    {"requests_per_minute": 120, "tokens_per_minute": 14_000, **minute},
                    {"requests_per_minute": 60, "tokens_per_minute": 8_000, "concurrent_requests": 16, **minute},
                ],
            },
            "anthropic": {
                "base_url": anthropic,
                "api_keys": ["sk-ant-picture-1", "sk-ant-picture-2"],
                "models": ["claude-haiku-4-5"],
                "rate_limits": [
                    {"requests_per_minute": 50, "input_tokens_per_minute": 50_000, "output_tokens_per_minute": 10_000}
                ],
            },
        },
        "aliases": {"fast": {"targets": ["openai/gpt-4o-mini", "anthropic/claude-haiku-4-5"]}},
        "cache": {"backend": "memory"},
        "circuit_breaker": {},
        "gateway": {"api_keys": {"ops": {"key": KEY, "user": "ops", "operator": True}}},
    }


@asynccontextmanager
async def serving(clock: FastClock) -> AsyncGenerator[tuple[str, LLMManager]]:
    """Serve a gateway before two vendors that are none."""
    dice = random.Random(7)  # noqa: S311 - a picture's

    def answered(_: object) -> str:
        return ANSWER

    def service(*_: object) -> float:
        return 0.6 + dice.expovariate(0.8)

    limits = {
        "sk-picture-1": {"requests_per_minute": 60, "tokens_per_minute": 7_000},
        "sk-picture-2": {"requests_per_minute": 120, "tokens_per_minute": 14_000},
        "sk-picture-3": {"requests_per_minute": 60, "tokens_per_minute": 8_000},
    }
    spoiled = [Fault("server_error", rate=0.012), Fault("context_length", rate=0.006)]
    spent = Fault("quota", at=40, key="sk-ant-picture-2")
    options: dict[str, Any] = {"clock": clock, "service": service, "answer": answered, "chunk_size": 24}
    async with (
        MockUpstream(limits=limits, faults=spoiled, **options) as openai,
        MockUpstream("anthropic", faults=[spent, *spoiled], **options) as anthropic,
        LLMManager.open(configuration(openai.base_url, anthropic.base_url), clock=clock) as manager,
    ):
        listening = socket.create_server(("127.0.0.1", 0))
        server = GatewayServer(Entry(manager), lambda: Guards.of(manager.config.gateway, room=100))
        task = asyncio.create_task(server.serve([listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", manager
        finally:
            server.stop(0.0)
            await task


async def ask(manager: LLMManager) -> None:
    """Ask without end, now more and now less."""
    dice, asked = random.Random(3), 0  # noqa: S311 - a picture's
    clock = manager.parts.clock
    due = began = clock.now()

    async def one(number: int) -> None:
        model = dice.choices(["gpt-4o-mini", "fast", "gpt-4o", "anthropic/claude-haiku-4-5"], [7, 2, 3, 2])[0]
        text = f"What is meant by number {dice.randrange(60) if dice.random() < 0.3 else number} of the list? " * 4  # noqa: PLR2004
        client = manager.get_client(user=dice.choice(USERS))
        with suppress(LLMException):
            if dice.random() < 0.5:  # noqa: PLR2004
                await client.chat(text, model=model, max_tokens=160)
            else:
                async with client.stream_complete(text, model=model, max_tokens=160) as chunks:
                    await chunks.response()

    async with asyncio.TaskGroup() as group:
        while True:
            seconds = due - began
            busy = 8.0 if 70 < seconds < 115 else 7.2 if seconds > 235 else 4.4  # noqa: PLR2004
            asked += 1
            group.create_task(one(asked))
            due += dice.expovariate(busy)
            await clock.sleep(max(0.0, due - clock.now()))


async def opened(browser: Browser, url: str, width: int, height: int, *, scheme: str) -> Page:
    """Open the dashboard, and sign in."""
    context = await browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = await context.new_page()
    page.set_default_timeout(120_000)
    await page.goto(f"{url}/dashboard")
    await page.get_by_label("Gateway key").fill(KEY)
    await page.get_by_role("button", name="Open the dashboard").click()
    await page.get_by_text("Live").wait_for()
    return page


async def shown(page: Page) -> None:
    """Have something to see in the box, and in the list of calls."""
    await page.get_by_label("Model", exact=True).select_option("gpt-4o-mini")
    await page.get_by_label("Prompt").fill("How does a token bucket work?")
    await page.get_by_role("button", name="Send").click()
    await page.get_by_text("Done.").wait_for()
    await page.get_by_role("button", name="Waited").click()
    await page.locator("tr.call .fold").nth(1).click()
    await page.locator("tr.log").wait_for()
    await page.mouse.move(0, 0)
    await page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")


async def watch(url: str) -> None:
    """Watch as a page does, so that there are five minutes to be shown."""
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as session,
        session.get(f"{url}/dashboard/events") as answer,
    ):
        async for _ in answer.content:
            pass


def small(taken: bytes, path: Path) -> None:
    """Write a picture with 256 colours, which is all that it has but for the edges of its letters."""
    with Image.open(io.BytesIO(taken)) as picture:
        fewer = picture.convert("RGB").quantize(256, kmeans=2, dither=Image.Dither.NONE)
        fewer.save(path, optimize=True)


async def main(folder: Path, schemes: list[str], *, whole: bool) -> None:
    """Take the pictures, of the window or of the whole page."""
    program = next(found for name in ("chromium", "google-chrome", "chromium-browser") if (found := shutil.which(name)))
    clock = FastClock()
    async with serving(clock) as (url, manager), async_playwright() as player:
        beside = [asyncio.create_task(work) for work in (ask(manager), watch(url))]
        await SystemClock().sleep(SECONDS)
        clock.slow_down()
        browser = await player.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for scheme in schemes:
            for width, height in SIZES:
                page = await opened(browser, url, width, height, scheme=scheme)
                await shown(page)
                name = f"dashboard-{width}.png" if scheme == "light" else f"dashboard-{width}-{scheme}.png"
                small(await page.screenshot(full_page=whole), folder / name)
                await page.close()
        await browser.close()
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)


if __name__ == "__main__":
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--folder", type=Path, default=PICTURES)
    given.add_argument("--schemes", nargs="+", choices=("light", "dark"), default=["light"])
    given.add_argument("--whole", action="store_true", help="the whole page, not a window of it")
    options = given.parse_args()
    asyncio.run(main(options.folder, options.schemes, whole=options.whole))
