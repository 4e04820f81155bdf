"""A stream as a result: chunks as they come, the whole response at the end, and one outcome for all who observe it."""

from __future__ import annotations

import logging
import weakref
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from llm.utils.loop import call_if_there, way_back

from .assembly import assemble, take_apart
from .exceptions import LLMStreamInterruptedError, LLMTimeoutError
from .foreign import ours
from .gathered import Gathered
from .outcome import tell
from .source import Replay
from .structured import growing
from .types import LLMResponse, StreamChunk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from llm.utils.clock import Clock, Timer

    from .exceptions import LLMException
    from .outcome import EndHook
    from .source import ChunkSource

_logger = logging.getLogger("llm.stream")

_LEFT_OPENING: Final = "the stream was left while it opened"


class LLMStream(Gathered):
    """An answer that comes in `StreamChunk`s.

    Read it with `async for`, and leave it by `async with` or `aclose()`; leaving early closes the upstream response at
    once. One reader at a time. `await stream.response()` reads what is left and returns the whole `LLMResponse`.
    """

    __slots__ = (
        "__weakref__", "_clock", "_deadline", "_ended", "_error", "_finish", "_first", "_heir", "_hooks",
        "_idle", "_opener", "_reading", "_response", "_source", "_stop", "_timer", "_touched", "_way_back",
        "foreign", "key", "provider",
    )  # fmt: skip

    def __init__(self, source: ChunkSource | None, *, provider: str = "", key: str | None = None) -> None:
        """Make a stream of an open source; `provider` and `key` (a fingerprint) go into the response."""
        super().__init__()
        self.provider: str = provider
        self.key: str | None = key
        self.foreign: bool = False  # whether a provider's code reads it, which may be anybody's
        self._source = source
        self._opener: Callable[[], Awaitable[LLMResult]] | None = None
        self._stop: Callable[[BaseException], None] | None = None
        self._first: StreamChunk | None = None
        self._hooks: list[EndHook] = []
        self._finish: Callable[[LLMResponse], LLMResponse] | None = None
        self._response: LLMResponse | None = None
        self._error: BaseException | None = None
        self._ended = False
        self._reading = False
        self._clock: Clock | None = None
        self._idle: float | None = None
        self._deadline: float | None = None
        self._touched = 0.0
        self._timer: Timer | None = None
        self._heir: weakref.ref[LLMStream] | None = None
        self._way_back: Callable[[Callable[[], object]], bool] | None = None

    @classmethod
    def lazy(
        cls, opener: Callable[[], Awaitable[LLMResult]], *, stop: Callable[[BaseException], None] | None = None
    ) -> LLMStream:
        """Make a stream that opens on first use, and then is the one that `opener` returns.

        `stop` is called where the stream ends while it opens, and has the opener raise what it is given.
        """
        stream = cls(None)
        stream._opener, stream._stop = opener, stop
        return stream

    async def begin(self) -> Self:
        """Wait for the first chunk, so that until then a failure is the call's.

        Raises:
            LLMException: The source failed before its first chunk.
        """
        if self._opener is not None:
            await self._open()
        elif self._first is None and not self._chunks and not self._ended:
            with suppress(StopAsyncIteration):  # an answer without a chunk is whole, too
                self._first = await self._read()
        return self

    def on_end(self, hook: EndHook) -> None:
        """Have `hook` told the outcome, once; those added first are told first."""
        if self._ended:
            tell(hook, self._response, self._error)
        else:
            self._hooks.append(hook)

    def finish_with(self, finish: Callable[[LLMResponse], LLMResponse]) -> None:
        """Have the whole response completed by `finish`, after those before, before anyone is told of it."""
        before = self._finish
        self._finish = finish if before is None else lambda response: finish(before(response))

    def watch(self, clock: Clock, *, idle: float | None, deadline: float | None) -> None:
        """End the stream by itself where nothing comes or nobody reads for `idle` seconds, or at `deadline`.

        `deadline` is in the clock's monotonic seconds. One timer serves both and looks again when it is due, so that
        a chunk costs no timer.
        """
        self._clock, self._idle, self._deadline = clock, idle, deadline
        self._touched, self._way_back = clock.now(), way_back()
        if not self._ended:
            self._arm(self._touched)

    def limit(self, clock: Clock, deadline: float | None) -> None:
        """End the stream at `deadline`, also where its source knows of no time: a stored answer, somebody's flight."""
        if self._deadline is None and deadline is not None:
            self.watch(clock, idle=self._idle, deadline=deadline)

    def interrupt(self, error: LLMException) -> None:
        """End the stream with `error`, for its reader too."""
        heir = self._heir() if self._heir is not None else None
        if heir is not None:
            heir.interrupt(error)
        elif self._ended:
            return
        elif self._reading and self._source is not None:
            self._error = error
            self._close_source()
        else:
            self._end(error)

    @property
    def id(self) -> str:
        """The provider's identifier of the answer, once it came; else empty."""
        return "" if self._source is None else self._source.id

    @property
    def model(self) -> str:
        """Model that answers, as the provider names it, once it came; else empty."""
        return "" if self._source is None else self._source.model

    def waiting(self) -> bool:
        """Return whether more of it is there already: who passes it on can wait for that, and send it together."""
        return not self._ended and self._source is not None and self._source.waiting()

    async def response(self) -> LLMResponse:
        """Read what is left and return the whole response.

        Raises:
            LLMException: The stream failed, or was left before its end.
        """
        async for _ in self:
            pass
        if self._response is None:
            raise LLMStreamInterruptedError(
                "the stream was closed before its end, so there is no whole response; read it to the end first",
                partial=self.text,
            )
        return self._response

    def partials(self) -> AsyncIterator[dict[str, Any]]:
        """Read what is left as JSON that grows: plain values, of which what has not come yet is absent."""
        return growing(self)

    async def aclose(self) -> None:
        """Leave the stream; the upstream response closes at once."""
        self.leave()

    def leave(self) -> None:
        """Do as `aclose`, where nothing can be awaited."""
        self._opener = self._first = None
        if not self._ended:
            self._end(self._error or GeneratorExit())  # its reader may not have heard yet why it was interrupted

    async def __aenter__(self) -> Self:
        """Open the stream."""
        return await self.begin()

    async def __aexit__(self, *_: object) -> None:
        """Leave the stream."""
        await self.aclose()

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    def __anext__(self) -> Coroutine[Any, Any, StreamChunk]:
        """Return the next chunk.

        Raises:
            StopAsyncIteration: The answer is whole.
            LLMStreamInterruptedError: The stream ended without its closing event; `.partial` holds what came.
            LLMException: Another failure.
        """
        # Once it is open, a coroutine of its own for each chunk would only wait for another.
        return self._read() if self._opener is None and self._first is None else self._begun()

    def __del__(self) -> None:
        """Close what nobody can read any more."""
        try:
            unread = self._source is not None and not self._ended
        except AttributeError:  # __init__ did not get that far
            return
        if not unread:
            return
        # The collector runs in any thread, and what is to be closed belongs to one loop.
        if self._way_back is None:
            self._end(GeneratorExit())
        elif not self._way_back(partial(self._end, GeneratorExit())):
            self._ended = True

    async def _begun(self) -> StreamChunk:
        if self._opener is not None:
            await self._open()
        if self._first is not None:
            chunk, self._first = self._first, None
            return chunk
        return await self._read()

    async def _read(self) -> StreamChunk:
        if self._ended:
            raise self._told_again()
        if self._reading:
            raise RuntimeError("this stream is being read already; one reader at a time")
        if self._source is None:
            raise StopAsyncIteration
        self._reading = True
        if self._clock is not None:
            self._touched = self._clock.now()
        try:
            chunk = await self._source.__anext__()
        except BaseException as error:
            if not self._ended:
                self._end(None if isinstance(error, StopAsyncIteration) else self._reason(error))
            # A cancellation goes on as the one that it is; what failed because we closed it has our reason.
            if isinstance(error, Exception) and self._error is not error:
                raise self._told_again(left="the stream was left while it was read") from None
            raise
        finally:
            self._reading = False
        self._chunks.append(chunk)
        if self._error is not None and not self._ended:  # it was interrupted as this chunk came
            self._end(self._error)
        return chunk

    def _reason(self, error: BaseException) -> BaseException:
        if self._error is not None:  # the source failed because we closed it, for this reason
            return self._error
        if isinstance(error, LLMStreamInterruptedError) and not error.partial:
            error.partial = self.text
        return ours(error) if self.foreign else error

    def _told_again(self, *, left: str | None = None) -> BaseException:
        """Return what a read after the end raises; `left`: what to tell a reader whom somebody else leaves behind."""
        error = self._error
        if isinstance(error, Exception):
            return error
        if error is None or (left is None and isinstance(error, GeneratorExit)):
            return StopAsyncIteration()
        why = left or "an earlier read was cancelled, which closed the stream"
        return LLMStreamInterruptedError(
            f"{why}, so there is no more of it; .partial holds what came", partial=self.text
        )

    async def _open(self) -> None:
        opener, self._opener = self._opener, None
        if opener is None:
            return
        self._reading = True
        try:
            opened = as_stream(await opener())
        except BaseException as error:
            if not self._ended:
                self._stop = None
                self._end(error)
            elif error is self._error or isinstance(error, Exception):
                raise self._told_again(left=_LEFT_OPENING) from None
            raise
        finally:
            self._reading, self._stop = False, None
        if self._ended:  # it could not be stopped
            await opened.aclose()
            raise self._told_again(left=_LEFT_OPENING)
        self._take_over(opened)

    def _take_over(self, opened: LLMStream) -> None:
        for part in ("provider", "key", "foreign", "_chunks", "_first", "_hooks", "_finish", "_response"):
            setattr(self, part, getattr(opened, part))
        self._error, self._source = opened._error, opened._source
        if opened._timer is not None:
            opened._timer.cancel()
        self._ended, opened._ended = opened._ended, True
        self._way_back = way_back()
        if opened._clock is not None:
            self.watch(opened._clock, idle=opened._idle, deadline=opened._deadline)
        # Whoever watches over the opened stream, to interrupt it, means this one from now on.
        opened._heir, opened._hooks, opened._finish = weakref.ref(self), [], None

    def _end(self, error: BaseException | None) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        stop, self._stop = self._stop, None
        if self._source is not None:
            self._close_source()
            if error is None:
                try:
                    self._response = self._whole(self._source)
                except Exception as failure:  # noqa: BLE001 - it is the outcome, and all who observe must hear of it
                    error = ours(failure) if self.foreign else failure
        self._error = error
        if stop is not None and error is not None:
            stop(error)
        hooks, self._hooks = self._hooks, []
        for hook in hooks:
            tell(hook, self._response, error)

    def _whole(self, source: ChunkSource) -> LLMResponse:
        raw = getattr(source, "raw", None)  # not every source has one
        response = assemble(
            self._chunks, id=source.id, model=source.model, provider=self.provider, key=self.key, raw=raw
        )
        return self._finish(response) if self._finish is not None else response

    def _close_source(self) -> None:
        try:
            if self._source is not None:
                self._source.close()
        except Exception:
            _logger.exception("a stream's source failed as it was closed")

    def _arm(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = [when for when in (self._deadline, self._idle and self._touched + self._idle) if when is not None]
        if due and self._clock is not None:
            # Weak, so that a stream that nobody holds is freed, and closes.
            self._timer = self._clock.call_later(
                max(0.0, min(due) - now), partial(call_if_there, weakref.WeakMethod(self._look))
            )

    def _look(self) -> None:
        clock = self._clock
        if self._ended or clock is None:
            return
        now = clock.now()
        if self._deadline is not None and now >= self._deadline:
            self.interrupt(
                LLMTimeoutError(
                    "the call's time is over while its stream goes on; give it a longer timeout", phase="total"
                )
            )
        elif self._idle is not None and now >= self._touched + self._idle:  # as it was armed, to the last bit
            self._look_idle(now)
        else:
            self._arm(now)

    def _look_idle(self, now: float) -> None:
        if self._reading:
            message = f"nothing came for {self._idle:g} seconds in the middle of a stream"
            self.interrupt(LLMTimeoutError(message, phase="idle"))
        elif self._source is not None and self._source.waiting():
            message = f"the stream was not read for {self._idle:g} seconds and is closed; read on"
            self.interrupt(LLMTimeoutError(message, phase="idle", unread=True))
        else:
            self._touched = now
            self._arm(now)


LLMResult: TypeAlias = LLMResponse | LLMStream


def as_stream(result: LLMResult) -> LLMStream:
    """Return a stream as it is, and a response as a stream of few chunks that ends as that very response."""
    if isinstance(result, LLMStream):
        return result
    stream = LLMStream(Replay(take_apart(result), id=result.id, model=result.model), provider=result.provider)
    stream.finish_with(lambda _: result)
    return stream


def at_end(result: LLMResult, hook: EndHook) -> LLMResult:
    """Have `hook` told the outcome once: now for a response, at the end, the break or the early leave for a stream."""
    if isinstance(result, LLMStream):
        result.on_end(hook)
    else:
        tell(hook, result, None)
    return result
