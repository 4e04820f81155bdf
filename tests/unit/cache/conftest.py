"""Redis has longer here than a call gives it: a machine that is busy is no server that is gone."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from tests.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from contextlib import AbstractContextManager


def _patient(patched: pytest.MonkeyPatch) -> None:
    for name in ("link._PATIENCE", "link._OPENING", "redis._CONNECT"):
        patched.setattr(f"llm.cache.{name}", PATIENCE)


@pytest.fixture(autouse=True)
def patience() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patched:
        _patient(patched)
        yield patched


@pytest.fixture
def in_its_own_time(patience: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """Gives Redis no longer than a call does, within a `with` block."""

    @contextmanager
    def impatient() -> Generator[None]:
        patience.undo()
        yield
        _patient(patience)

    return impatient
