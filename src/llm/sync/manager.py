"""The owner of everything with a life time, blocking."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, Self, TypeVar

from llm.core.manager import LLMManager as AsyncManager

from . import portal
from .client import LLMClient
from .facade import Facade, at_home, blocking

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from httpx2 import AsyncBaseTransport, BaseTransport

    from llm.core.client import LLMClient as AsyncClient
    from llm.core.config import LLMConfig
    from llm.core.protocols import Transport
    from llm.core.sealed import ConfigSource
    from llm.utils.clock import Clock

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _client(
    method: Callable[Concatenate[AsyncManager, _P], AsyncClient],
) -> Callable[Concatenate[Facade[AsyncManager], _P], LLMClient]:
    """Return the method that makes a blocking client."""
    made: Final = at_home(method)

    @wraps(method)
    def call(self: Facade[AsyncManager], /, *args: _P.args, **kwargs: _P.kwargs) -> LLMClient:
        return LLMClient(made(self, *args, **kwargs), self.home)

    return call


def _transport(
    method: Callable[Concatenate[AsyncManager, _P], AsyncBaseTransport],
) -> Callable[Concatenate[Facade[AsyncManager], _P], BaseTransport]:
    """Return the method that makes a transport for clients that block."""
    made: Final = at_home(method)

    @wraps(method)
    def call(self: Facade[AsyncManager], /, *args: _P.args, **kwargs: _P.kwargs) -> BaseTransport:
        from .transport import BlockingTransport  # noqa: PLC0415 - only for programs that use it

        return BlockingTransport(made(self, *args, **kwargs), self.home)

    doc = (method.__doc__ or "").replace("AsyncClient", "Client").replace("`AsyncAnthropic`", "`Anthropic`")
    call.__doc__ = doc.replace("AsyncOpenAI", "OpenAI").replace(
        "It is for the event loop that the manager is of.", "Any number of threads may use it."
    )
    return call


class LLMManager(Facade[AsyncManager]):
    """Pools, chains, caches and counts of one configuration, for any number of threads.

    `get_llm_manager()` returns the process's one; `LLMManager.open` makes an independent one.
    """

    __slots__ = ()

    get_client: Final = _client(AsyncManager.get_client)
    http_transport: Final = _transport(AsyncManager.http_transport)
    get_status: Final = at_home(AsyncManager.get_status)
    explain: Final = at_home(AsyncManager.explain)
    measured: Final = at_home(AsyncManager.measured)
    health_check: Final = blocking(AsyncManager.health_check)
    reload: Final = blocking(AsyncManager.reload)
    invalidate_cache: Final = blocking(AsyncManager.invalidate_cache)
    clear_cache: Final = blocking(AsyncManager.clear_cache)
    close: Final = blocking(AsyncManager.close)

    @classmethod
    def open(
        cls, config: ConfigSource = None, *, transport: Transport | None = None, clock: Clock | None = None
    ) -> Self:
        """Make an independent manager, to keep and `close()`, or to use with `with`.

        Args:
            config: A path, a mapping, an `LLMConfig`, or None for the usual places and the environment.
            transport: In place of the network, for tests.
            clock: In place of the machine's time, for tests.

        Raises:
            LLMConfigurationError: The configuration is wrong; all mistakes in one message.
        """
        opening = AsyncManager.open(config, transport=transport, clock=clock)
        del config  # a traceback can show what a frame holds
        home = portal.current()
        return cls(home.run(_come(opening)), home)

    @property
    def config(self) -> LLMConfig:
        """The configuration of today."""
        return self.inner.config

    @property
    def closed(self) -> bool:
        """Whether it was closed, or is being closed."""
        return self.inner.closed

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close; after an exception without waiting for calls."""
        self.home.run(self.inner.__aexit__(kind, error, traceback))


async def _come(awaited: Awaitable[_T]) -> _T:
    return await awaited
