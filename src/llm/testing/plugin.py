"""The doubles as pytest fixtures; pytest finds this module by the entry point `llm` of the distribution.

| fixture | what |
|---|---|
| `fake_clock` | a `FakeClock` at 0 seconds |
| `fake_provider` | a `FakeProvider` that echoes |
| `mock_upstream` | makes `MockUpstream`s; the test fails where it leaves a request open |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .clock import FakeClock
    from .provider import FakeProvider
    from .upstream import MockUpstream

# pytest imports this module at every start, so it imports the doubles only for tests that use them.


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that the test moves, at 0 seconds."""
    from .clock import FakeClock  # noqa: PLC0415 - see above

    return FakeClock()


@pytest.fixture
def fake_provider() -> FakeProvider:
    """A provider that echoes the last user's text."""
    from .provider import FakeProvider  # noqa: PLC0415 - see above

    return FakeProvider()


@pytest.fixture
def mock_upstream() -> Iterator[Callable[..., MockUpstream]]:
    """Make a server, by the arguments of `MockUpstream`; fails the test that leaves a request open."""
    from .upstream import MockUpstream  # noqa: PLC0415 - see above

    made: list[MockUpstream] = []

    def make(*args: object, **options: object) -> MockUpstream:
        made.append(MockUpstream(*args, **options))  # type: ignore[arg-type]  # passed on as they come
        return made[-1]

    yield make
    still_open = sum(upstream.active for upstream in made)
    if still_open:
        pytest.fail(f"{still_open} requests at a MockUpstream are still open; close the stream or the transport")
