"""The handle that users hold, blocking."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec

from llm.core.client import LLMClient as AsyncClient

from .facade import Facade, blocking
from .stream import LLMStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.core.stream import LLMStream as AsyncStream

_P = ParamSpec("_P")


def _streaming(
    method: Callable[Concatenate[AsyncClient, _P], AsyncStream],
) -> Callable[Concatenate[Facade[AsyncClient], _P], LLMStream]:
    """Return the method that makes a stream to be read without a loop."""

    @wraps(method)
    def call(self: Facade[AsyncClient], /, *args: _P.args, **kwargs: _P.kwargs) -> LLMStream:
        return LLMStream(method(self.inner, *args, **kwargs), self.home)  # nothing is asked before it is read

    call.__doc__ = (method.__doc__ or "").replace("`async with` or `aclose()`", "`with` or `close()`")
    return call


class LLMClient(Facade[AsyncClient]):
    """A provider, a model, a tenant and a priority to call with; cheap to make, safe to share between threads."""

    __slots__ = ()

    chat: Final = blocking(AsyncClient.chat)
    complete: Final = blocking(AsyncClient.complete)
    stream_complete: Final = _streaming(AsyncClient.stream_complete)
    request: Final = blocking(AsyncClient.request)
    stream_request: Final = _streaming(AsyncClient.stream_request)
    embed: Final = blocking(AsyncClient.embed)
    count_tokens: Final = blocking(AsyncClient.count_tokens)

    def __repr__(self) -> str:
        """Return what it calls."""
        return f"llm.sync.{self.inner!r}"
