"""`watch: true`: a configuration that changes on the disk is in force soon, and a bad one changes nothing."""

# ruff: noqa: ANN401 - options as they come

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMManager, close_llm_manager, get_llm_manager, register_provider
from llm.testing import FakeClock, FakeProvider
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llm import ProviderSettings

PLANTED = "planted_key_of_a_watched_file"


class Bench:
    """A folder with a configuration, and a manager that watches it on a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.file = folder / "llm.yaml"
        self.secret = folder / "secret"
        self.secret.write_text("first_key\n", encoding="utf-8")
        self.keys: list[str] = []
        register_provider("watched", self.make)

    def make(self, settings: ProviderSettings) -> FakeProvider:
        self.keys.append("" if settings.key is None else settings.key.reveal())
        return FakeProvider()

    def config(self, *models: str, watch: bool = True, **sections: Any) -> dict[str, Any]:
        section = {"type": "watched", "api_keys": ["${file:secret}"], "models": list(models or ("m",))}
        return {"watch": watch, "providers": {"watched": section}, **sections}

    def write(self, *models: str, **sections: Any) -> None:
        self.text(json.dumps(self.config(*models, **sections)))

    def text(self, text: str) -> None:
        self.file.write_text(text, encoding="utf-8")
        self.touch()

    def touch(self) -> None:
        """Move the file's time on: two writes may share the same tick of the disk's clock."""
        known = self.file.stat().st_mtime_ns
        os.utime(self.file, ns=(known, known + 1_000_000 * (1 + len(self.keys))))

    async def pass_(self, seconds: float) -> None:
        """Let time pass, with moments of the machine's time in which a thread can look."""
        for _ in range(round(seconds / 0.5)):
            await self.clock.advance(0.5)
            for _ in range(3):
                await SystemClock().sleep(0.002)

    async def until(self, holds: Callable[[], bool]) -> None:
        for _ in range(40):
            if holds():
                return
            await self.pass_(0.5)
        raise AssertionError


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def models(manager: LLMManager) -> tuple[str, ...]:
    return manager.config.providers["watched"].models


async def test_a_changed_file_is_in_force_soon_with_its_keys_limits_models_and_features(bench: Bench) -> None:
    bench.write()
    async with LLMManager.open(bench.file, clock=bench.clock) as manager:
        assert manager.config.features.dashboard
        semantic = {"semantic_cache": {"model": "watched/m"}}
        bench.write("m", "n", features={"dashboard": False, "semantic_cache": True}, limits={"global": {}}, **semantic)
        await bench.until(lambda: models(manager) == ("m", "n"))
        features = manager.config.features
        assert (features.dashboard, features.semantic_cache, features.graphql) == (False, True, True)
        assert str(await manager.get_client().chat("hello", model="n")) == "hello"


def rename(bench: Bench) -> None:
    other = bench.file.with_name("other")
    other.write_text(json.dumps(bench.config("n")), encoding="utf-8")
    known = bench.file.stat()
    os.utime(other, ns=(known.st_atime_ns, known.st_mtime_ns))  # only its place on the disk tells
    other.replace(bench.file)


def in_place(bench: Bench) -> None:
    bench.write("n")


def removed_and_written_anew(bench: Bench) -> None:
    bench.file.unlink()
    bench.write("n")


def as_if_it_were_older(bench: Bench) -> None:
    known = bench.file.stat()
    bench.file.write_text(json.dumps(bench.config("n")), encoding="utf-8")
    os.utime(bench.file, ns=(known.st_atime_ns, known.st_mtime_ns))  # of the same size, too


@pytest.mark.parametrize("change", [rename, in_place, removed_and_written_anew, as_if_it_were_older])
async def test_a_file_is_seen_to_change_however_it_is_replaced(bench: Bench, change: Callable[[Bench], None]) -> None:
    bench.write()
    async with LLMManager.open(bench.file, clock=bench.clock) as manager:
        await bench.pass_(3.0)
        change(bench)
        await bench.until(lambda: models(manager) == ("n",))


async def test_a_link_on_the_way_that_leads_elsewhere_is_seen_as_kubernetes_swaps_it(tmp_path: Path) -> None:
    benches: list[Bench] = []
    for day, model in (("monday", "m"), ("tuesday", "new")):
        (tmp_path / day).mkdir()
        benches.append(Bench(tmp_path / day))
        benches[-1].write(model)
    inner = benches[-1]
    (tmp_path / "..data").symlink_to("monday")
    for name in ("llm.yaml", "secret"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    clock = inner.clock
    async with LLMManager.open(tmp_path / "llm.yaml", clock=clock) as manager:
        await inner.pass_(3.0)
        (tmp_path / "..data_tmp").symlink_to("tuesday")
        (tmp_path / "..data_tmp").replace(tmp_path / "..data")
        await inner.until(lambda: models(manager) == ("new",))


@pytest.mark.parametrize("mapping", [False, True])
async def test_a_secret_that_changes_is_read_again_also_where_a_mapping_names_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, mapping: bool
) -> None:
    bench.write()
    monkeypatch.chdir(bench.file.parent)
    async with LLMManager.open(bench.config() if mapping else bench.file, clock=bench.clock) as manager:
        await bench.pass_(3.0)
        bench.secret.write_text("second_key_is_longer\n", encoding="utf-8")
        await bench.until(lambda: bench.keys[-1] == "second_key_is_longer")
        assert bench.keys == ["first_key", "second_key_is_longer"]
        assert models(manager) == ("m",)


