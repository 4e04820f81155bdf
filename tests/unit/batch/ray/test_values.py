"""What goes to workers: a configuration whose keys nobody sees on the way, and each worker's part of it."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMConfigurationError
from llm.batch.ray.cluster import RayCluster
from llm.batch.ray.seen import Seen, added
from llm.batch.ray.shares import check_reach, shared
from llm.batch.ray.stock import SECOND, Hand, Stock
from llm.batch.ray.values import Duty, View
from llm.batch.values import Row
from llm.core.config import load_config

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from llm.batch.values import BadRow

KEY = "sk-a-long-secret-key"


def config(**sections: Any) -> dict[str, Any]:  # noqa: ANN401 - sections as they come
    provider = {"api_keys": [KEY], "models": ["m"], "rate_limits": [{"requests_per_minute": 10}]}
    return {"providers": {"openai": provider}, **sections}


def test_a_configuration_comes_over_whole_and_shows_nothing_on_the_way() -> None:
    before = load_config(config(limits={"store": "redis", "url": "redis://:a-password@10.0.0.1/0"}))
    duty = Duty(before, model="m")
    assert KEY not in repr(duty) + str(duty)
    over = Duty.of(duty.parts())
    assert over.model == "m"
    after = over.config
    assert after == before
    assert after.providers["openai"].api_keys[0].reveal() == KEY
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(duty)


def test_a_thousand_keys_go_in_parts_that_are_too_small_for_the_store_of_the_cluster() -> None:
    keys = [f"sk-{number:0160}" for number in range(1000)]
    duty = Duty(load_config({"providers": {"openai": {"api_keys": keys, "models": ["m"]}}}))
    parts = duty.parts()
    assert sum(map(len, parts)) > 160_000
    assert max(map(len, parts)) <= 64 * 1024
    assert Duty.of(parts) == duty


def test_limits_without_a_store_are_divided_and_it_is_said() -> None:
    own, said = shared(load_config(config()), 3)
    assert own.limits.processes == 3
    assert own.own_part().providers["openai"].rate_limits[0].requests_per_minute == 3
    assert said == ["each worker takes 1/3 of every limit; with `limits.store: redis` they share all of it"]


@pytest.mark.parametrize(
    ("sections", "workers", "said"),
    [
        ({}, 1, []),
        ({"limits": {"store": "redis"}}, 3, []),
        ({"limits": {"store": "redis"}, "cache": {"backend": "redis", "url": "redis://10.0.0.1"}}, 3, []),
        ({"limits": {"store": "redis"}, "cache": {"backend": "none"}}, 3, []),
        ({"limits": {"store": "redis"}, "cache": {"backend": "memory"}}, 3, ["each worker has a cache of its own"]),
        ({"limits": {"store": "redis"}, "cache": {"backend": "disk"}}, 3, ["workers on one machine share a cache"]),
    ],
)
def test_what_is_shared_is_not_divided(sections: dict[str, Any], workers: int, said: list[str]) -> None:
    loaded = load_config(config(**sections))
    own, remarks = shared(loaded, workers)
    assert own == loaded
    assert [remark.partition(";")[0] for remark in remarks] == said


def test_where_nothing_is_limited_nothing_is_said() -> None:
    loaded = load_config({"providers": {"openai": {"api_keys": [KEY], "models": ["m"]}}})
    assert shared(loaded, 3) == (loaded, [])


def test_a_limit_too_small_for_so_many_workers_is_refused() -> None:
    with pytest.raises(LLMConfigurationError, match="cannot be divided among 11 processes"):
        shared(load_config(config()), 11)


@pytest.mark.parametrize(
    ("field", "sections"),
    [
        ("limits.url: localhost", {"limits": {"store": "redis"}}),
        ("cache.url: 127.0.0.1", {"cache": {"backend": "redis", "url": "redis://127.0.0.1:6379"}}),
        ("limits.url: 127.0.0.2", {"limits": {"store": "redis", "url": "redis://127.0.0.2:6379"}}),
        ("limits.url: /run/redis.sock", {"limits": {"store": "redis", "url": "unix:///run/redis.sock"}}),
        ("limits.url: localhost", {"limits": {"store": "redis", "url": "redis://:6379"}}),
    ],
)
def test_a_store_that_each_machine_would_look_for_on_itself_is_refused(field: str, sections: dict[str, Any]) -> None:
    with pytest.raises(LLMConfigurationError, match=f"{field} is another machine for each worker"):
        check_reach(load_config(config(**sections)))


def test_counts_of_all_workers_are_added_those_of_lost_ones_too() -> None:
    seen, first, second = Seen(), Hand(1), Hand(1)
    seen.note(first, View({"p/m": {"calls": {"answered": 1}, "cost": 0.5}}, {"key": 0.9}))
    seen.note(first, View({"p/m": {"calls": {"answered": 2}, "cost": 1.0}}, {"key": 0.8}))
    seen.note(second, View({"p/m": {"calls": {"answered": 3}, "cost": 0.25}, "p/n": {"cost": None}}, {"key": 0.3}))
    both = {"models": {"p/m": {"calls": {"answered": 5}, "cost": 1.25}, "p/n": {"cost": None}}}
    assert (seen.status(), seen.saturation()) == (both, {"key": 0.8})
    seen.lose(first)
    assert (seen.status(), seen.saturation()) == (both, {"key": 0.3})
    seen.lose(Hand(1))
    assert added({"cost": None}, {"cost": 1.0}) == {"cost": None}


async def test_a_hand_gets_what_it_has_room_for_and_few_rows_on_their_second_try() -> None:
    stock, lost, next_one = Stock(), Hand(8), Hand(8)

    async def portions() -> AsyncGenerator[Sequence[Row | BadRow], None]:
        yield [Row(number, f"r{number}", "/", {}) for number in range(10)]

    async def refuse(_: BadRow) -> None:
        raise AssertionError

    filling = asyncio.create_task(stock.fill(portions(), refuse))
    await stock.take(lost)
    await stock.take(next_one)
    await filling
    assert (len(lost.rows), len(next_one.rows), stock.out) == (8, 2, 10)
    assert stock.lose(lost) == []
    assert [row.order for row in await stock.take(next_one)] == [0, 1, 2, 3]
    assert (len(next_one.second), stock.out) == (SECOND, 6)
    stock.end(next_one, [0, 8])
    assert [row.order for row in await stock.take(next_one)] == [4]
    assert [row.order for row in stock.lose(next_one)] == [1, 2, 3, 4]
    assert not stock.over


def test_the_address_of_a_ray_client_is_refused() -> None:
    with pytest.raises(LLMConfigurationError, match="ray job submit"):
        RayCluster("ray://10.0.0.1:10001")


def test_a_missing_extra_is_one_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(LLMConfigurationError, match=r"not installed; type: pip install 'llm-manifold\[ray\]'$"):
        RayCluster()
