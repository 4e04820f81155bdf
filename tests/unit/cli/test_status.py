"""The table of `manifold status`, a row for each key."""

from __future__ import annotations

from typing import Any

import pytest

from llm.cli.status import reasons, rows
from llm.core.standing import HealthStatus

AVAILABLE: dict[str, Any] = {
    "key": "key-1",
    "state": "available",
    "cooling_seconds": 0.0,
    "reason": None,
    "forbidden_models": [],
    "calls": 0,
    "models": {"a": {}, "b": {}},
}


@pytest.mark.parametrize(
    ("key", "cells"),
    [
        ({}, ("available", "a, b")),
        ({"state": "cooling", "cooling_seconds": 12.4}, ("cooling 12 s", "a, b")),
        ({"state": "rejected"}, ("rejected", "a, b")),
        ({"forbidden_models": ["b"]}, ("available", "a, b (forbidden)")),
    ],
)
def test_a_row_tells_state_and_models(key: dict[str, Any], cells: tuple[str, ...]) -> None:
    snapshot = {"providers": {"openai": {"keys": [AVAILABLE | key]}}}
    (row,) = rows({"openai": HealthStatus(healthy=True, latency=0.25)}, snapshot)
    assert row == ("openai", "healthy", "0.250 s", "key-1", *cells)


def test_a_reason_is_told_of_each_key_that_has_one() -> None:
    keys = [AVAILABLE, AVAILABLE | {"key": "key-2", "state": "rejected", "reason": "wrong key"}]
    assert list(reasons({"providers": {"openai": {"keys": keys}}})) == ["openai, key-2: wrong key"]


def test_a_provider_that_was_not_reached_has_no_latency() -> None:
    snapshot = {"providers": {"openai": {"keys": [AVAILABLE]}}}
    (row,) = rows({"openai": HealthStatus(healthy=False, error="down")}, snapshot)
    assert row[1:3] == ("down", "")
