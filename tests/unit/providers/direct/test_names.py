from __future__ import annotations

import asyncio
import socket
import threading

import pytest
from tests.patience import PATIENCE

from llm.providers.direct.names import Names
from llm.testing import FakeClock


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the system was asked; it answers with two addresses."""
    asked: list[str] = []

    def answer(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        if host == "missing.test":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{last}", port)) for last in (1, 2)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


async def test_a_crowd_asks_once_and_later_callers_for_ten_seconds_not_at_all(looked_up: list[str]) -> None:
    clock = FakeClock()
    names = Names(clock)
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(names.find("vendor.test", 443)) for _ in range(100)]
    assert {len(task.result()) for task in asking} == {2}
    await names.find("vendor.test", 443)
    assert looked_up == ["vendor.test"]
    await clock.advance(10.5)
    await names.find("vendor.test", 443)
    assert looked_up == ["vendor.test"] * 2


async def test_who_leaves_takes_the_answer_from_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    looked_up: list[str] = []

    def slowly(host: str, port: int, **_: object) -> list[object]:
        looked_up.append(host)
        go.wait(PATIENCE)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    names = Names(FakeClock())
    asking = [asyncio.create_task(names.find("vendor.test", 443)) for _ in range(3)]
    turn = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turn.set_result, None)
    await turn
    asking[0].cancel()
    await asyncio.wait(asking[:1])
    go.set()
    await asyncio.wait(asking)
    assert asking[0].cancelled()
    assert len(asking[1].result()) == len(asking[2].result()) == 1
    assert len(looked_up) == 1


async def test_a_failure_is_told_to_all_and_not_remembered(looked_up: list[str]) -> None:
    names = Names(FakeClock())
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await names.find("missing.test", 443)
    assert len(looked_up) == 2


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
async def test_an_address_is_not_looked_up(looked_up: list[str], host: str, family: int) -> None:
    addresses = await Names(FakeClock()).find(host, 80)
    assert [address[0] for address in addresses] == [family]
    assert not looked_up
