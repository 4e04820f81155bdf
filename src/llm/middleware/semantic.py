"""The semantic cache's layer, inside the cache's: what nobody asked before may mean what somebody did."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from llm.cache.answer import Answer
from llm.cache.likeness import contradict
from llm.cache.vectors import Question, decode, encode, signs_of, unit_of
from llm.core.stream import LLMStream, at_end
from llm.core.texts import EmbeddingInput
from llm.core.types import CachePolicy, LLMRequest
from llm.utils.redact import redact

from .comparable import comparable, group_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from llm.cache.base import CacheBackend
    from llm.cache.vectors import Unit, VectorIndex
    from llm.core.protocols import CallNext
    from llm.core.stream import LLMResult
    from llm.core.types import LLMResponse
    from llm.utils.clock import Clock

    from .comparable import Asked, Terms

_logger = logging.getLogger("llm.cache")
_LOG_EVERY: Final = 60.0  # seconds between two lines about trouble
_REST: Final = 5.0  # seconds after a failure in which the same tenant's questions are not compared
_ON_ITS_WAY: Final = 5.0  # seconds within which an answer may not have come to the backend yet
_MOST_KNOWN: Final = 10_000  # conversations whose questions were read from the backend, and tenants at rest


@dataclass(slots=True)
class SemanticStats:
    """What the semantic cache did for one provider.

    Attributes:
        hits: Calls that got the answer to a question like theirs.
        skipped: Questions that were not compared, or not kept, since there was no vector or the backend failed.
    """

    hits: int = 0
    skipped: int = 0


class SemanticMiddleware:
    """Gives the answer to a question that means the same, where the same tenant asked it the same way.

    It stands right inside the cache's layer, so it is asked what that does not have, and it points to answers that
    that keeps: what is gone there is gone here. All but the last text must be equal, and of the texts what a vector
    cannot tell (`llm.cache.likeness`). Vectors come by calls of their own, which are counted and paid as such; where
    none comes, the call goes on without. What it answers is marked `cached`, and the call's log says how like it was.

    Attributes:
        stats: What it did so far.
    """

    def __init__(  # noqa: PLR0913 - what the layer is made of, once
        self,
        backend: CacheBackend,
        index: VectorIndex,
        terms: Terms,
        *,
        provider: str,
        clock: Clock,
        ask: Callable[[LLMRequest], Awaitable[LLMResponse]],
        spawn: Callable[[Coroutine[object, object, None]], None],
        durable: bool,
        stats: SemanticStats,
    ) -> None:
        """Make the layer of one provider.

        Args:
            backend: Where the cache's layer keeps the answers.
            index: Questions of this process; providers may share it.
            terms: When questions are compared, and by what.
            provider: Section of the configuration whose answers these are.
            clock: Its time.
            ask: Makes a call of its own.
            spawn: Runs what must not delay a caller and must be finished before the manager has closed.
            durable: Whether the backend outlives the process, so that questions are kept there beside their answers.
            stats: Where it counts what it does.
        """
        self.stats: SemanticStats = stats
        self._backend = backend
        self._index = index
        self._terms = terms
        self._provider = provider
        self._clock = clock
        self._ask = ask
        self._spawn = spawn
        self._durable = durable
        self._known: OrderedDict[str, None] = OrderedDict()
        self._resting: dict[str | None, float] = {}
        self._logged_at = -_LOG_EVERY

    async def __call__(self, request: LLMRequest, call_next: CallNext) -> LLMResult:
        """Give the answer to a question like this one, or ask and remember the question.

        Raises:
            LLMException: The provider's.
        """
        asked = comparable(request, self._provider, self._terms)
        if asked is None:
            return await call_next(request)
        await self._recall(asked)
        coming: asyncio.Future[Unit | None] = asyncio.get_running_loop().create_future()
        if asked.group not in self._index:  # so the answer need not wait for the vector, which comes beside it
            self._spawn(self._fetch(asked, request, coming))
        elif (unit := await self._vector(asked, request)) is None:
            return await call_next(request)
        else:
            answer = await self._similar(asked, unit, request)
            if answer is not None:
                result = answer.result(stream=request.stream)
                return await result.begin() if isinstance(result, LLMStream) else result
            coming.set_result(unit)
        result = await call_next(request)
        return at_end(result, partial(self._ended, asked, request, coming))

    async def _vector(self, asked: Asked, request: LLMRequest) -> Unit | None:
        now = self._clock.now()
        if now < self._resting.get(request.user, now):
            self.stats.skipped += 1
            return None
        try:
            response = await self._ask(
                LLMRequest(
                    (),
                    model=self._terms.model,
                    embed=EmbeddingInput(asked.text),
                    timeout=self._terms.timeout,
                    user=request.user,
                    priority=request.priority,
                    cache=CachePolicy(scope=asked.policy.scope),
                )
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the call goes on
            if len(self._resting) >= _MOST_KNOWN:
                self._resting.clear()
            self._resting[request.user] = self._clock.now() + _REST
            self._trouble("asking for a vector", error, request)
            return None
        return unit_of(response.embeddings[0])

    async def _fetch(self, asked: Asked, request: LLMRequest, coming: asyncio.Future[Unit | None]) -> None:
        unit = None
        try:
            unit = await self._vector(asked, request)
        finally:
            coming.set_result(unit)

    async def _similar(self, asked: Asked, unit: Unit, request: LLMRequest) -> Answer | None:
        for similarity, question in self._index.nearest(asked.group, unit, self._terms.threshold):
            if contradict(asked.text, question.text):
                continue
            answer = await self._answer(asked, question, request)
            if answer is not None:
                self._index.used(asked.group, question.key)
                self.stats.hits += 1
                if request.call is not None:
                    request.call.note(self._clock.now(), "similar", (similarity, question.key))
                return answer
        return None

    async def _answer(self, asked: Asked, question: Question, request: LLMRequest) -> Answer | None:
        try:
            entry = await self._backend.get(question.key)
        except Exception as error:  # noqa: BLE001 - whatever it is, the call goes on
            self._trouble("reading an answer", error, request)
            return None
        answer = None if entry is None or entry.age >= question.ttl else Answer.decode(entry.value)
        if answer is None:
            if self._clock.now() - question.at >= min(_ON_ITS_WAY, question.ttl):
                self._index.drop(asked.group, question.key)
            return None
        oldest = asked.policy.ttl
        return answer if oldest is None or entry is None or entry.age < oldest else None

    def _ended(
        self,
        asked: Asked,
        request: LLMRequest,
        coming: asyncio.Future[Unit | None],
        response: LLMResponse | None,
        _: BaseException | None,
    ) -> None:
        if response is None or response.finish_reason == "content_filter":
            return
        if response.provider in {"", self._provider}:
            self._spawn(self._remember(asked, request, coming))

    async def _remember(self, asked: Asked, request: LLMRequest, coming: asyncio.Future[Unit | None]) -> None:
        unit = await coming
        if unit is None:
            return
        question = Question(asked.key, asked.text, unit, signs_of(unit), asked.ttl, self._clock.now())
        self._index.add(asked.group, question)
        if not self._durable:
            return
        place = f"semantic:{asked.base}"
        tags = (place, f"provider:{self._provider}", f"model:{request.model or ''}", f"user:{request.user or ''}")
        try:
            await self._backend.put(f"{place}:{asked.key}", encode(question), ttl=asked.ttl, tags=tags)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller has its answer
            self._trouble("keeping a question", error, request)

    async def _recall(self, asked: Asked) -> None:
        """Read, once, what was asked in this conversation before this process."""
        if not self._durable or asked.base in self._known:
            return
        self._known[asked.base] = None
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        try:
            async with self._clock.timeout(self._terms.timeout):
                async for _, entry in self._backend.scan(tags=(f"semantic:{asked.base}",)):
                    question = decode(entry.value, at=self._clock.now() - entry.age)
                    if question is not None:
                        self._index.add(group_of(asked.base, question.text), question)
        except Exception as error:  # noqa: BLE001 - whatever it is, the call goes on
            self._trouble("reading questions", error, None)

    def _trouble(self, doing: str, error: Exception, request: LLMRequest | None) -> None:
        self.stats.skipped += 1
        now = self._clock.now()
        if request is not None and request.call is not None:
            request.call.note(now, "not_compared", f"{type(error).__name__} while {doing}")
        if now - self._logged_at >= _LOG_EVERY:
            self._logged_at = now
            _logger.warning(
                "the semantic cache of %s failed while %s (%s: %s); calls go on without it, %d skipped so far",
                self._provider, doing, type(error).__name__, redact(str(error)), self.stats.skipped,
            )  # fmt: skip
