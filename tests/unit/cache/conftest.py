from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


@pytest.fixture(autouse=True)
def in_its_own_time(
    patient_cache: Callable[[], AbstractContextManager[None]],
) -> Callable[[], AbstractContextManager[None]]:
    """Gives Redis no longer than a call does, within a `with` block; outside it has longer, in all these tests."""
    return patient_cache
