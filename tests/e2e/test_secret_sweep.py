"""Promise 29: planted keys are looked for in all that can be seen of hundreds of calls, most of which fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from benchmarks.chaos import sweep

from llm import LLMInvalidRequestError, LLMManager, LLMTimeoutError
from llm.testing import Fault, MockUpstream

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.conftest import Peer, Spoken

LOOKED_AT = {
    "a record of llm",
    "a record of openai",
    "a record of anthropic",
    "a record of httpx2",
    "an exception",
    "an exception's copy",
    "an exception's pickle",
    "a traceback with locals",
    "an object of llm",
    "a kept answer",
    "a response",
    "a decision log",
    "the configuration",
    "the health",
    "the manager",
    "the status",
}


async def test_no_planted_secret_is_to_be_seen_anywhere_at_debug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections, environment = sweep.plant(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    swept = await sweep.run(700, sections)
    assert swept.found[:3] == []
    assert set(swept.searched) >= LOOKED_AT
    assert swept.failed > 200


def impatient(base_url: str) -> dict[str, Any]:
    """Return a configuration, for a frame that holds it is not one of ours."""
    provider = {"base_url": sweep.locked(base_url), "api_keys": ["sk-test-1"], "models": ["m"]}
    patience = {"timeouts": {"attempt": 0.05}}
    return {"global": patience, "retry": {"max_attempts": 1}, "providers": {"openai": provider}}


async def test_no_password_of_a_providers_address_is_to_be_seen_of_an_attempt_that_was_cut_off() -> None:
    async with (
        MockUpstream("openai", faults=[Fault("stalled", rate=1.0)]) as upstream,
        LLMManager.open(impatient(upstream.base_url)) as manager,
    ):
        with pytest.raises(LLMTimeoutError) as caught:
            await manager.get_client().chat("hello")
        swept = sweep.Sweep()
        sweep.look_at_error(swept, caught.value)
        assert swept.found == []


async def test_a_key_that_the_provider_repeats_as_the_exchanges_identifier_is_not_to_be_seen(
    peer: Peer, spoken: Spoken
) -> None:
    section = peer.section(spoken)
    key = section["api_keys"][0]
    peer.plays(spoken.answer(b'{"error": {}}', status=400, x_request_id=key))
    async with LLMManager.open({"providers": {spoken.provider: section}}) as manager:
        with pytest.raises(LLMInvalidRequestError) as caught:
            await manager.get_client().chat("hello")
    assert key not in f"{caught.value} {vars(caught.value)}"


def test_a_secret_that_is_to_be_seen_is_found_and_named_without_being_shown() -> None:
    swept = sweep.Sweep()
    swept.look("a line", "said: mnf_live_Buried55555abcdef, and privatequestion number 3")
    swept.look("a line of ours", "privatequestion number 3", content=True)
    assert [line.partition(":")[0] for line in swept.found] == ["a gateway's in a line", "content in a line of ours"]
    assert "Buried55555" not in repr(swept.found)
