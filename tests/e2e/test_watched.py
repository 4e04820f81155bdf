"""A configuration file that changes under load, over real sockets."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from llm import LLMManager
from llm.testing import MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llm.utils.clock import Timer

CALLS = 200
CHANGES = 10


class Hasty(SystemClock):
    """The machine's time, on which what is due in two seconds comes in a fiftieth of one."""

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return super().call_later(seconds / 100 if seconds == 2.0 else seconds, callback)


async def test_keys_limits_models_chain_and_features_change_ten_times_by_file_under_load_and_no_call_is_lost(
    tmp_path: Path,
) -> None:
    clock, file, secret = Hasty(), tmp_path / "llm.yaml", tmp_path / "key"

    def write(upstream: MockUpstream, turn: int) -> None:
        section: dict[str, Any] = {
            "base_url": upstream.base_url,
            "api_keys": ["${file:key}", *(f"sk-watched-{turn}-{i}" for i in range(turn % 3))],
            "models": ["gpt-4o-mini"] if turn % 2 else ["*"],
            "quota_groups": ["one"],
            "rate_limits": [{"requests_per_minute": 10_000 + turn, "concurrent_requests": 20 + turn}],
        }
        chain = ["rate_limit", "retry", "metrics"] if turn % 2 else ["rate_limit", "metrics"]
        config = {
            "watch": True,
            "global": {"middleware": chain},
            "features": {"semantic_cache": turn % 2 == 0, "dashboard": False},
            "semantic_cache": {"model": "openai/gpt-4o-mini"},
            "limits": {"users": {"default": {"cost_per_day": 10.0 + turn}}},
            "providers": {"openai": section},
        }
        secret.write_text(f"sk-watched-secret-{turn}", encoding="utf-8")
        fresh = tmp_path / "fresh"
        fresh.write_text(json.dumps(config), encoding="utf-8")
        fresh.replace(file)

    async with MockUpstream(service=0.05) as upstream:
        write(upstream, 0)
        async with LLMManager.open(file, clock=clock) as manager, clock.timeout(30.0):
            answers: list[bool] = []
            seen: list[int] = []
            changed = asyncio.Event()

            async def ask(worker: int) -> None:
                client = manager.get_client(user=f"user {worker}")
                number = 0
                while not changed.is_set() or number < CALLS // 20:
                    number += 1
                    text = f"question {worker} {number}"
                    streaming = number % 2 == 0
                    asked: Any = {"model": "gpt-4o-mini", "max_tokens": 50}
                    answer = await (
                        client.stream_complete(text, **asked).response() if streaming else client.chat(text, **asked)
                    )
                    answers.append(str(answer) == text)

            async def change() -> None:
                for turn in range(1, CHANGES + 1):
                    await asyncio.to_thread(write, upstream, turn)
                    while manager.config.providers["openai"].rate_limits[0].requests_per_minute != 10_000 + turn:
                        await clock.sleep(0.01)
                    seen.append(turn)
                    assert manager.config.features.semantic_cache == (turn % 2 == 0)
                changed.set()

            async with asyncio.TaskGroup() as group:
                for worker in range(20):
                    group.create_task(ask(worker))
                group.create_task(change())
            assert seen == list(range(1, CHANGES + 1))
            assert len(answers) >= CALLS
            assert all(answers)
            status = manager.get_status()
            assert status["metrics"]["total_requests"] == status["metrics"]["successful_requests"] == len(answers)
            assert status["pool"]["calls"] == status["pool"]["waiting"] == 0
            assert len(upstream.requests) == len(answers)
            assert {f"sk-watched-secret-{turn}" for turn in range(CHANGES)} <= {r.key for r in upstream.requests}
