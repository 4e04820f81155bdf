"""Servers in a loop of their own, since who blocks cannot serve; and a process without a manager."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import until

from llm.sync import close_llm_manager
from llm.sync.portal import Portal
from llm.testing import MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def upstream() -> Iterator[Callable[..., MockUpstream]]:
    """Starts `MockUpstream`s of these arguments in a thread that is not the client's."""
    elsewhere = Portal()
    started: list[MockUpstream] = []

    def start(**options: Any) -> MockUpstream:  # noqa: ANN401 - as `MockUpstream` takes them
        up = MockUpstream(**options)
        elsewhere.run(up.__aenter__())
        started.append(up)
        return up

    yield start
    for up in started:
        elsewhere.run(up.__aexit__())
    elsewhere.end()


@pytest.fixture
def of() -> Callable[..., dict[str, Any]]:
    """Returns a configuration with one provider at an upstream; further sections by name."""

    def config(up: MockUpstream, **sections: Any) -> dict[str, Any]:  # noqa: ANN401 - as llm.yaml takes them
        section = {"base_url": up.base_url, "api_keys": ["k1"], "models": ["gpt-4o-mini"]}
        return {"providers": {"openai": section}, **sections}

    return config


@pytest.fixture
def soon() -> Callable[[Callable[[], bool]], bool]:
    """Returns whether something comes true, for which it has as long as a busy machine may take."""

    def comes_true(true: Callable[[], bool]) -> bool:
        elsewhere = Portal()
        try:
            elsewhere.run(until(true))
        except TimeoutError:
            return False
        finally:
            elsewhere.end()
        return True

    return comes_true


@pytest.fixture
def nobodys() -> Iterator[None]:
    """No process-wide manager is left behind."""
    yield
    close_llm_manager()
