"""Single flight across processes: each layer here stands for a process, and all share one store and one time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from llm.cache.memory import InMemoryCache
from llm.core.call import Call
from llm.core.exceptions import LLMException, LLMOverloadedError
from llm.core.stream import LLMStream, at_end
from llm.core.types import CachePolicy, LLMRequest, LLMResponse
from llm.middleware.cache import CacheMiddleware
from llm.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from llm.cache.base import CacheBackend
    from llm.core.stream import LLMResult

KINDS = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])


class Shared(InMemoryCache):
    """A store with leases, which takes its time, and fails where a test says so."""

    def __init__(self, clock: FakeClock, delay: float = 0.01) -> None:
        super().__init__(clock=clock)
        self.clock = clock
        self.delay = delay
        self.holders: dict[str, tuple[Held, float]] = {}
        self.events: list[str] = []
        self.broken: set[str] = set()
        self.freed: asyncio.Event = asyncio.Event()

    async def step(self, name: str) -> None:
        await self.clock.sleep(self.delay)
        self.events.append(name)
        if name in self.broken:
            raise ConnectionResetError("gone")

    async def lease(self, key: str, seconds: float) -> Held | None:
        await self.step("lease")
        if self.is_held(key):
            return None
        held = Held(self, key)
        self.holders[key] = (held, self.clock.now() + seconds)
        await self.clock.sleep(self.delay)  # on its way back
        return held

    async def released(self, key: str, timeout: float) -> bool:  # noqa: ASYNC109 - the seam's
        await self.step("wait")
        end = self.clock.now() + timeout
        while self.is_held(key) and self.clock.now() < end:
            await self.clock.sleep(0.1)
        return not self.is_held(key)

    def is_held(self, key: str) -> bool:
        return key in self.holders and self.holders[key][1] > self.clock.now()

    async def put(self, key: str, value: bytes, *, ttl: float, tags: Iterable[str] = ()) -> None:
        await self.step("put")
        await super().put(key, value, ttl=ttl, tags=tags)
        self.events.append("kept")


class Held:
    def __init__(self, store: Shared, key: str) -> None:
        self.store = store
        self.key = key

    @property
    def mine(self) -> bool:
        return self.store.holders.get(self.key, (None, 0.0))[0] is self and self.store.is_held(self.key)

    async def renew(self, seconds: float) -> bool:
        await self.store.step("renew")
        if self.mine:
            self.store.holders[self.key] = (self, self.store.clock.now() + seconds)
        return self.mine

    async def release(self) -> None:
        await self.store.step("release")
        if self.mine:
            del self.store.holders[self.key]


class Process:
    """A layer of its own in front of the provider that all share."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tasks: set[asyncio.Task[None]] = set()
        self.dead = False
        self.layer = CacheMiddleware(
            world.store, provider="fake", clock=world.clock, ttl=60, scope="shared", single_flight=True, streams=True,
            spawn=self.spawn,
        )  # fmt: skip

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self.dead:
            work.close()
            return
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def ask(self, *, tries: int = 1, seconds: float | None = None, **options: Any) -> Any:  # noqa: ANN401 - as asked
        clock = self.world.clock
        call = Call(clock.now(), deadline=None if seconds is None else clock.now() + seconds)
        self.last = call
        request = LLMRequest("What is it?", call=call, **options)
        try:
            async with clock.timeout(seconds):
                result = await self.repeat(request, tries)
        except BaseException as error:
            call.ended(clock.now(), error)
            raise
        return at_end(result, lambda _, error: call.ended(clock.now(), error))

    async def repeat(self, request: LLMRequest, tries: int) -> LLMResult:
        for left in reversed(range(tries)):
            try:
                return await self.layer(request, self.world.dispatch)
            except LLMException:
                if not left:
                    raise
                await self.world.clock.sleep(1)
        raise AssertionError

    def start(self, **options: Any) -> asyncio.Task[LLMResponse]:  # noqa: ANN401 - as of `ask`
        return asyncio.create_task(self.whole(**options))

    async def whole(self, **options: Any) -> LLMResponse:  # noqa: ANN401 - as of `ask`
        result = await self.ask(**options)
        return await result.response() if isinstance(result, LLMStream) else result

    def die(self) -> None:
        """Stop, without giving anything back."""
        self.dead = True
        for task in self.tasks:
            task.cancel()


