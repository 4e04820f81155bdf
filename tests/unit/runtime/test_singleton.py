"""The one manager of the process: however many ask, in whichever loop."""

# ruff: noqa: ANN401 - options as they come, and doubles of more than one kind

from __future__ import annotations

import asyncio
import json
import os
import threading
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMConfigurationError, LLMManager, close_llm_manager, get_llm_manager, register_provider
from llm.runtime import singleton
from llm.testing import FakeProvider
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def config(*, model: str = "m", **section: Any) -> dict[str, Any]:
    return {"providers": {"life-one": {"models": [model], **section}}}


async def tick() -> None:
    await SystemClock().sleep(0)


@pytest.fixture(autouse=True)
async def fresh() -> AsyncIterator[None]:
    register_provider("life-one", lambda _: FakeProvider())
    yield
    await close_llm_manager()


async def test_however_many_tasks_ask_at_once_there_is_one_manager() -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(get_llm_manager(config())) for _ in range(100)]
    managers = {id(task.result()) for task in tasks}
    assert len(managers) == 1
    assert id(await get_llm_manager()) in managers


async def test_a_cancelled_first_asker_does_not_take_it_from_the_others() -> None:
    first = asyncio.create_task(get_llm_manager(config()))
    await tick()
    others = [asyncio.create_task(get_llm_manager(config())) for _ in range(3)]
    await tick()
    first.cancel()
    managers = [await other for other in others]
    assert first.cancelled()
    assert len(set(map(id, managers))) == 1
    assert str(await managers[0].get_client().chat("hello")) == "hello"


async def test_a_failed_opening_is_tried_again_by_the_next() -> None:
    for _ in range(2):
        with pytest.raises(LLMConfigurationError, match="retri"):
            await get_llm_manager({"retri": {}})
    assert not (await get_llm_manager(config())).closed


async def test_a_failure_that_nobody_waits_for_any_more_is_told_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    asker = asyncio.create_task(get_llm_manager({"retri": {}}))
    await tick()
    asker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asker
    await close_llm_manager()
    assert caplog.records == []


async def test_another_configuration_is_refused_and_an_equal_one_is_not(tmp_path: Path) -> None:
    manager = await get_llm_manager(config())
    path = tmp_path / "llm.yaml"
    path.write_text(json.dumps(config()), encoding="utf-8")
    assert await get_llm_manager(config()) is manager
    assert await get_llm_manager(path) is manager
    assert await get_llm_manager(manager.config) is manager
    with pytest.raises(LLMConfigurationError, match=r"reload|close_llm_manager|LLMManager.open"):
        await get_llm_manager(config(model="other"))
    await manager.reload(config(model="other"))
    assert await get_llm_manager(config(model="other")) is manager


async def test_after_closing_there_is_a_new_one_by_whatever_way_it_was_closed() -> None:
    first = await get_llm_manager(config())
    await close_llm_manager()
    await close_llm_manager()
    assert first.closed
    second = await get_llm_manager(config(model="other"))
    await second.close()
    third = await get_llm_manager(config())
    assert len({id(first), id(second), id(third)}) == 3
    assert str(await third.get_client().chat("hello")) == "hello"


async def test_closing_while_it_opens_waits_for_it_and_closes_it() -> None:
    asker = asyncio.create_task(get_llm_manager(config()))
    await tick()
    await close_llm_manager()
    assert (await asker).closed
    assert not (await get_llm_manager(config())).closed


def _whole_life(texts: list[str]) -> None:
    async def main() -> None:
        manager = await get_llm_manager(config())
        texts.append(str(await manager.get_client().chat("hello")))

    asyncio.run(main())


def test_successive_loops_each_get_a_working_one_and_closed_loops_are_forgotten() -> None:
    texts: list[str] = []
    for _ in range(5):
        _whole_life(texts)
    assert texts == ["hello"] * 5
    closed = [loop for loop in singleton._managers if loop.is_closed()]  # pyright: ignore[reportPrivateUsage]
    assert len(closed) <= 1


def test_threads_with_loops_of_their_own_each_get_a_working_one() -> None:
    texts: list[str] = []
    threads = [threading.Thread(target=_whole_life, args=(texts,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert texts == ["hello"] * 4


async def test_managers_of_one_key_at_one_address_share_its_limits_and_others_do_not() -> None:
    def at(address: str, name: str = "openai") -> dict[str, Any]:
        section = {
            "type": "openai", "base_url": address, "api_keys": ["sk-shared-life"], "models": ["gpt-4o-mini"],
            "rate_limits": {"requests_per_minute": 10, "tokens_per_minute": 10_000},
        }  # fmt: skip
        return {"providers": {name: section}}

    def level(manager: LLMManager) -> float:
        (provider,) = manager.get_status()["providers"].values()
        return float(provider["keys"][0]["models"]["gpt-4o-mini"]["requests_per_minute"])

    async with (
        LLMManager.open(at("http://127.0.0.1:9/v1")) as one,
        LLMManager.open(at("http://127.0.0.1:9", name="same")) as same,
        LLMManager.open(at("http://127.0.0.1:10/v1")) as elsewhere,
    ):
        queue = one._routes.parts.chains["openai"].pool.queue  # pyright: ignore[reportPrivateUsage]
        assert level(one) == level(same) == level(elsewhere) == 0.0
        route, request, _ = one.get_client().prepare(_request())
        call = request.call
        assert call is not None
        call.ticketed(0.0, route.chain.ticket(request, "gpt-4o-mini"))
        grant = await queue.pay(call)
        call.sent(0.0)
        assert level(one) == level(same) == pytest.approx(0.1, abs=0.01)
        assert level(elsewhere) == 0.0
        assert grant.slot.model == "gpt-4o-mini"
        call.ended(0.0)


def _request() -> Any:
    from llm import LLMRequest  # noqa: PLC0415 - only here

    return LLMRequest("hello", max_tokens=5)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_gets_a_fresh_working_one_and_the_parents_goes_on() -> None:
    async def ask() -> str:
        return str(await (await get_llm_manager(config())).get_client().chat("hello"))

    with asyncio.Runner() as runner:
        assert runner.run(ask()) == "hello"
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writing, asyncio.run(ask()).encode())
            finally:
                os._exit(0)
        os.close(writing)
        assert os.read(reading, 100) == b"hello"
        os.close(reading)
        assert os.waitpid(child, 0)[1] == 0
        assert runner.run(ask()) == "hello"


PLANTED = "plain_planted_key_BETA"


@pytest.mark.parametrize(
    ("mistake", "others"),
    [({"zzz": 1}, False), ({"type": "nope"}, False), ({"zzz": 1}, True), ({"type": "nope"}, True), ({}, True)],
)
async def test_no_key_of_a_plain_mapping_is_in_a_traceback(mistake: dict[str, Any], *, others: bool) -> None:
    if others:
        await get_llm_manager(config())
    with pytest.raises(LLMConfigurationError) as caught:
        await get_llm_manager({"providers": {"openai": {"api_keys": [PLANTED], "models": ["m"], **mistake}}})
    frames = traceback.StackSummary.extract(traceback.walk_tb(caught.value.__traceback__), capture_locals=True)
    assert PLANTED not in "".join(repr(frame.locals) for frame in frames if frame.filename != __file__)
