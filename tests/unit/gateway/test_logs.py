"""The gateway's log: JSON lines with what an operator needs, and nothing that a client said."""

from __future__ import annotations

import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import until

from llm.gateway.logs import LOGGER, JSONLines
from llm.testing import Fault, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Serving = Callable[..., Any]

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "a private question"}]}
KEYS = {"gateway": {"api_keys": {"alice": {"key": "gw-alice-0123456789", "user": "al"}}}}
ALICE = {"x-api-key": "gw-alice-0123456789", "x-request-id": "mine"}


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the gateway's own writer wrote."""
    written = io.StringIO()
    handler = JSONLines(written)
    before = LOGGER.handlers[:], LOGGER.propagate, LOGGER.level
    LOGGER.handlers[:], LOGGER.propagate = [handler], False
    LOGGER.setLevel(logging.INFO)
    yield written
    LOGGER.handlers[:], LOGGER.propagate = before[0], before[1]
    LOGGER.setLevel(before[2])


async def test_a_request_is_one_line_of_json(serving: Serving, lines: io.StringIO) -> None:
    faults = [Fault("server_error", at=1)]
    async with MockUpstream(faults=faults) as up, serving(up, **KEYS) as it:
        await it.ask("POST", CHAT, ASK, headers=ALICE)
        await it.ask("POST", CHAT, ASK, headers={"x-api-key": "gw-mallory-987654321"})
        await it.ask("GET", "/livez")
        await until(lambda: lines.getvalue().count("\n") == 3)
        told = [json.loads(line) for line in lines.getvalue().splitlines()]
    first, second, third = told
    assert first.items() >= {
        "level": "info", "request_id": "mine", "method": "POST", "path": CHAT, "status": 200, "key": "alice",
        "user": "al", "model": "gpt-4o-mini", "provider": "openai", "cached": False, "attempts": 2,
    }.items()  # fmt: skip
    assert first["tokens"]["output"] > 0
    assert first["seconds"] > 0
    assert first["time"].endswith("Z")
    assert (second["status"], second["error"]) == (401, "LLMAuthenticationError")
    assert third["path"] == "/livez"
    for secret in ("private", "gw-alice", "mallory", "k1"):
        assert secret not in lines.getvalue()


async def test_nothing_is_written_below_its_level(serving: Serving, lines: io.StringIO) -> None:
    LOGGER.setLevel(logging.WARNING)
    async with serving() as it:
        await it.ask("GET", "/livez")
        await SystemClock().sleep(0.06)
    assert lines.getvalue() == ""


async def test_other_writers_get_the_same_line(
    serving: Serving, lines: io.StringIO, caplog: pytest.LogCaptureFixture
) -> None:
    LOGGER.propagate = True
    caplog.set_level(logging.INFO, "llm.gateway")
    async with serving() as it:
        await it.ask("GET", "/livez")
        await until(lines.getvalue)
    assert json.loads(caplog.messages[-1]) == json.loads(lines.getvalue())


def test_other_records_become_json_too(lines: io.StringIO) -> None:
    logger = logging.getLogger("llm.gateway")
    logger.warning("a %s", "remark")
    try:
        int("a secret".upper())
    except ValueError:
        logger.exception("it failed")
    first, second = (json.loads(line) for line in lines.getvalue().splitlines())
    assert first.items() >= {"level": "warning", "logger": "llm.gateway", "message": "a remark"}.items()
    assert second["error"] == "ValueError"
    assert "test_logs" in second["where"]
    assert "SECRET" not in lines.getvalue()


async def test_lines_wait_a_moment_for_each_other_but_never_many(lines: io.StringIO) -> None:
    for number in range(600):
        LOGGER.info("line %d", number)
    assert lines.getvalue().count("\n") == 512
    LOGGER.handlers[0].flush()
    assert lines.getvalue().count("\n") == 600
