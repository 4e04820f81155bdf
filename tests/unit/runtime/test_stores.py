"""Where answers are kept: what is opened, what stands in front of it, and what is refused."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMConfigurationError, LLMManager
from llm.cache import DiskCache, InMemoryCache, RedisCache
from llm.cache.levels import TwoLevels
from llm.core.config.sections import CacheConfig
from llm.runtime.stores import kind_of, open_cache, open_store, place_of
from llm.testing import FakeClock, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from pathlib import Path

NOWHERE = "redis://127.0.0.1:1/0"
PASSWORD = "hunter2-of-the-store"  # noqa: S105 - planted


def stated(**fields: Any) -> CacheConfig:  # noqa: ANN401 - fields as they come
    return CacheConfig.model_validate(fields)


def config(**cache: object) -> dict[str, Any]:
    provider = {"base_url": "http://upstream.test/v1", "api_keys": ["sk-test-1"], "models": ["gpt-4o-mini"]}
    return {"providers": {"openai": provider}, "cache": cache}


@pytest.mark.parametrize(
    ("fields", "store", "cache"),
    [
        ({}, InMemoryCache, InMemoryCache),
        ({"backend": "disk"}, DiskCache, TwoLevels),
        ({"backend": "redis", "url": NOWHERE}, RedisCache, TwoLevels),
        ({"backend": "redis", "url": NOWHERE, "memory_bytes": 0}, RedisCache, RedisCache),
    ],
    ids=str,
)
async def test_each_backend_is_opened_and_memory_stands_before_what_processes_share(
    fields: dict[str, object], store: type, cache: type
) -> None:
    for opened, expected in ((open_store, store), (open_cache, cache)):
        backend = await asyncio.to_thread(opened, stated(**fields), SystemClock())
        assert type(backend) is expected
        await backend.close()


@pytest.mark.parametrize(
    ("url", "place"),
    [
        (f"redis://ops:{PASSWORD}@store.test:6380/3", "redis://store.test:6380/3"),
        (f"rediss://:{PASSWORD}@store.test", "rediss://store.test"),
        (f"redis://store.test/0?password={PASSWORD}", "redis://store.test/0"),
        (f"unix:///run/redis.sock?password={PASSWORD}", "unix:///run/redis.sock"),
    ],
)
def test_a_place_is_told_without_a_password(url: str, place: str) -> None:
    assert place_of(stated(backend="redis", url=url)) == place


def test_other_places_are_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert place_of(stated(backend="disk", path="store")) == str(tmp_path / "store")
    assert place_of(stated()) == "memory"


def test_what_is_at_a_path_is_told_also_where_nobody_may_look(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    found = [kind_of(tmp_path / name) for name in ("", "file", "none", "file/none", "loop")]
    assert found == ["folder", "file", "nothing", "nothing", "hidden"]


async def test_a_path_that_is_a_file_is_refused_as_the_manager_opens(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LLMConfigurationError, match=r"cache\.path: .*file is a file; name a folder"):
        await LLMManager.open(config(backend="disk", path=str(tmp_path / "file")))


async def test_redis_without_its_package_is_refused_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(LLMConfigurationError, match=r"pip install 'llm-manifold\[redis\]'"):
        await LLMManager.open(config(backend="redis", url=NOWHERE))


@pytest.mark.parametrize("store", ["disk", "redis"])
async def test_a_store_that_cannot_be_used_makes_calls_slower_and_never_fails_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, store: str
) -> None:
    (tmp_path / "file").touch()
    broken = {"backend": "disk", "path": str(tmp_path / "file" / "no-folder")}
    if store == "redis":
        broken = {"backend": "redis", "url": NOWHERE.replace("//", f"//:{PASSWORD}@")}
    async with MockUpstream("openai") as upstream:
        manager = await LLMManager.open(config(**broken), transport=upstream.transport())
        for text in ("hello", "and again"):
            assert (await manager.get_client().chat(text)).content == text
        await manager.close()
        told = manager.get_status()["cache"]
        assert len(upstream.requests) == 2
    assert (told["backend"], told["entries"], told["hits"], told["stored"]) == (store, None, 0, 0)
    assert told["errors"] >= 2
    assert "calls go on without it" in caplog.text
    assert PASSWORD not in caplog.text


async def test_a_reload_keeps_what_is_on_disk_also_with_other_bounds(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    async with MockUpstream("openai") as upstream:
        first = config(backend="disk", path=path)
        async with LLMManager.open(first, transport=upstream.transport()) as manager:
            client = manager.get_client()
            await client.chat("hello")
            await manager.reload(config(backend="disk", path=path, max_entries=5))
            while not manager.get_status()["cache"]["stored"]:
                await SystemClock().sleep(0.002)
            assert (await client.chat("hello")).cached
            await manager.reload(config(backend="disk", path=path, max_entries=5, ttl=60))
            assert (await client.chat("hello")).cached
            with pytest.raises(LLMConfigurationError, match=r"cache\.path"):
                await manager.reload(config(backend="disk", path=path + "-elsewhere"))
            assert (await client.chat("hello")).cached
        assert len(upstream.requests) == 1


async def test_the_status_tells_what_the_memory_holds() -> None:
    clock = FakeClock()
    async with (
        MockUpstream("openai", clock=clock) as upstream,
        LLMManager.open(config(), transport=upstream.transport(), clock=clock) as manager,
    ):
        await manager.get_client().chat("hello")
        await clock.advance(0.0)
        told = manager.get_status()["cache"]
        assert (told["backend"], told["entries"]) == ("memory", 1)
        assert told["bytes"] > 0