class World:
    def __init__(
        self,
        answers: Sequence[Any] | str | None = None,
        *,
        latency: float = 1.0,
        interval: float = 0.0,
        store: Callable[[FakeClock], CacheBackend] = Shared,
    ) -> None:
        self.clock = FakeClock(auto=True)
        self.store: Any = store(self.clock)
        self.provider = FakeProvider(
            answers, name="fake", latency=latency, interval=interval, clock=self.clock, chunk_size=4
        )
        self.made: list[Process] = []

    def processes(self, count: int) -> list[Process]:
        self.made += [Process(self) for _ in range(count)]
        return self.made[-count:]

    async def dispatch(self, request: LLMRequest) -> LLMResult:
        return await (self.provider.stream(request) if request.stream else self.provider.complete(request))

    async def assert_nothing_left(self) -> None:
        await self.clock.sleep(1)
        assert [process.layer.flights for process in self.made] == [0] * len(self.made)
        assert not any(process.tasks for process in self.made)
        assert self.provider.in_flight == 0
        assert not self.store.holders
        assert self.clock.timers == 0


@KINDS
async def test_a_hundred_identical_calls_in_four_processes_make_one_request(*, stream: bool) -> None:
    world = World("a longer answer, of several chunks")
    tasks = [process.start(stream=stream) for process in world.processes(4) for _ in range(25)]
    answers = [await task for task in tasks]
    assert world.provider.calls == 1
    assert {answer.content for answer in answers} == {"a longer answer, of several chunks"}
    stats = [process.layer.stats for process in world.made]
    assert sum(each.misses for each in stats) == 1
    assert sum(each.followers for each in stats) == 99
    await world.assert_nothing_left()


async def test_processes_that_come_one_after_the_other_make_one_request() -> None:
    world = World()
    tasks: list[asyncio.Task[LLMResponse]] = []
    for process in world.processes(30):
        tasks.append(process.start())
        await world.clock.sleep(0.05)
    assert [(await task).cached for task in tasks] == [False, *[True] * 29]
    assert world.provider.calls == 1


async def test_a_lease_goes_back_when_the_answer_is_kept_and_not_before() -> None:
    world = World()
    await world.processes(1)[0].whole()
    await world.assert_nothing_left()
    assert world.store.events == ["lease", "put", "kept", "release"]


async def test_a_lease_is_renewed_while_its_holder_works() -> None:
    world = World(latency=60)
    one, other = world.processes(2)
    tasks = [one.start(), other.start()]
    assert [(await task).cached for task in tasks] == [False, True]
    assert world.provider.calls == 1
    assert world.store.events.count("renew") >= 15
    await world.assert_nothing_left()


@KINDS
async def test_a_holder_that_dies_loses_its_lease_by_its_end(*, stream: bool) -> None:
    world = World(latency=60)
    one, other = world.processes(2)
    dead = one.start(stream=stream)
    await world.clock.sleep(1)
    task = other.start(stream=stream)
    await world.clock.sleep(1)
    one.die()
    dead.cancel()
    began = world.clock.now()
    assert not (await task).cached
    assert world.clock.now() - began < 71
    assert world.provider.calls == 2
    await world.clock.sleep(1)


