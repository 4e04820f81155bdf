"""The dashboard in a real browser, in front of a gateway that is busy."""

from __future__ import annotations

import asyncio
import re
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from llm.testing import Fault, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from playwright.async_api import Browser, Page

    Gateways = Callable[..., AbstractAsyncContextManager[Any]]

pytestmark = pytest.mark.browser

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHAT = "/v1/chat/completions"
KEY = "of-an-operator-0123456789"
ALICE = "of-alice-0123456789"
STORY = "Once upon a time there was a token that waited for its bucket, and the bucket filled. " * 4
WIDTHS = ((1440, 900), (390, 844))
VIOLATIONS = (
    "window.refused = []; addEventListener('securitypolicyviolation', (e) => refused.push(e.violatedDirective))"
)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    playing = pytest.importorskip("playwright.async_api")
    found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"needs one of {', '.join(PROGRAMS)}")
    async with playing.async_playwright() as player:
        browser = await player.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        await browser.close()


@asynccontextmanager
async def opened(  # noqa: PLR0913 - what a window is, most of it with its default
    browser: Browser, url: str, *, width: int = 1440, height: int = 900, dark: bool = False, allowed: str = "^$"
) -> AsyncGenerator[Page]:
    """Open the dashboard; nothing may go wrong in the page but what is allowed."""
    wrong: list[str] = []
    context = await browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
    )
    await context.add_init_script(VIOLATIONS)
    page = await context.new_page()
    page.on("console", lambda message: wrong.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    await page.goto(f"{url}/dashboard")
    yield page
    assert await page.evaluate("refused") == []
    await context.close()
    assert [text for text in wrong if not re.search(allowed, text)] == []


def section(up: MockUpstream, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    told = {"base_url": up.base_url, "api_keys": ["k-one", "k-two"], "models": ["gpt-4o-mini"], **more}
    return {"providers": {"openai": told}, "circuit_breaker": {}, "cache": {}}


def asking(text: str) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]}


async def seen(page: Page, expression: str) -> None:
    """Wait until an expression is true in the page."""
    async with SystemClock().timeout(15.0):
        while not await page.evaluate(expression):  # `wait_for_function` would need what the page's policy forbids
            await SystemClock().sleep(0.05)


