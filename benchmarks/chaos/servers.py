"""The vendors: what fails at them and how often, and which requests came."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from llm.testing import Fault, MockUpstream
from llm.testing.faults import DAMAGES, REFUSALS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from typing import Literal

    from llm.testing.exchange import MockRequest

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    name: tuple(f"sk-chaos-{name}-{number}" for number in range(4))
    for name in ("alpha", "beta", "gamma", "delta", "epsilon")
}
"""Keys by provider; a configuration has some of them."""

DIALECTS: Final[Mapping[str, Literal["openai", "anthropic", "openrouter"]]] = {
    "alpha": "openai",
    "beta": "anthropic",
    "gamma": "openai",
    "delta": "openrouter",
    "epsilon": "anthropic",
}

_OUT: Final = ("auth", "quota", "forbidden")  # what takes a key out is played by itself, for a while
_OUT_SHARE: Final = 0.1
_TEXT: Final = re.compile(r"call-[a-z0-9]+-\d+-[0-9a-f]{40}")


def faults(share: float) -> list[Fault]:
    """Return faults of every kind, which together meet this share of the requests."""
    kinds = [kind for kind in (*REFUSALS, *DAMAGES) if kind not in _OUT]
    # The first that is met is played, so each has a little more than its part of what is left.
    parts = [(kind, share * (1 - _OUT_SHARE) / len(kinds)) for kind in kinds]
    parts += [(kind, share * _OUT_SHARE / len(_OUT)) for kind in _OUT]
    met, faulty = 0.0, list[Fault]()
    for kind, part in parts:
        rate = part / (1.0 - met)
        met += part
        faulty.append(Fault(kind, rate=rate, retry_after=_patience(kind), seconds=0.05))
    return faulty


def dying(provider: str) -> list[Fault]:
    """Return what happens to a provider's keys: one is refused for a while now and then, one is out of credit."""
    refused, broke = KEYS[provider][:2]
    return [
        *(Fault("auth", at=at, times=3, key=refused) for at in range(40, 20_000, 160)),
        *(Fault("quota", at=at, times=2, key=broke) for at in range(70, 20_000, 190)),
    ]


def _patience(kind: str) -> float | None:
    return 0.05 if kind in {"rate_limit", "unavailable"} else None


class Vendors:
    """All servers, and how many requests of each text have come to them."""

    def __init__(self, servers: Mapping[str, MockUpstream]) -> None:
        """Count what comes to these servers, by provider."""
        self.servers: Mapping[str, MockUpstream] = servers
        self.arrived: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.requests: int = 0

    @property
    def active(self) -> int:
        """How many requests are being answered."""
        return sum(server.active for server in self.servers.values())

    def count(self) -> None:
        """Count the requests that came since the last time, and let go of them."""
        for server in self.servers.values():
            for request in server.requests:
                self.requests += 1
                self.arrived[text_of(request)] += 1
                if request.fault is not None:
                    self.faults[request.fault] += 1
            server.requests.clear()
            server.probes.clear()


def text_of(request: MockRequest) -> str:
    """Return which call a request belongs to."""
    found = _TEXT.search(repr(request.body))
    return "" if found is None else found[0]


@asynccontextmanager
async def vendors(share: float, seed: int) -> AsyncGenerator[Vendors]:
    """Serve all providers, with faults at this share of the requests."""
    async with AsyncExitStack() as stack:
        servers: dict[str, MockUpstream] = {}
        for place, (name, dialect) in enumerate(DIALECTS.items()):
            first = KEYS[name][0]
            server = MockUpstream(
                dialect,
                limits={first: {"requests_per_minute": 6000, "concurrent_requests": 12}},
                faults=[*dying(name), *faults(share)],
                service=0.003,
                seed=seed + place,
            )
            servers[name] = await stack.enter_async_context(server)
        yield Vendors(servers)