@KINDS
async def test_a_leader_that_is_cancelled_lets_another_process_ask_at_once(*, stream: bool) -> None:
    world = World(latency=5)
    one, other = world.processes(2)
    leader, task = one.start(stream=stream), other.start(stream=stream)
    await world.clock.sleep(1)
    leader.cancel()
    began = world.clock.now()
    assert not (await task).cached
    assert world.clock.now() - began < 6
    await world.assert_nothing_left()


@pytest.mark.parametrize("moment", [0.0, 0.005, 0.012, 0.015, 0.025, 0.5, 1.005])
async def test_cancelled_at_any_moment_it_leaves_no_lease_behind(moment: float) -> None:
    world = World()
    one, other = world.processes(2)
    task = one.start()
    await world.clock.sleep(moment)
    task.cancel()
    await asyncio.wait([task])
    began = world.clock.now()
    await other.whole()
    assert world.clock.now() - began < 2
    await world.assert_nothing_left()


async def test_cancelled_while_another_has_the_lease_it_leaves_that_alone() -> None:
    world = World()
    one, other = world.processes(2)
    task = one.start()
    await world.clock.sleep(0.1)
    late = other.start()
    await world.clock.sleep(0.005)
    late.cancel()
    await asyncio.wait([late])
    assert not (await task).cached
    await world.assert_nothing_left()


async def test_a_leader_that_is_cancelled_hands_its_lease_to_its_own_followers() -> None:
    world = World(latency=5)
    one, other = world.processes(2)
    leader, follower = one.start(), one.start()
    await world.clock.sleep(1)
    task = other.start()
    leader.cancel()
    assert (await follower).cached is False
    assert (await task).cached
    assert world.provider.calls == 2
    assert world.store.events.count("release") == 1
    await world.assert_nothing_left()


async def test_who_waits_for_another_process_and_is_cancelled_lets_its_followers_wait_on() -> None:
    world = World(latency=5)
    one, other = world.processes(2)
    task = one.start()
    await world.clock.sleep(1)
    waiting, follower = other.start(), other.start()
    await world.clock.sleep(1)
    waiting.cancel()
    assert (await follower).cached
    await task
    assert world.provider.calls == 1
    await world.assert_nothing_left()


async def test_a_deadline_ends_only_the_call_that_waits() -> None:
    world = World(latency=5)
    one, other = world.processes(2)
    task = one.start()
    await world.clock.sleep(1)
    short = other.start(seconds=2.0)
    long = other.start()
    with pytest.raises(TimeoutError):
        await short
    assert (await long).cached
    assert not (await task).cached
    assert [entry.detail for entry in other.last.log if entry.event == "parked"] == ["another process asks the same"]
    assert world.provider.calls == 1


async def test_a_lease_is_held_through_the_leaders_retries() -> None:
    world = World([LLMOverloadedError("busy"), "fine"])
    one, other = world.processes(2)
    tasks = [one.start(tries=2), other.start()]
    assert [str(await task) for task in tasks] == ["fine", "fine"]
    assert world.provider.calls == 2
    await world.assert_nothing_left()


async def test_a_failure_elsewhere_is_not_shared_and_who_waited_asks_for_itself() -> None:
    world = World([LLMOverloadedError("busy"), "fine"])
    one, other = world.processes(2)
    failing = one.start()
    await world.clock.sleep(0.1)
    task = other.start()
    with pytest.raises(LLMOverloadedError):
        await failing
    assert str(await task) == "fine"
    await world.assert_nothing_left()


async def test_what_may_not_be_kept_is_asked_for_by_each_process() -> None:
    world = World(lambda _: LLMResponse(content="no", finish_reason="content_filter"))  # type: ignore[arg-type]  # one of its forms
    answers = [await task for task in [process.start() for process in world.processes(2)]]
    assert [answer.cached for answer in answers] == [False, False]
    await world.assert_nothing_left()