async def tab_to(page: Page, name: str) -> None:
    """Press Tab until the element of this id has the focus, visibly."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement.id") == name:
            style = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert style == "solid"
            return
    raise AssertionError(f"Tab does not reach {name}")


async def test_saturation_and_queue_move_while_calls_run_and_a_call_tells_why_it_waited(
    browser: Browser, gateway: Gateways, tmp_path: Path
) -> None:
    limits = [{"concurrent_requests": 2}, {"concurrent_requests": 1}]
    async with (
        MockUpstream(faults=[Fault("stalled", at=1, times=3)]) as up,
        gateway(section(up, rate_limits=limits)) as it,
        opened(browser, it.url) as page,
    ):
        await page.get_by_text("Live", exact=True).wait_for()
        assert await page.locator("#t-queue").inner_text() == "0"
        assert await page.get_by_role("meter").count() == 2
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(it.ask("POST", CHAT, asking(f"Number {number}"))) for number in range(8)]
            await seen(page, "document.getElementById('t-queue').textContent === '5'")
            await seen(page, "document.querySelectorAll('[role=meter][aria-valuenow=\"100\"]').length === 2")
            assert await page.locator("#t-queue-sub").inner_text() == "3 in flight"
            assert "waiting 5" in (await page.locator("#c-queue svg").get_attribute("aria-label") or "").lower()
            for width, height in WIDTHS:
                await page.set_viewport_size({"width": width, "height": height})
                taken = await page.screenshot(path=tmp_path / f"{width}.png", full_page=True)
                assert len(taken) > 20_000
            await page.set_viewport_size({"width": 1440, "height": 900})
            for task in asked[:3]:
                task.cancel()
        await seen(page, "document.getElementById('t-queue').textContent === '0'")
        await seen(page, "document.querySelectorAll('tr.call').length === 8")
        await page.get_by_role("button", name="Waited").click()
        assert await page.locator("tr.call").count() == 5
        fold = page.locator("tr.call .fold").first
        await fold.focus()
        await page.keyboard.press("Enter")
        log = page.locator("tr.log")
        await log.wait_for()
        assert await fold.get_attribute("aria-expanded") == "true"
        events = await log.locator("li b").all_inner_texts()
        assert events == ["ticketed", "queued", "paid", "sent", "settled", "ended"]
        assert "concurrent_requests of the key key-" in await log.inner_text()
        await page.get_by_role("button", name="Failed").click()
        assert await page.locator("tr.call .badge").all_inner_texts() == ["Cancelled"] * 3


async def test_a_prompt_is_tried_by_keyboard_alone_streams_and_stops(browser: Browser, gateway: Gateways) -> None:
    async with (
        MockUpstream(answer=lambda _: STORY, service=2.0) as up,
        gateway(section(up)) as it,
        opened(browser, it.url) as page,
    ):
        await page.get_by_text("Live", exact=True).wait_for()
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "Skip to the figures"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"
        await tab_to(page, "try-model")
        await tab_to(page, "try-prompt")
        await page.keyboard.type("Tell me a story.")
        await page.keyboard.press("Control+Enter")
        answer = page.locator("#try-answer")
        await seen(page, "document.getElementById('try-answer').textContent.length > 20")
        part = await answer.inner_text()
        assert STORY.startswith(part)
        assert len(part) < len(STORY)
        await seen(page, "document.getElementById('try-note').textContent === 'Done.'")
        assert (await answer.inner_text()).strip() == STORY.strip()
        names, values = [await page.locator(f"#try-facts {part}").all_inner_texts() for part in ("dt", "dd")]
        told = dict(zip(names, values, strict=True))
        assert (told["Ended by"], told["Provider"], told["Cache"]) == ("stop", "openai", "miss")
        assert float(told["Tokens per s"]) > 10
        await page.keyboard.type(" Another one.")
        await page.keyboard.press("Control+Enter")
        await seen(page, "document.getElementById('try-answer').textContent.length > 20")
        await tab_to(page, "try-stop")
        await page.keyboard.press("Enter")
        await seen(page, "document.getElementById('try-note').textContent === 'Stopped.'")
        await seen(page, "[...document.querySelectorAll('tr.call .badge')].some((b) => b.textContent === 'Cancelled')")
        await page.locator("#try-prompt").fill("A model that fails")
        await page.locator("#try-most").fill("3")
        await page.keyboard.press("Enter")
        await seen(page, "document.getElementById('try-facts').textContent.includes('length')")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), WIDTHS)
async def test_it_is_readable_at_this_width_and_in_these_colours(
    browser: Browser, gateway: Gateways, width: int, height: int, *, dark: bool
) -> None:
    long = "a-model-of-a-very-long-name-that-somebody-thought-was-a-good-idea-20260131"
    limits = {"requests_per_minute": 100, "input_tokens_per_minute": 1_000_000, "output_tokens_per_minute": 9000}
    faults = [Fault("quota", at=1, key="k-one")]
    async with (
        MockUpstream(faults=faults) as up,
        gateway(section(up, models=["gpt-4o-mini", long], rate_limits=limits)) as it,
        opened(browser, it.url, width=width, height=height, dark=dark) as page,
    ):
        await page.get_by_text("Live", exact=True).wait_for()
        for number in range(4):
            await it.ask("POST", CHAT, asking(f"Number {number}") | {"model": long if number % 2 else "gpt-4o-mini"})
        await page.get_by_text("Out of credit", exact=True).wait_for()
        await page.locator("tr.call .fold").first.click()
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        assert await page.evaluate(
            "[...document.querySelectorAll('.card')].every((c) => c.scrollWidth <= c.clientWidth)"
        )
        before = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(re.findall(r"\d+", before)[0]) < 60) is dark
        theme = page.get_by_role("button", name=re.compile("Colours"))
        for wanted in ("light", "dark"):
            await theme.click()
            colour = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (int(re.findall(r"\d+", colour)[0]) < 60) is (wanted == "dark")


async def test_with_keys_the_page_asks_for_one_keeps_it_in_the_tab_and_says_when_the_connection_is_lost(
    browser: Browser, gateway: Gateways
) -> None:
    async with MockUpstream() as up:
        keys = {"ops": {"key": KEY, "operator": True}}
        config = {**section(up), "gateway": {"api_keys": keys}}
        async with (
            gateway(config) as it,
            opened(browser, it.url, allowed="401|Failed to fetch|ERR_|net::") as page,
        ):
            field = page.get_by_label("Gateway key")
            await field.wait_for()
            assert await page.locator("#main").is_hidden()
            await field.fill("ключ")
            await page.keyboard.press("Enter")
            await page.get_by_text("does not take that key").wait_for()
            await page.reload()
            await field.fill("wrong")
            await page.keyboard.press("Enter")
            await page.get_by_text("does not take that key").wait_for()
            await field.fill(KEY)
            await page.keyboard.press("Enter")
            await page.get_by_text("Live", exact=True).wait_for()
            assert KEY not in page.url
            assert KEY not in await page.content()
            assert await page.evaluate("JSON.stringify(localStorage) + document.cookie") == "{}"
            await page.reload()
            await page.get_by_text("Live", exact=True).wait_for()
            await page.get_by_role("button", name="Sign out").click()
            await field.wait_for()
            assert await page.evaluate("JSON.stringify(sessionStorage)") == "{}"
            await field.fill(KEY)
            await page.keyboard.press("Enter")
            await page.get_by_text("Live", exact=True).wait_for()
            it.server.stop(0.0)
            await page.get_by_text("Connection lost").first.wait_for()
            assert await page.locator("main.stale").count() == 1


async def test_who_signs_out_leaves_the_next_in_this_tab_no_prompt_no_answer_and_no_model(
    browser: Browser, gateway: Gateways
) -> None:
    async with MockUpstream() as up:
        keys = {"ops": {"key": KEY, "operator": True}, "alice": {"key": ALICE, "models": ["gpt-4o-mini"]}}
        config = {**section(up, models=["gpt-4o-mini", "gpt-4o"]), "gateway": {"api_keys": keys}}
        async with gateway(config) as it, opened(browser, it.url, allowed="401") as page:
            field = page.get_by_label("Gateway key")
            await field.fill(KEY)
            await page.keyboard.press("Enter")
            await seen(page, "document.getElementById('try-model').options.length === 2")
            await page.locator("#try-prompt").fill("Of a secret plan")
            await page.locator("#try-prompt").press("Control+Enter")
            await seen(page, "document.getElementById('try-note').textContent === 'Done.'")
            await page.get_by_role("button", name="Sign out").click()
            await field.wait_for()
            assert "secret plan" not in await page.content()
            assert await page.locator("#try-prompt").input_value() == ""
            await field.fill(ALICE)
            await page.keyboard.press("Enter")
            await seen(page, "document.getElementById('try-model').options.length === 1")
            assert "secret plan" not in await page.content()
            assert await page.locator(".slot").count() == 2
