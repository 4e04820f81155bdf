"""Blocking methods, made of those of the asynchronous classes: the same parameters, types and words."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, NoReturn, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .portal import Portal

_Inner = TypeVar("_Inner")
_P = ParamSpec("_P")
_T = TypeVar("_T")


class Facade(Generic[_Inner]):
    """Stands, in any thread, for an object that lives in the background loop.

    Attributes:
        inner: What it stands for, for code that runs in that loop.
        home: The way there.
    """

    __slots__ = ("__weakref__", "home", "inner")

    def __init__(self, inner: _Inner, home: Portal) -> None:
        """Stand for `inner`, which lives where `home` leads."""
        self.inner: _Inner = inner
        self.home: Portal = home

    def __reduce__(self) -> NoReturn:
        """Refuse to go to another process.

        Raises:
            TypeError: Always; says what to do there.
        """
        raise TypeError(f"a blocking {type(self).__name__} stays in its process; call get_llm_manager() in the other")


def blocking(
    method: Callable[Concatenate[_Inner, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[Facade[_Inner], _P], _T]:
    """Return the method that waits for what `method` returns."""

    @wraps(method)
    def call(self: Facade[_Inner], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        coroutine = method(self.inner, *args, **kwargs)
        del args, kwargs  # a traceback can show what a frame holds, and a configuration has keys in it
        return self.home.run(coroutine)

    return call


def at_home(method: Callable[Concatenate[_Inner, _P], _T]) -> Callable[Concatenate[Facade[_Inner], _P], _T]:
    """Return the method that does in the loop what `method`, which waits for nothing, does: nothing there is locked."""

    @wraps(method)
    def call(self: Facade[_Inner], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        async def called() -> _T:
            return method(self.inner, *args, **kwargs)

        return self.home.run(called())

    return call
