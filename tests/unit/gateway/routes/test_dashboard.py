"""`/dashboard`: who gets the page and who its figures, when both end, and what they never hold."""

# ruff: noqa: ANN401 - JSON
from __future__ import annotations

import asyncio
import hashlib
import re
from base64 import b64encode
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from tests.patience import PATIENCE, until

from llm.gateway.routes.dashboard import MOST_VIEWERS
from llm.testing import Fault, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    Serving = Callable[..., Any]

PAGE, EVENTS, CHAT = "/dashboard", "/dashboard/events", "/v1/chat/completions"
ALICE, BOB, OPS = "of-alice-0123456789", "of-bob-0123456789", "of-ops-0123456789"
KEYS = {
    "alice": {"key": ALICE},
    "bob": {"key": BOB, "user": "robert"},
    "ops": {"key": OPS, "operator": True},
}
BROWSER = {"accept": "text/html,application/xhtml+xml"}
WITH_KEYS: dict[str, Any] = {"gateway": {"api_keys": KEYS}}
OFF: dict[str, Any] = {"features": {"dashboard": False}}


def of(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def asking(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}


class Stream:
    """The events of one viewer."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self._events = self._read()

    async def _read(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        event = "message"
        async for line in self.answer.content:
            name, _, value = line.decode().strip().partition(": ")
            if name == "event":
                event = value
            elif name == "data":
                yield event, orjson.loads(value)

    async def next(self) -> dict[str, Any]:
        async with SystemClock().timeout(PATIENCE):
            event, data = await anext(self._events)
        return {"event": event, **data}

    async def until(self, true: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        async with SystemClock().timeout(PATIENCE):
            while not true(told := await self.next()):
                pass
        return told


@asynccontextmanager
async def watching(it: Any, key: str | None = None) -> AsyncGenerator[Stream]:
    async with it.session.get(it.url + EVENTS, headers={} if key is None else of(key)) as answer:
        assert answer.status == 200, await answer.text()
        yield Stream(answer)


def quick(it: Any) -> Any:
    it.entry.dashboard.feed.interval = 0.02
    return it.entry.dashboard


async def test_without_keys_the_page_is_there_and_its_stream_shows_everything(serving: Serving) -> None:
    async with serving() as it:
        status, page, headers = await it.ask("GET", PAGE)
        assert status == 200
        assert headers["content-type"] == "text/html; charset=utf-8"
        assert "</html>" in page
        async with watching(it) as stream:
            told = await stream.next()
    assert told["hello"]["operator"] is True
    assert told["hello"]["key"] is None
    assert {"rates", "totals", "cost", "reasons", "cache", "provider openai", "points"} <= set(told)


async def test_the_page_runs_nothing_but_itself_and_loads_nothing(serving: Serving) -> None:
    async with serving() as it:
        _, page, headers = await it.ask("GET", PAGE)
    policy = headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert policy.count("unsafe") == 0
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    for name, pattern in (("script", r"<script type=\"module\">(.*?)</script>"), ("style", r"<style>(.*?)</style>")):
        (text,) = re.findall(pattern, page, re.DOTALL)
        assert len(text) > 5000
        assert f"{name}-src 'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert not re.findall(r"""(?:src|href|action)=["'](?!#|data:)""", page)
    assert " style=" not in page
    assert "http" not in page.replace("http://www.w3.org/", "")
    assert "innerHTML" not in page


async def test_with_keys_a_browser_without_one_gets_a_401_that_asks_for_it_and_no_figure(serving: Serving) -> None:
    async with serving(**WITH_KEYS) as it:
        status, page, headers = await it.ask("GET", PAGE, headers=BROWSER)
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert "Gateway key" in page
        assert (await it.ask("GET", PAGE, headers=of(ALICE) | BROWSER))[:2] == (200, page)
        assert (await it.ask("GET", PAGE, headers=of(ALICE)))[:2] == (200, page)
        status, told, _ = await it.ask("GET", PAGE)
        assert (status, told["error"]["type"]) == (401, "invalid_api_key")
        for headers in ({}, BROWSER, of("wrong"), BROWSER | of("wrong")):
            assert (await it.ask("GET", EVENTS, headers=headers))[0] == 401
            assert (await it.ask("GET", PAGE, headers=headers))[0] == 401
        assert it.entry.dashboard.feed.turn == 0
    assert not re.search(r"key-[0-9a-f]{8}|openai|gpt-4o-mini|alice", page)


async def test_a_key_in_the_address_or_a_cookie_is_no_key(serving: Serving) -> None:
    async with serving(**WITH_KEYS) as it:
        for query in (f"?key={OPS}", f"?api_key={OPS}", f"?authorization=Bearer%20{OPS}"):
            assert (await it.ask("GET", EVENTS + query))[0] == 401
        assert (await it.ask("GET", EVENTS, headers={"cookie": f"authorization=Bearer {OPS}; key={OPS}"}))[0] == 401
        basic = b64encode(f"ops:{OPS}".encode()).decode()
        assert (await it.ask("GET", EVENTS, headers={"authorization": f"Basic {basic}"}))[0] == 401


async def test_a_key_shows_its_own_users_calls_and_an_operators_those_of_all(serving: Serving) -> None:
    async with serving(**WITH_KEYS) as it:
        quick(it)
        async with watching(it, ALICE) as hers, watching(it, BOB) as his, watching(it, OPS) as all_:
            hello = [(await stream.next()) for stream in (hers, his, all_)]
            assert [told["hello"]["operator"] for told in hello] == [False, False, True]
            assert [told["hello"]["user"] for told in hello] == ["alice", "robert", "ops"]
            for key in (ALICE, BOB):
                assert (await it.ask("POST", CHAT, asking("Hello"), headers=of(key)))[0] == 200
            his_call = (await his.until(lambda told: "calls" in told))["calls"]
            her_call = (await hers.until(lambda told: "calls" in told))["calls"]
            seen: list[str] = []
            while len(seen) < 2:
                seen += [call["user"] for call in (await all_.until(lambda told: "calls" in told))["calls"]]
    assert [call["user"] for call in his_call] == ["robert"]
    assert [call["user"] for call in her_call] == ["alice"]
    assert seen == ["alice", "robert"]
    for told in hello[:2]:
        assert not {"cost", "reasons"} & set(told)
    assert {"cost", "reasons"} <= set(hello[2])


async def test_saturation_queue_and_the_decision_log_are_told_while_calls_run(serving: Serving) -> None:
    section = {"rate_limits": {"concurrent_requests": 2}, "api_keys": ["k-of-its-own"]}
    stalled = [Fault("stalled", at=1, times=2)]
    async with MockUpstream(faults=stalled) as up, serving(up, section=section, circuit_breaker={}) as it:
        quick(it)
        async with watching(it) as stream, asyncio.TaskGroup() as group:
            first = await stream.next()
            assert first["provider openai"]["keys"][0]["limits"]["gpt-4o-mini"] == [["concurrent_requests", 0, 2]]
            assert first["provider openai"]["breakers"]["gpt-4o-mini"]["state"] == "closed"
            asked = [group.create_task(it.ask("POST", CHAT, asking(f"Number {number}"))) for number in range(6)]
            full = await stream.until(lambda told: told["points"][-1][1:3] == [4, 2])
            assert full["provider openai"]["waiting"] == 4
            assert full["provider openai"]["keys"][0]["limits"]["gpt-4o-mini"] == [["concurrent_requests", 1, 2]]
            for task in asked[:2]:
                task.cancel()
            calls: list[Any] = []
            while len(calls) < 6:
                calls += (await stream.until(lambda told: "calls" in told))["calls"]
            await stream.until(lambda told: told["points"][-1][1:3] == [0, 0])
    assert [call["outcome"] for call in calls].count("cancelled") == 2
    waited = [call for call in calls if call["waited"]]
    assert len(waited) == 4
    assert [event for _, event, _ in waited[0]["log"]] == ["ticketed", "queued", "paid", "sent", "settled", "ended"]
    assert waited[0]["log"][1][2].startswith("concurrent_requests of the key key-")
    assert waited[0]["outcome"] == "answered"


async def test_a_key_that_rests_or_left_says_until_when_and_to_operators_why(serving: Serving) -> None:
    faults = [Fault("quota", at=1)]
    async with MockUpstream(faults=faults) as up, serving(up, section={"api_keys": ["k-spent"]}, **WITH_KEYS) as it:
        quick(it)
        assert (await it.ask("POST", CHAT, asking("Hello"), headers=of(ALICE)))[0] >= 400
        async with watching(it, OPS) as stream:
            told = await stream.next()
        (key,) = told["provider openai"]["keys"]
        assert key["state"] == "out_of_credit"
        assert list(told["reasons"]) == [f"openai {key['key']}"]
        assert told["errors"] == {"LLMQuotaExceededError": 1}


async def test_no_key_no_prompt_and_no_answer_is_ever_told(serving: Serving) -> None:
    secret = "sk-a-provider-key-0123456789"  # noqa: S105 - made up
    faults = [Fault("invalid", at=2)]
    async with (
        MockUpstream(answer=lambda _: "an answer of hers", faults=faults) as up,
        serving(up, section={"api_keys": [secret]}, cache={}, **WITH_KEYS) as it,
    ):
        quick(it)
        async with watching(it, OPS) as stream:
            seen = [await stream.next()]
            for text in ("a prompt of hers", "another of hers", "a third of hers"):
                await it.ask("POST", CHAT, asking(text, user="someone"), headers=of(ALICE))
            calls = 0
            while calls < 3:
                seen.append(told := await stream.next())
                calls += len(told.get("calls", ()))
    text = orjson.dumps(seen).decode()
    for hidden in ("of hers", secret, ALICE, BOB, OPS, "someone"):
        assert hidden not in text


@pytest.mark.parametrize("path", [PAGE, EVENTS])
async def test_switched_off_there_is_nothing_at_once_and_after_a_reload(serving: Serving, path: str) -> None:
    async with MockUpstream() as up:
        async with serving(up, **OFF) as it:
            assert (await it.ask("GET", path, headers=BROWSER))[0] == 404
        async with serving(up) as it:
            quick(it)
            async with watching(it) as stream:
                await stream.next()
                section = {"base_url": up.base_url, "api_keys": ["k1"], "models": ["gpt-4o-mini"]}
                await it.manager.reload({"providers": {"openai": section}, **OFF})
                assert (await it.ask("GET", path))[0] == 404
                end = await stream.until(lambda told: told["event"] == "end")
                assert end["why"] == "off"
            await it.manager.reload({"providers": {"openai": section}})
            async with watching(it) as stream:
                assert "hello" in await stream.next()


async def test_a_key_that_a_reload_takes_away_sees_nothing_more(serving: Serving) -> None:
    async with MockUpstream() as up, serving(up, **WITH_KEYS) as it:
        quick(it)
        section = {"base_url": up.base_url, "api_keys": ["k1"], "models": ["gpt-4o-mini"]}
        left = {"ops": {"key": OPS, "operator": False}, "bob": KEYS["bob"]}
        async with watching(it, ALICE) as hers, watching(it, OPS) as demoted, watching(it, BOB) as his:
            for stream in (hers, demoted, his):
                await stream.next()
            await it.manager.reload({"providers": {"openai": section}, "gateway": {"api_keys": left}})
            assert (await hers.until(lambda told: told["event"] == "end"))["why"] == "key"
            assert (await demoted.until(lambda told: told["event"] == "end"))["why"] == "restart"
            assert (await his.next())["event"] == "message"


async def test_a_drain_ends_the_streams_and_refuses_the_page(serving: Serving) -> None:
    async with serving() as it:
        dashboard = quick(it)
        async with watching(it) as stream:
            await stream.next()
            it.entry.draining = True
            assert (await stream.until(lambda told: told["event"] == "end"))["why"] == "restart"
        for path in (PAGE, EVENTS):
            assert (await it.ask("GET", path, headers=BROWSER))[0] == 503
        assert dashboard.feed.viewers == 0


async def test_the_server_ends_at_once_with_a_viewer(serving: Serving) -> None:
    async with serving() as it, watching(it) as stream:
        await stream.next()
        it.server.stop(60.0)
        assert (await stream.until(lambda told: told["event"] == "end"))["why"] == "restart"  # long before


async def test_one_viewer_too_many_is_told_to_come_back_and_one_that_leaves_makes_room(serving: Serving) -> None:
    async with serving() as it:
        dashboard = quick(it)
        answers = [await it.session.get(it.url + EVENTS) for _ in range(MOST_VIEWERS)]
        try:
            status, told, headers = await it.ask("GET", EVENTS)
            assert status == 503
            assert str(MOST_VIEWERS) in told["error"]["message"]
            assert int(headers["retry-after"]) >= 1
        finally:
            for answer in answers:
                answer.close()
        await until(lambda: not dashboard.feed.viewers)
        async with watching(it) as stream:
            assert "hello" in await stream.next()


async def test_whoever_asks_for_the_streams_head_alone_watches_nothing(serving: Serving) -> None:
    async with serving() as it:
        async with SystemClock().timeout(PATIENCE):
            status, body, headers = await it.ask("HEAD", EVENTS)
        assert (status, body) == (200, "")
        assert headers["content-type"].startswith("text/event-stream")
        assert it.entry.dashboard.feed.viewers == 0


async def test_while_nobody_looks_nothing_is_looked_at_and_plain_calls_are_not_kept(serving: Serving) -> None:
    async with serving() as it:
        dashboard = quick(it)
        journal = it.manager.parts.journal
        async with watching(it) as stream:
            await stream.next()
            assert journal.watched
        await until(lambda: not dashboard.feed.viewers)
        turn = dashboard.feed.turn
        assert not journal.watched
        await it.ask("POST", CHAT, asking("Hello"))
        await SystemClock().sleep(0.1)
        assert dashboard.feed.turn == turn
        assert journal.latest(0, 10) == []


async def test_a_viewer_that_reads_nothing_holds_no_more_than_the_sockets_do(serving: Serving) -> None:
    async with serving() as it:
        dashboard = quick(it)
        dashboard.feed.interval = 0.0005
        reader, writer = await asyncio.open_connection("127.0.0.1", it.server.servers[0].sockets[0].getsockname()[1])
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /dashboard/events HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        async with watching(it) as stream:
            before = await stream.next()
            (connection,) = [
                each
                for each in it.server.state.watched
                if each.transport.get_extra_info("peername") == writer.get_extra_info("sockname")
            ]
            written = dashboard.feed._write

            def large(since: int, caller: Any) -> bytes:
                return b'"x":"%b",%b' % (b"x" * 100_000, written(since, caller))

            dashboard.feed._write = large
            await until(connection.transport.get_write_buffer_size)
            held = connection.transport.get_write_buffer_size()
            turn = dashboard.feed.turn
            while dashboard.feed.turn < turn + 40:
                await stream.next()
            assert connection.transport.get_write_buffer_size() <= held + 200_000
        writer.transport.abort()
        assert before["hello"]


async def test_several_workers_say_so(serving: Serving) -> None:
    async with serving() as it:
        it.entry.dashboard.alone = False
        async with watching(it) as stream:
            assert (await stream.next())["hello"]["alone"] is False
