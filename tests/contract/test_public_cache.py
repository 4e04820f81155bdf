"""`compute_request_hash`: what makes two requests the same question."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

QUESTION: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "What is Python?"}],
    "temperature": 0.7,
    "extra": {"logit_bias": {"1": 2, "3": 4}, "order": ["a", "b"]},
}
DECIDES_NOTHING = {"user": "alice", "priority": 3, "timeout": 9.0, "metadata": {"trace": "t1"}, "stream": True}
DECIDES: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "What is Rust?"}],
    "temperature": 0.8,
    "max_tokens": 5,
    "seed": 1,
    "stop": ["."],
    "extra": {"logit_bias": {"1": 2, "3": 4}, "order": ["b", "a"]},
}


@pytest.fixture
def hashed(named: Callable[[str], Any]) -> Callable[..., str]:
    compute: Callable[..., str] = named("llm.cache:compute_request_hash")
    return compute


def test_a_hash_is_64_lower_case_hex_digits(hashed: Callable[..., str]) -> None:
    assert re.fullmatch("[0-9a-f]{64}", hashed(QUESTION))


def test_a_request_and_its_mapping_are_the_same_question(llm: ModuleType, hashed: Callable[..., str]) -> None:
    assert hashed(llm.LLMRequest(**QUESTION)) == hashed(QUESTION)


def test_the_order_of_a_mapping_never_matters(hashed: Callable[..., str]) -> None:
    turned = dict(reversed(QUESTION.items())) | {"extra": dict(reversed(QUESTION["extra"].items()))}
    assert hashed(turned) == hashed(QUESTION)


@pytest.mark.parametrize("field", DECIDES)
def test_what_decides_the_answer_makes_another_question(hashed: Callable[..., str], field: str) -> None:
    assert hashed({**QUESTION, field: DECIDES[field]}) != hashed(QUESTION)


@pytest.mark.parametrize("field", DECIDES_NOTHING)
def test_what_does_not_is_left_out(hashed: Callable[..., str], field: str) -> None:
    assert hashed({**QUESTION, field: DECIDES_NOTHING[field]}) == hashed(QUESTION)


def test_scope_user_adds_the_tenant(hashed: Callable[..., str]) -> None:
    hashes = {hashed(QUESTION, scope="user", user=user) for user in ("alice", "bob")} | {hashed(QUESTION, user="alice")}
    assert len(hashes) == 3


def test_another_process_computes_the_same(shell: dict[str, str], hashed: Callable[..., str]) -> None:
    program = f"from llm.cache import compute_request_hash as h; print(h({QUESTION!r}))"
    told = subprocess.check_output([sys.executable, "-c", program], env=shell | {"PYTHONHASHSEED": "7"}, text=True)  # noqa: S603 - our own text
    assert told.strip() == hashed(QUESTION)


async def test_the_memory_cache_is_a_cache_backend(named: Callable[[str], Any]) -> None:
    backend, protocol = named("llm.cache:InMemoryCache")(), named("llm.cache:CacheBackend")
    members: list[str] = [name for name in dir(protocol) if not name.startswith("_")]
    assert [name for name in members if not hasattr(backend, name)] == []
    await backend.close()
