"""The table of `manifold status`, a row for each key."""

from __future__ import annotations

from typing import Any

import pytest

from llm.cli.status import rows
from llm.core.types import HealthStatus

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
        ({}, ("available", "", "a, b", "")),
        (
            {"models": {"a": {"requests_per_minute": 0.5, "tokens_per_day": 0.126}, "b": {"requests_per_day": 0.1}}},
            ("available", "requests_per_minute 50%", "a, b", ""),
        ),
        ({"state": "cooling", "cooling_seconds": 12.4, "reason": "slow"}, ("cooling 12 s", "", "a, b", "slow")),
        ({"state": "rejected", "reason": "wrong key"}, ("rejected", "", "a, b", "wrong key")),
        ({"forbidden_models": ["b"], "reason": "no access"}, ("available", "", "a, b (forbidden)", "no access")),
    ],
)
def test_a_row_tells_state_fullest_limit_models_and_reason(key: dict[str, Any], cells: tuple[str, ...]) -> None:
    snapshot = {"providers": {"openai": {"keys": [AVAILABLE | key]}}}
    (row,) = rows({"openai": HealthStatus(healthy=True, latency=0.25)}, snapshot)
    assert row == ("openai", "healthy", "0.250 s", "key-1", *cells)


def test_a_provider_that_was_not_reached_has_no_latency() -> None:
    snapshot = {"providers": {"openai": {"keys": [AVAILABLE]}}}
    (row,) = rows({"openai": HealthStatus(healthy=False, error="down")}, snapshot)
    assert row[1:3] == ("down", "")