async def test_what_may_not_be_kept_does_not_make_many_processes_wait_for_one_another() -> None:
    world = World(lambda _: LLMResponse(content="no", finish_reason="content_filter"))  # type: ignore[arg-type]  # one of its forms
    began = world.clock.now()
    for task in [process.start() for process in world.processes(8)]:
        await task
    assert world.clock.now() - began < 4  # of one second each: two are waited for
    assert world.provider.calls == 8
    await world.assert_nothing_left()


async def test_refreshes_share_a_request_and_do_not_take_what_was_there_before() -> None:
    world = World(["old", "new"])
    one, other = world.processes(2)
    await one.whole()
    await world.clock.sleep(1)
    tasks = [process.start(cache=CachePolicy(refresh=True)) for process in (one, other)]
    assert [str(await task) for task in tasks] == ["new", "new"]
    assert world.provider.calls == 2
    await world.assert_nothing_left()


class SlowToKeep(Shared):
    async def put(self, key: str, value: bytes, *, ttl: float, tags: Iterable[str] = ()) -> None:
        await self.clock.sleep(0.5)
        await super().put(key, value, ttl=ttl, tags=tags)


async def test_a_refresh_does_not_take_what_is_still_on_its_way_to_the_store() -> None:
    world = World(["old", "new"], store=SlowToKeep)
    (one,) = world.processes(1)
    assert str(await one.whole()) == "old"
    assert str(await one.whole(cache=CachePolicy(refresh=True))) == "new"
    await world.assert_nothing_left()


async def test_a_stream_that_is_left_lets_another_process_ask() -> None:
    world = World("a longer answer, of several chunks", interval=1.0)
    one, other = world.processes(2)
    stream = await one.ask(stream=True)
    await anext(stream)
    task = other.start(stream=True)
    await world.clock.sleep(1)
    await stream.aclose()
    assert not (await task).cached
    assert world.provider.calls == 2
    await world.assert_nothing_left()


async def test_a_stream_that_nobody_reads_on_is_read_for_those_who_wait_elsewhere() -> None:
    world = World("x" * 400)
    one, other = world.processes(2)
    stream = await one.ask(stream=True)
    assert (await other.whole(stream=True)).cached
    assert len((await stream.response()).content) == 400
    assert world.provider.calls == 1
    await world.assert_nothing_left()


async def test_streams_do_not_wait_for_whole_answers_of_another_process() -> None:
    world = World(latency=5)
    one, other = world.processes(2)
    tasks = [one.start(), other.start(stream=True)]
    assert [(await task).cached for task in tasks] == [False, False]
    await world.assert_nothing_left()


@pytest.mark.parametrize("broken", ["lease", "wait", "renew", "release", "put"])
async def test_a_store_that_fails_makes_no_call_wrong(broken: str) -> None:
    world = World(latency=5)
    world.store.broken.add(broken)
    tasks = [process.start() for process in world.processes(2)]
    assert {(await task).content for task in tasks} == {(await tasks[0]).content}
    assert sum(process.layer.stats.errors for process in world.made) > 0
    await world.clock.sleep(20)
    assert [process.layer.flights for process in world.made] == [0, 0]
    assert world.clock.timers == 0


async def test_a_store_that_fails_while_a_leader_is_cancelled_troubles_nobody() -> None:
    world = World()
    world.store.broken.add("release")
    (process,) = world.processes(1)
    task = process.start()
    await world.clock.sleep(0.012)
    task.cancel()
    await asyncio.wait([task])
    await world.clock.sleep(1)
    assert not process.tasks


async def test_a_lease_that_was_lost_is_not_renewed_any_more() -> None:
    world = World(latency=30)
    (process,) = world.processes(1)
    task = process.start()
    await world.clock.sleep(1)
    world.store.holders.clear()
    await task
    assert world.store.events.count("renew") == 1
    await world.assert_nothing_left()


async def test_a_store_without_leases_is_asked_for_none() -> None:
    world = World(store=lambda clock: InMemoryCache(clock=clock))
    await world.processes(1)[0].whole()
    assert world.clock.timers == 0