async def test_a_change_between_reading_and_the_first_look_is_seen(bench: Bench) -> None:
    bench.write()
    manager = await LLMManager.open(bench.file, clock=bench.clock)
    bench.write("new")  # no look was there yet
    await bench.until(lambda: models(manager) == ("new",))
    await manager.close()


async def test_a_touch_without_a_change_renews_nothing(bench: Bench) -> None:
    bench.write()
    async with LLMManager.open(bench.file, clock=bench.clock):
        await bench.pass_(3.0)
        bench.touch()
        await bench.pass_(6.0)
        assert bench.keys == ["first_key"]


async def test_a_bad_file_changes_nothing_and_is_logged_once_with_its_mistakes_and_no_secret(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.write()
    async with LLMManager.open(bench.file, clock=bench.clock) as manager:
        await bench.pass_(3.0)
        before = manager.config
        bad = bench.config("new", retry={"max_attempts": -3}, zzz=1)
        bad["providers"]["watched"]["api_keys"] = [PLANTED, PLANTED + " "]
        bench.text(json.dumps(bad))
        await bench.pass_(10.0)
        assert manager.config is before
        (record,) = caplog.records
        assert (record.name, record.levelname) == ("llm.config", "WARNING")
        told = record.getMessage()
        assert "stays in force" in told
        assert "retry.max_attempts" in told
        assert "zzz" in told
        assert PLANTED not in told
        assert str(await manager.get_client().chat("hello")) == "hello"
        bench.write("new")
        await bench.until(lambda: models(manager) == ("new",))


async def test_what_cannot_change_by_a_reload_is_logged_by_name(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.write()
    async with LLMManager.open(bench.file, clock=bench.clock) as manager:
        bench.write("new", gateway={"port": 9999})
        await bench.until(lambda: bool(caplog.records))
        assert "gateway.port" in caplog.text
        assert models(manager) == ("m",)


async def test_what_a_providers_own_code_raises_is_logged_by_its_kind_and_watching_goes_on(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.write()

    def fail(_: ProviderSettings) -> FakeProvider:
        raise OSError(PLANTED)

    async with LLMManager.open(bench.file, clock=bench.clock) as manager:
        register_provider("watched", fail)
        bench.write("new")
        await bench.until(lambda: bool(caplog.records))
        assert "OSError" in caplog.text
        assert PLANTED not in caplog.text
        register_provider("watched", bench.make)
        bench.write("newer")
        await bench.until(lambda: models(manager) == ("newer",))


async def test_a_file_that_is_still_being_written_is_left_until_it_stays_as_it_is(bench: Bench) -> None:
    bench.write()
    async with LLMManager.open(bench.file, clock=bench.clock) as manager:
        await bench.pass_(3.0)
        for part in range(60):
            bench.text(json.dumps(bench.config("half")) + "\n" * part)
            await bench.clock.advance(0.1)
            await SystemClock().sleep(0.004)
        assert models(manager) == ("m",)
        bench.write("whole")
        await bench.until(lambda: models(manager) == ("whole",))


async def test_the_file_itself_can_end_the_watching_and_a_reload_can_begin_it(bench: Bench) -> None:
    bench.write()
    async with LLMManager.open(bench.file, clock=bench.clock) as manager:
        bench.write("n", watch=False)
        await bench.until(lambda: models(manager) == ("n",))
        bench.write("o")
        await bench.pass_(10.0)
        assert models(manager) == ("n",)
        await manager.reload()
        assert models(manager) == ("o",)
        bench.write("p")
        await bench.until(lambda: models(manager) == ("p",))


async def test_after_a_reload_from_elsewhere_that_is_watched_and_no_longer_the_first(bench: Bench) -> None:
    bench.write()
    other = bench.file.with_name("other.yaml")
    other.write_text(json.dumps(bench.config("o")), encoding="utf-8")
    async with LLMManager.open(bench.file, clock=bench.clock) as manager:
        await bench.pass_(3.0)
        await manager.reload(other)
        bench.write("n")
        await bench.pass_(6.0)
        assert models(manager) == ("o",)
        other.write_text(json.dumps(bench.config("longer")), encoding="utf-8")
        await bench.until(lambda: models(manager) == ("longer",))


async def test_where_there_is_nothing_to_watch_it_says_so_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    plain = {"watch": True, "providers": {"watched": {"api_keys": ["k"], "models": ["m"]}}}
    async with LLMManager.open(plain, clock=bench.clock) as manager:
        await bench.pass_(10.0)
        (record,) = caplog.records
        assert "no file to watch" in record.getMessage()
    caplog.clear()
    async with LLMManager.open(manager.config, clock=bench.clock):
        await bench.pass_(3.0)
    assert "no file to watch" in caplog.text


async def test_nothing_is_left_of_it_after_closing_even_as_it_looks(bench: Bench) -> None:
    for seconds in (0.0, 2.0, 2.0 + 2.1):
        bench.write()
        manager = await LLMManager.open(bench.file, clock=bench.clock)
        await bench.pass_(seconds)
        bench.write("new")
        await bench.clock.advance(2.0)  # a look begins, and did not end yet
        await manager.close()
        assert bench.clock.timers == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_file_that_changes_as_the_manager_closes_is_no_failure(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.write()
    manager = await LLMManager.open(bench.file, clock=bench.clock)
    await bench.pass_(3.0)
    manager._routes.calls.closing = True  # pyright: ignore[reportPrivateUsage]  # as `close` begins
    bench.write("new")
    await bench.pass_(4.0)
    assert caplog.records == []
    await manager.close()


async def test_the_processs_manager_is_the_files_whatever_stands_in_it_by_now(bench: Bench) -> None:
    bench.write()
    try:
        manager = await get_llm_manager(bench.file)
        bench.text("providers: {")
        assert await get_llm_manager(bench.file) is manager
        assert await get_llm_manager(manager.config) is manager
    finally:
        await close_llm_manager()


async def test_a_file_that_is_gone_for_a_while_is_told_once_and_read_when_it_is_there(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.write()
    async with LLMManager.open(bench.file, clock=bench.clock) as manager:
        await bench.pass_(3.0)
        bench.file.unlink()
        await bench.pass_(8.0)
        (record,) = caplog.records
        assert "there is no such file" in record.getMessage()
        assert models(manager) == ("m",)
        bench.write("new")
        await bench.until(lambda: models(manager) == ("new",))


async def test_a_look_that_a_reload_overtakes_changes_nothing(bench: Bench) -> None:
    bench.write()
    plain = {"providers": {"watched": {"api_keys": ["k"], "models": ["plain"]}}}
    for ticks in (0, 1):
        async with LLMManager.open(bench.file, clock=bench.clock) as manager:
            watch = manager._watch  # pyright: ignore[reportPrivateUsage]
            await bench.clock.advance(1.9)
            watch._due()  # pyright: ignore[reportPrivateUsage]
            for _ in range(ticks):
                await SystemClock().sleep(0)
            watch.stop()
            await manager.reload(plain)
            await bench.pass_(6.0)
            assert models(manager) == ("plain",)


async def test_an_empty_file_is_told_once_and_changes_nothing_before_there_is_something_in_it(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.write()
    async with LLMManager.open(bench.file, clock=bench.clock) as manager:
        await bench.pass_(3.0)
        bench.text("")
        await bench.pass_(8.0)
        (record,) = caplog.records
        assert "is empty" in record.getMessage()
        assert models(manager) == ("m",)
        bench.write("new")
        await bench.until(lambda: models(manager) == ("new",))


@pytest.mark.parametrize("named", [True, False])
async def test_a_program_that_changes_its_folder_goes_on_with_the_same_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, named: bool
) -> None:
    bench.write()
    monkeypatch.chdir(bench.file.parent)
    source = bench.file.name if named else None
    async with LLMManager.open(source, clock=bench.clock) as manager:
        monkeypatch.chdir("/")
        await bench.pass_(3.0)
        bench.write("new")
        await bench.until(lambda: models(manager) == ("new",))
        bench.write("newer")
        await manager.reload()
        assert models(manager) == ("newer",)


async def test_a_file_in_a_usual_place_that_is_gone_for_a_while_is_watched_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write()
    monkeypatch.chdir(bench.file.parent)
    async with LLMManager.open(clock=bench.clock) as manager:
        await bench.pass_(3.0)
        bench.file.unlink()
        await bench.pass_(4.0)
        assert models(manager) == ("m",)
        bench.write("new")
        await bench.until(lambda: models(manager) == ("new",))


async def test_the_processs_manager_is_its_files_by_whatever_path(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.write()
    monkeypatch.chdir(bench.file.parent)
    try:
        manager = await get_llm_manager(bench.file.name)
        bench.write("new")
        for path in (bench.file.name, bench.file):
            assert await get_llm_manager(path) is manager
    finally:
        await close_llm_manager()
