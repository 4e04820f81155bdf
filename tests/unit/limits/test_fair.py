"""Who is next: priority, turns of users, arrival and size; and what it costs to leave. No loop, no clock."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.core.call import Call, CallState, Charge, Ticket
from llm.limits.concurrency import Concurrency
from llm.limits.fair import Lane, Turns
from llm.limits.flow import Flow, Size, Waiter, seniority
from llm.limits.lanes import Lanes

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = frozenset({0, 1})


class Nowhere:
    """A queue that is told nothing."""

    def leave(self, waiter: Waiter) -> None:
        raise NotImplementedError

    def move(self, waiter: Waiter) -> None:
        raise NotImplementedError


@dataclass
class Bench:
    loop: asyncio.AbstractEventLoop
    turns: dict[int, Turns] = field(default_factory=dict[int, Turns])
    names: dict[int, str] = field(default_factory=dict[int, str])

    def waiter(  # noqa: PLR0913 - what a call may be
        self,
        name: str,
        *,
        user: str | None = None,
        priority: int = 0,
        at: float = 0.0,
        share: float = 0.1,
        tokens: float = 0.0,
        model: str = "m",
        fits: frozenset[int] = ALL,
        sent: bool = False,
    ) -> Waiter:
        call = Call(at, user=user, priority=priority)
        call.sends = int(sent)
        self.names[call.number] = name
        size = Size(fits, tokens, share)
        ticket = Ticket(Charge(), model, user, priority)
        return Waiter(call, ticket, user=None, size=size, future=self.loop.create_future(), queue=Nowhere())

    def name(self, waiter: Waiter | None) -> str | None:
        return None if waiter is None else self.names[waiter.call.number]

    def served(self, lane: Lane, most: int = 10_000) -> list[str | None]:
        """Serve all, and return them in order."""
        order: list[str | None] = []
        while len(order) < most and (waiter := lane.head()) is not None:
            assert waiter.flow is not None
            lane.serve(waiter.flow)
            order.append(self.name(waiter))
        return order


@pytest.fixture
def bench() -> Iterator[Bench]:
    loop = asyncio.new_event_loop()
    yield Bench(loop)
    loop.close()


def lane_of(bench: Bench, *waiters: Waiter) -> Lane:
    lane = Lane("m", ALL, bench.turns)
    for waiter in waiters:
        lane.push(waiter)
    return lane


def test_priority_then_arrival(bench: Bench) -> None:
    low = [bench.waiter(f"low-{i}", at=i) for i in range(3)]
    high = [bench.waiter(f"high-{i}", at=10.0 + i, priority=5) for i in range(2)]
    assert bench.served(lane_of(bench, *low, *high)) == ["high-0", "high-1", "low-0", "low-1", "low-2"]


def test_users_take_turns_however_many_calls_each_has_waiting(bench: Bench) -> None:
    many = [bench.waiter(f"a{i}", user="a") for i in range(500)]
    few = [bench.waiter(f"b{i}", user="b", at=1.0) for i in range(5)]
    order = bench.served(lane_of(bench, *many, *few))
    assert order[:10] == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3", "a4", "b4"]
    assert order[10:] == [f"a{i}" for i in range(5, 500)]


def test_turns_count_what_is_taken_not_how_often(bench: Bench) -> None:
    large = [bench.waiter(f"a{i}", user="a", share=0.4) for i in range(10)]
    small = [bench.waiter(f"b{i}", user="b", share=0.1) for i in range(40)]
    first = bench.served(lane_of(bench, *large, *small), most=20)
    assert sum(str(name).startswith("a") for name in first) == 4


def test_who_comes_late_does_not_make_up_for_when_he_was_away(bench: Bench) -> None:
    lane = lane_of(bench, *(bench.waiter(f"a{i}", user="a") for i in range(100)))
    bench.served(lane, most=50)
    for i in range(10):
        lane.push(bench.waiter(f"b{i}", user="b", at=50.0))
    names = bench.served(lane, most=10)
    assert sum(str(name).startswith("b") for name in names) == 5


def test_a_user_keeps_his_turn_while_others_are_served_elsewhere(bench: Bench) -> None:
    here, there = lane_of(bench, bench.waiter("b", user="b")), lane_of(bench)
    here.push(bench.waiter("c", user="c", at=1.0))
    for i in range(5):
        there.push(bench.waiter(f"a{i}", user="a"))
    bench.served(there)
    here.push(bench.waiter("a", user="a", at=-5.0))
    assert bench.served(here) == ["b", "c", "a"]


def test_who_comes_back_after_a_refusal_is_first_of_his_priority(bench: Bench) -> None:
    waiting = [bench.waiter(f"a{i}", user="a") for i in range(3)]
    back = bench.waiter("back", user="a", at=9.0, sent=True)
    urgent = bench.waiter("urgent", at=9.0, priority=1)
    assert bench.served(lane_of(bench, *waiting, back, urgent)) == ["urgent", "back", "a0", "a1", "a2"]


def test_large_requests_go_before_their_arrival_but_not_by_more_than_half_a_minute(bench: Bench) -> None:
    early, late = bench.waiter("small", at=0.0, tokens=0.001), bench.waiter("small-2", at=0.5, tokens=0.001)
    soon, whole = bench.waiter("large", at=20.0, tokens=0.5), bench.waiter("whole", at=33.0, tokens=1.0)
    assert bench.served(lane_of(bench, early, late, soon, whole)) == ["large", "small", "small-2", "whole"]


@given(share=st.floats(0.0, 4.0))
def test_seniority_grows_with_size_within_its_bounds(share: float) -> None:
    assert 0.0 <= seniority(share) <= 32.0
    assert seniority(share) <= seniority(min(4.0, share * 2.0))


def test_the_same_size_goes_by_arrival_alone(bench: Bench) -> None:
    waiters = [bench.waiter(str(i), at=float(i), tokens=0.05 + i * 1e-4) for i in range(20)]
    assert bench.served(lane_of(bench, *waiters)) == [str(i) for i in range(20)]


@given(moves=st.lists(st.tuples(st.sampled_from("pls"), st.integers(0, 50)), max_size=200))
def test_nobody_is_lost_or_served_twice_whatever_happens(moves: list[tuple[str, int]]) -> None:
    loop = asyncio.new_event_loop()
    bench = Bench(loop)
    lane, waiting, done = lane_of(bench), dict[str, Waiter](), list[str | None]()
    for n, (what, which) in enumerate(moves):
        if what == "p":
            name = f"w{n}"
            waiting[name] = bench.waiter(name, user="abc"[which % 3], priority=which % 2, at=float(n), sent=which == 7)
            lane.push(waiting[name])
        elif what == "l" and waiting:
            waiter = waiting.pop(sorted(waiting)[which % len(waiting)])
            assert waiter.flow is not None
            lane.leave(waiter.flow, waiter)
        elif what == "s":
            for served in bench.served(lane, most=1):
                done.append(served)
                waiting.pop(str(served))
        head = lane.head()
        assert (head is None) == (not waiting)
        assert {bench.name(waiter) for waiter in lane} == set(waiting)
    assert set(bench.served(lane)) == set(waiting)
    assert len(set(done)) == len(done)
    assert not lane.flows
    loop.close()


@pytest.mark.parametrize("order", [1, -1])
def test_leaving_costs_the_same_however_many_wait(bench: Bench, order: int) -> None:
    def work(many: int) -> float:
        flow = Flow((0, None, False), 0.0)
        waiters = [bench.waiter(str(i)) for i in range(many)]
        for waiter in waiters:
            flow.push(waiter)
        touched = 0
        for waiter in waiters[::order]:
            before = len(flow)
            flow.leave(waiter)
            touched += before if len(flow) != before else 1
        assert not flow
        return touched / many

    assert work(10_000) <= work(1_000) * 1.2 <= 5.0


# --- lanes ------------------------------------------------------------------------------------------------------------


def named(bench: Bench, lanes: Lanes) -> list[str | None]:
    return [bench.name(waiter) for waiter in lanes.heads()]


def test_the_first_of_each_lane_in_the_order_of_all(bench: Bench) -> None:
    lanes = Lanes()
    for waiter in (
        bench.waiter("big", fits=frozenset({1})),
        bench.waiter("any", at=1.0),
        bench.waiter("behind", at=2.0),
        bench.waiter("other", model="n", priority=1, at=3.0),
    ):
        lanes.place(waiter)
    assert named(bench, lanes) == ["other", "big", "any"]
    for waiter in lanes.heads():
        lanes.serve(waiter)
    assert named(bench, lanes) == ["behind"]


def test_who_stands_aside_comes_back_in_time_or_when_something_is_given_back(bench: Bench) -> None:
    lanes, limits = Lanes(), [Concurrency("one", 1), Concurrency("two", 1)]
    for name in "abc":
        lanes.place(bench.waiter(name, user=name))
    for limit, due in zip(limits, (5.0, float("inf")), strict=True):
        lanes.step_aside(lanes.heads()[0], limit, due)
    assert (named(bench, lanes), lanes.due()) == (["c"], 5.0)
    lanes.recall_due(4.9)
    assert named(bench, lanes) == ["c"]
    lanes.recall_due(5.0)
    assert (named(bench, lanes), lanes.due()) == (["a"], float("inf"))
    lanes.serve(lanes.heads()[0])
    lanes.serve(lanes.heads()[0])
    assert (named(bench, lanes), bool(lanes)) == ([], True)
    lanes.recall([limits[1]])
    assert named(bench, lanes) == ["b"]
    lanes.leave(lanes.heads()[0])
    assert not lanes


def test_who_stands_aside_comes_back_as_another_is_their_first(bench: Bench) -> None:
    lanes, limit = Lanes(), Concurrency("one", 1)
    large, small, earlier = (bench.waiter(name, user="a", at=at) for name, at in (("large", 1), ("small", 2), ("x", 0)))
    lanes.place(large)
    lanes.place(small)
    lanes.step_aside(large, limit, 5.0)
    assert not lanes.leave(bench.waiter("never there", user="a"))
    assert named(bench, lanes) == []
    assert lanes.leave(large)
    assert (named(bench, lanes), lanes.due()) == (["small"], float("inf"))
    lanes.step_aside(small, limit, 5.0)
    assert lanes.place(earlier)
    assert (named(bench, lanes), lanes.due()) == (["x"], float("inf"))


def test_who_leaves_while_aside_is_not_brought_back(bench: Bench) -> None:
    lanes, limit = Lanes(), Concurrency("one", 1)
    gone, other = bench.waiter("gone", user="a"), bench.waiter("other", user="b")
    lanes.place(gone)
    lanes.place(other)
    lanes.step_aside(gone, limit, 5.0)
    lanes.leave(gone)
    lanes.place(bench.waiter("again", user="a"))
    lanes.recall_due(6.0)
    lanes.recall([limit])
    assert sorted(bench.name(waiter) or "" for waiter in lanes) == ["again", "other"]
    assert gone.call.state is CallState.CREATED
