"""A manager in front of a double, for what runs many requests."""

from __future__ import annotations

import resource
import signal
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMManager, register_provider

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from llm.testing import FakeProvider
    from llm.utils.clock import Clock

_numbers = count()


@pytest.fixture
def small_disk() -> Callable[[int], AbstractContextManager[None]]:
    """Lets no file of this process grow beyond so many bytes, as on a disk that is full."""

    @contextmanager
    def shrunk(size: int) -> Generator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)

    return shrunk


@pytest.fixture
def manager_of() -> Callable[..., AbstractAsyncContextManager[LLMManager]]:
    """Opens a manager whose one provider is this double; a call is sent once, and no more."""

    def opened(
        provider: FakeProvider,
        *,
        clock: Clock | None = None,
        **sections: Any,  # noqa: ANN401 - the configuration checks them
    ) -> AbstractAsyncContextManager[LLMManager]:
        kind = f"batch-double-{next(_numbers)}"
        register_provider(kind, lambda _: provider)
        section = {"type": kind, "api_keys": ["k1"], "models": ["m", "*"]}
        config = {"providers": {"fake": section}, "retry": {"max_attempts": 1}, **sections}
        return LLMManager.open(config, clock=clock)

    return opened
