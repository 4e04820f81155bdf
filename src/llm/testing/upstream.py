"""A server that speaks a vendor's dialect, keeps its limits, and fails as it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias

from llm.utils.clock import SystemClock

from .backend import Backend
from .batches import BatchScript
from .in_process import InProcessTransport
from .vendor_anthropic import AnthropicVendor
from .vendor_openai import OpenAIVendor
from .vendor_openrouter import OpenRouterVendor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llm.utils.clock import Clock

    from .accounts import Limits
    from .batches import MockBatch
    from .exchange import Exchange, MockRequest
    from .faults import Fault
    from .server import MockServer
    from .service import Answerer, Seconds
    from .vendor import Vendor

Mode: TypeAlias = Literal["bucket", "fixed", "sliding"]

_VENDORS: Final[Mapping[str, type[Vendor]]] = {
    "openai": OpenAIVendor,
    "anthropic": AnthropicVendor,
    "openrouter": OpenRouterVendor,
}


class MockUpstream:
    """A vendor's server for tests, in the test's own loop.

    ```python
    limits = {"k1": {"requests_per_minute": 3}}
    async with MockUpstream("openai", limits=limits, faults=[Fault("overloaded", at=2)]) as up:
        client = AsyncOpenAI(base_url=up.base_url, api_key="k1")
    assert [request.status for request in up.requests] == [200, 529, 200]
    ```

    `async with` listens on 127.0.0.1; `transport()` is the same server without a socket, also outside of `async with`.

    Without `answer` it echoes the last user's text, and counts a token for every four characters begun, of the
    prompt's texts and of the answer; `max_tokens` cuts the answer, which then ends as `length`.

    A request takes from its key's limits at admission what the vendor takes (OpenAI: tokens, the larger of the
    prompt's estimate and `max_tokens`; Anthropic: the estimate as input and `max_tokens` as output), and when its
    answer ends, that becomes the answer's usage; a stream that was left settles to the part that was sent. A refused
    request takes nothing.
    """

    def __init__(  # noqa: PLR0913 - options of a double, each with its default
        self,
        dialect: Literal["openai", "anthropic", "openrouter"] = "openai",
        limits: Mapping[str, Limits] | None = None,
        faults: Iterable[Fault] = (),
        *,
        answer: Answerer | None = None,
        groups: Mapping[str, str] | None = None,
        mode: Mode = "bucket",
        service: Seconds = 0.0,
        network: tuple[float, float] = (0.0, 0.0),
        chunk_size: int = 8,
        models: Iterable[str] | None = None,
        api_keys: Iterable[str] | None = None,
        batches: BatchScript | None = None,
        clock: Clock | None = None,
        seed: int = 0,
    ) -> None:
        """Make a server; its limits and its count of requests start now.

        Args:
            dialect: Whose server it is. OpenAI's answers chat completions and responses, each at its path.
            limits: For a key or a group of keys, limits under the names of `rate_limits` in `llm.yaml`, and if they
                differ from those of the whole, `mode` and `phase`. Keys not named here have no limits.
            faults: What goes wrong.
            answer: Makes the answer to a request: a text, a whole response (what it leaves out is filled in), or an
                exception, which is told as the vendor tells it. Of a response to a request with `embed` its
                `embeddings` are sent; a text leaves the vectors to the mock.
            groups: Key → group; keys of one group draw on the same limits, and see each other's files and batches.
            mode: How limits are counted. `bucket`: full at the start, refilled continuously. `fixed`: a whole
                allowance at the start, the next one after `phase` seconds (a period, if not given), then one every
                period. `sliding`: no period holds more than the limit.
            service: Seconds from admission to the last token; a stream's pieces come evenly over it.
            network: Least and most seconds that a message takes, one way.
            chunk_size: Characters in a piece of a streamed text.
            models: The models there are; None for any.
            api_keys: The keys that are known; others get a 401. None for any, and for none at all.
            batches: How batches go; without it they end at once, and every row is answered.
            clock: Its time, for limits, waits and what is recorded; the machine's by default.
            seed: For the network's delays and the faults with a rate.

        Raises:
            ValueError: An unknown dialect, limit or mode; says which there are.
        """
        if dialect not in _VENDORS:
            raise ValueError(f"MockUpstream: unknown dialect {dialect!r}; expected one of {', '.join(_VENDORS)}")
        self._vendor = _VENDORS[dialect]()
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._backend = Backend(
            self._vendor,
            self._clock,
            limits=limits or {},
            groups=groups or {},
            mode=mode,
            faults=faults,
            answer=answer,
            service=service,
            network=network,
            chunk_size=chunk_size,
            models=None if models is None else tuple(models),
            api_keys=None if api_keys is None else frozenset(api_keys),
            batches=batches or BatchScript(),
            seed=seed,
        )
        self._server: MockServer | None = None
        self._origin = "http://upstream.test"

    @property
    def base_url(self) -> str:
        """Where it is, as the vendor's own client takes it; a name that leads nowhere before `async with`."""
        return self._origin + self._vendor.root

    @property
    def requests(self) -> list[MockRequest]:
        """Requests for answers, in order of arrival."""
        return self._backend.requests

    @property
    def probes(self) -> list[MockRequest]:
        """Other requests: for lists of models, token counts, files and batches, and to what is not there."""
        return self._backend.probes

    @property
    def batches(self) -> list[MockBatch]:
        """Batches that were submitted, in order."""
        return self._backend.batches

    @property
    def active(self) -> int:
        """How many requests are being answered now."""
        return self._backend.active

    @property
    def most_active(self) -> int:
        """The most that were being answered at once."""
        return self._backend.most_active

    def transport(self) -> InProcessTransport:
        """Return a way to it without a socket, for runs on a virtual clock."""
        return InProcessTransport(self._arrive)

    async def __aenter__(self) -> Self:
        """Listen on 127.0.0.1, at a port that the system chooses."""
        from .server import MockServer  # noqa: PLC0415 - aiohttp is heavy, and transport() does without

        self._server = MockServer(self._arrive)
        self._origin = f"http://127.0.0.1:{await self._server.start()}"
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections and stop listening."""
        if self._server is not None:
            await self._server.stop()
        self._backend.close()

    async def _arrive(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Exchange:
        delay = self._backend.delay()
        if delay > 0:
            await self._clock.sleep(delay)
        path, _, query = target.partition("?")
        return self._backend.arrive(method, path, headers, body, query=query)
