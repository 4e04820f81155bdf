"""`manifold serve`: what it passes on to the gateway, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


def test_it_passes_on_what_was_said_and_ends_with_the_gateways_status(
    manifold: Callable[..., Any], asked: list[tuple[Any, ...]]
) -> None:
    done = manifold("serve", "--host", "::1", "--port", "0", "--workers", "3", "--config", "my.yaml")
    assert (done.status, done.out, done.err) == (143, "", "listening\n")
    assert asked == [(Path("my.yaml"), "::1", 0, 3)]


def test_without_options_the_configuration_decides(manifold: Callable[..., Any], asked: list[tuple[Any, ...]]) -> None:
    assert manifold("serve", "--quiet").err == ""
    assert asked == [(None, None, None, 1)]


@pytest.mark.parametrize("words", [("--port", "70000"), ("--workers", "0"), ("extra",)])
def test_wrong_usage_is_a_2_and_nothing_is_served(
    manifold: Callable[..., Any], asked: list[tuple[Any, ...]], words: tuple[str, ...]
) -> None:
    assert manifold("serve", *words).status == 2
    assert asked == []
