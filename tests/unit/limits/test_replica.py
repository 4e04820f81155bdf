"""A copy of an account that follows a log: all copies agree, and none takes before what the log puts before it."""

# ruff: noqa: ANN401 - limits as a configuration states them
from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.core.call import Charge, LimitReport
from llm.limits.ledger import (
    BEGINNING,
    Entry,
    Event,
    Gone,
    Read,
    Resting,
    Running,
    Settled,
    Standing,
    Taken,
    Waiting,
)
from llm.limits.memory import Account
from llm.limits.replica import Replica
from llm.limits.taken import crowd

NOTHING = Charge(requests=0)


def tokens(amount: int) -> Charge:
    return Charge(total_tokens=amount)


def account(*, bucket: bool = True, **limits: Any) -> Account:
    made = Account()
    made.state(0.0, limits, level="key", bucket=bucket)
    return made


@dataclass
class Log:
    """A log in memory, and its copies."""

    entries: list[tuple[float, str, Event]] = field(default_factory=list[tuple[float, str, Event]])

    def write(self, now: float, process: str, event: Event) -> None:
        self.entries.append((now, process, event))

    def read(self, after: str, now: float, *, taken: bool = False) -> Read:
        first = int(after.partition("-")[0])
        entries = [
            Entry(f"{number}-0", now - at, process, event)
            for number, (at, process, event) in enumerate(self.entries, 1)
            if number > first
        ]
        return Read(taken, entries, f"{len(self.entries)}-0", afresh=False)


def follow(copy: Replica, log: Log, now: float) -> None:
    copy.apply(log.read(copy.position, now), now, copy.epoch)


def take(copy: Replica, log: Log, call: str, charge: Charge, now: float) -> Any:
    copy.keep(call, charge)
    log.write(now, copy.process, Taken(call, charge))
    follow(copy, log, now)
    return copy.confirmed(call, charge, now)


STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "settle", "read", "wait"]), st.integers(0, 2), st.integers(1, 400)), max_size=40
)


@pytest.mark.parametrize("bucket", [True, False])
@given(steps=STEPS)
def test_all_copies_come_to_the_levels_of_one_account_that_saw_all(
    steps: list[tuple[str, int, int]], *, bucket: bool
) -> None:
    log, limits = Log(), {"tokens_per_minute": 3000, "requests_per_minute": 60, "concurrent_requests": 50}
    copies = [Replica("a", account(bucket=bucket, **limits), f"p{number}") for number in range(3)]
    whole, now = account(bucket=bucket, **limits), 100.0
    for limit in whole.limits:
        crowd(limit)
    running: list[tuple[Replica, str, Any, Any]] = []
    for number, (what, who, amount) in enumerate(steps):
        copy, call = copies[who], f"call-{number}"
        if what == "take":
            holds = take(copy, log, call, tokens(amount), now)
            seen = [(limit, limit.take(now, getattr(tokens(amount), limit.unit))) for limit in whole.limits]
            running.append((copy, call, holds, seen))
        elif what == "settle" and running:
            owner, call, holds, seen = running.pop(amount % len(running))
            follow(owner, log, now)
            for limit, hold in (*holds, *seen):
                limit.settle(now, hold, getattr(tokens(amount), limit.unit))
            owner.settle(call, tokens(amount), now)
            log.write(now, owner.process, Settled(call, tokens(amount)))
        elif what == "read":
            follow(copy, log, now)
        else:
            now += amount / 100
    for then, near in ((now, 1.0), (now + 120.0, 1e-3)):
        for copy in copies:
            follow(copy, log, then)
            for limit, other in zip(copy.account.limits, whole.limits, strict=True):
                assert limit.free(then) == pytest.approx(other.free(then), abs=near), limit.name


def test_no_copy_is_ahead_of_a_provider_that_the_first_request_reaches_half_a_second_after_it_was_taken() -> None:
    log, rate = Log(), 100.0
    copies = [Replica("a", account(tokens_per_minute=60 * rate), f"p{number}") for number in range(2)]
    take(copies[0], log, "one", tokens(1000), 100.0)
    take(copies[1], log, "two", tokens(1000), 100.1)
    has = 60 * rate - 2000  # when both have arrived, at 100.5; until then it is full
    for copy in copies:
        follow(copy, log, 100.6)
        assert copy.account.limits[0].free(103.0) <= has + (103.0 - 100.5) * rate


def test_after_a_refusal_the_copy_stays_behind_what_the_provider_had() -> None:
    log, rate = Log(), 100.0
    copy = Replica("a", account(tokens_per_minute=60 * rate), "me")
    holds = take(copy, log, "refused", tokens(1000), 100.0)
    copy.account.learn(100.1, holds, [LimitReport("total_tokens", 60 * rate, 900, refused=True)])
    assert 60 * rate * (1 - copy.account.limits[0].saturation(100.1)) <= 901  # it may have come as late as the answer


def test_what_is_asked_for_is_kept_and_taken_after_all_that_the_log_puts_before_it() -> None:
    log, copy = Log(), Replica("a", account(tokens_per_minute=100), "me")
    copy.keep("mine", tokens(60))
    assert copy.bound(tokens(50), 0.0).seconds > 0.0
    assert copy.bound(tokens(40), 0.0).seconds == 0.0
    assert copy.room(tokens(40), 0.0).total_tokens == 100
    log.write(0.0, "other", Taken("theirs", tokens(30)))
    log.write(0.0, "me", Taken("mine", tokens(60)))
    follow(copy, log, 0.1)
    [(_, hold)] = copy.confirmed("mine", tokens(60), 0.1)
    assert hold.number == 2
    assert copy.room(tokens(1), 0.1).total_tokens == pytest.approx(10.0)
    follow(copy, log, 0.1)  # once more
    assert copy.bound(tokens(10), 0.1).seconds == 0.0


def test_what_the_log_did_not_take_is_kept_no_more() -> None:
    copy = Replica("a", account(tokens_per_minute=100), "me")
    copy.keep("one", tokens(60))
    copy.keep("two", tokens(30))
    copy.drop("one")
    assert copy.bound(tokens(70), 0.0).seconds == 0.0
    copy.drop("two")
    assert copy.bound(tokens(100), 0.0).seconds == 0.0


def test_a_call_is_counted_once_however_often_the_log_names_it() -> None:
    log, copy = Log(), Replica("a", account(tokens_per_minute=100, concurrent_requests=5), "me")
    for _ in range(2):
        log.write(0.0, "other", Taken("theirs", tokens(30)))
    follow(copy, log, 0.0)
    for _ in range(2):
        log.write(0.0, "other", Settled("theirs", tokens(10)))
    log.write(0.0, "other", Taken("theirs", tokens(30)))
    follow(copy, log, 0.0)
    assert copy.room(tokens(1), 0.0).total_tokens == pytest.approx(90.0)
    assert copy.room(tokens(1), 0.0).running == 5


def test_a_dead_process_gives_its_places_back_and_its_tokens_stay_taken() -> None:
    log, copy = Log(), Replica("a", account(tokens_per_minute=100, concurrent_requests=1), "me")
    log.write(0.0, "other", Taken("theirs", tokens(30)))
    log.write(0.0, "other", Waiting(tokens(20), 0))
    follow(copy, log, 0.0)
    assert not copy.bound(tokens(1), 0.0).timed
    log.write(0.0, "other", Gone(dead=True))
    follow(copy, log, 0.0)
    assert copy.bound(tokens(70), 0.0).seconds == 0.0
    assert copy.bound(tokens(71), 0.0).seconds > 0.0


def test_a_rest_holds_for_all_without_a_strike() -> None:
    log, copy = Log(), Replica("a", account(tokens_per_minute=100), "me")
    log.write(1.0, "other", Resting(5.0))
    follow(copy, log, 2.0)
    assert copy.account.cooling_until == 6.0
    assert copy.account.strikes == 0


def test_who_stands_in_line_goes_before_who_does_not_and_before_who_came_later() -> None:
    log, copy = Log(), Replica("a", account(tokens_per_minute=100), "me")
    log.write(0.0, "first", Waiting(tokens(60), 0))
    follow(copy, log, 0.0)
    assert copy.room(tokens(1), 0.0).total_tokens == 40
    assert copy.bound(tokens(41), 0.0).seconds > 0.0
    assert copy.bound(tokens(90), 0.0, priority=1).seconds == 0.0
    log.write(0.0, "me", Waiting(tokens(50), 0))
    log.write(0.0, "last", Waiting(tokens(70), 0))
    follow(copy, log, 0.0)
    assert copy.room(tokens(1), 0.0).total_tokens == 40
    assert copy.bound(tokens(50), 0.0).seconds == pytest.approx(10 * 0.6)
    log.write(0.0, "first", Taken("theirs", tokens(40)))
    follow(copy, log, 0.0)
    assert copy.room(tokens(1), 0.0).total_tokens == 60
    log.write(0.0, "me", Gone())
    follow(copy, log, 0.0)
    assert copy.stands is None
    assert copy.room(tokens(1), 0.0).total_tokens == 1  # the last is the first now; what could be taken is still said


def test_more_than_a_limit_holds_stands_before_a_call_and_takes_its_time() -> None:
    log, copy = Log(), Replica("a", account(tokens_per_minute=60), "me")
    for process in "abc":
        log.write(0.0, process, Waiting(tokens(40), 0))
    follow(copy, log, 0.0)
    assert copy.bound(tokens(10), 0.0).seconds == pytest.approx(70.0)


def test_a_budget_is_not_used_up_by_what_is_only_asked_for() -> None:
    copy = Replica("a", account(tokens_per_day=100), "me")
    copy.keep("mine", tokens(60))
    bound = copy.bound(tokens(50), 0.0)
    assert bound.limit is None
    assert bound.seconds == pytest.approx(0.001)
    assert copy.bound(tokens(101), 0.0).seconds == math.inf


def test_a_pace_lets_one_call_ask_at_a_time() -> None:
    made = account(tokens_per_minute=100)
    made.cool(0.0, None)
    made.cooling_until = 0.0
    copy = Replica("a", made, "me")
    assert copy.bound(tokens(1), 100.0).seconds == 0.0
    assert copy.room(tokens(1), 100.0).requests == 1.0
    copy.keep("mine", tokens(1))
    assert copy.bound(tokens(1), 100.0).seconds > 0.0


def test_a_bound_on_one_call_is_no_room_that_others_take() -> None:
    copy = Replica("a", account(tokens_per_minute=100, cost_per_call=1.0), "me")
    copy.keep("mine", Charge(cost=0.9))
    assert copy.bound(Charge(cost=0.9), 0.0).seconds == 0.0
    assert copy.bound(Charge(cost=1.1), 0.0).seconds == math.inf
    assert copy.room(Charge(cost=0.9), 0.0).cost == math.inf


@pytest.mark.parametrize("bucket", [True, False])
def test_a_newcomer_knows_from_a_standing_what_is_taken_and_what_runs(*, bucket: bool) -> None:
    limits = {"tokens_per_minute": 600, "tokens_per_day": 1000, "concurrent_requests": 3}
    log, old = Log(), Replica("a", account(bucket=bucket, **limits), "old")
    for number, at in enumerate((0.0, 20.0, 40.0)):
        take(old, log, f"old-{number}", tokens(100), at)
    old.settle("old-0", tokens(100), 40.0)
    told = old.standing(40.0)
    assert [running.call for running in told.running] == ["old-1", "old-2"]
    new = Replica("a", account(bucket=bucket, **limits), "new")
    ground = [Entry("3-0", 2.0, "old", told), Entry("3-0", 0.0, "old", Waiting(tokens(5), 0))]
    late = Entry("4-0", 0.0, "old", Settled("old-1", tokens(100)))
    new.apply(Read(False, [*ground, late], "4-0", afresh=False), 42.0, 0)  # noqa: FBT003 - a tuple
    assert new.position == "4-0"
    for mine, theirs in zip(new.account.limits, old.account.limits, strict=True):
        if mine.timed:
            assert mine.free(42.0) <= theirs.free(42.0) + 1e-6
            assert mine.free(42.0) == pytest.approx(theirs.free(42.0), abs=25.0)
    assert sum(limit.free(42.0) for limit in new.account.limits if not limit.timed) == 2


def test_a_standing_lowers_only_what_is_not_known_yet() -> None:
    log, copy = Log(), Replica("a", account(tokens_per_minute=100, bucket=False), "me")
    take(copy, log, "mine", tokens(50), 10.0)
    for amount in (50.0, 70.0, 30.0):
        log.write(12.0, "other", Standing({"tokens_per_minute": [(2.0, amount)]}))
        follow(copy, log, 12.0)
    assert copy.room(tokens(1), 12.0).total_tokens == pytest.approx(30.0)


def test_a_copy_that_fell_behind_the_log_forgets_the_calls_that_ended_meanwhile() -> None:
    log, copy = Log(), Replica("a", account(tokens_per_minute=100, concurrent_requests=2), "me")
    log.write(0.0, "other", Taken("ended", tokens(10)))
    follow(copy, log, 0.0)
    told = Standing({}, [Running("runs", "other", tokens(5)), Running("mine", "me", tokens(5))], "9-0")
    copy.apply(Read(False, [Entry("9-0", 0.0, "other", told)], "9-0", afresh=False), 1.0, 0)  # noqa: FBT003 - a tuple
    assert copy.room(tokens(1), 1.0).running == 1
    for _ in range(8):
        log.write(1.0, "other", Gone())
    log.write(1.0, "other", Settled("runs", tokens(5)))
    follow(copy, log, 1.0)
    assert copy.room(tokens(1), 1.0).running == 2


def test_of_a_log_that_began_anew_each_entry_counts_once_and_the_copy_stays() -> None:
    log, copy = Log(), Replica("a", account(tokens_per_minute=100), "me")
    for _ in range(5):
        log.write(0.0, "other", Taken(f"call-{len(log.entries)}", tokens(10)))
    log.write(0.0, "other", Waiting(tokens(5), 0))
    follow(copy, log, 0.0)
    new = Read(False, [Entry("1-0", 0.0, "other", Taken("new", tokens(10)))], "1-0", afresh=True)  # noqa: FBT003
    for _ in range(2):
        copy.apply(new, 0.0, 0)
    copy.apply(log.read(BEGINNING, 0.0), 0.0, 0)  # an answer of the old one, too late
    assert (copy.epoch, copy.position) == (1, "1-0")
    assert copy.room(tokens(1), 0.0).total_tokens == pytest.approx(40.0)


def anew(copy: Replica, now: float, *entries: Entry) -> None:
    upto = entries[-1].at if entries else "1-0"
    copy.apply(Read(False, entries, upto, afresh=True), now, copy.epoch)  # noqa: FBT003 - a tuple


def two_calls_of_another() -> Replica:
    log, copy = Log(), Replica("a", account(concurrent_requests=3), "me")
    for call in ("ends", "runs"):
        log.write(0.0, "other", Taken(call, tokens(1)))
    follow(copy, log, 0.0)
    assert copy.room(tokens(1), 0.0).running == 1
    return copy


def test_in_a_log_that_began_anew_a_process_says_which_of_its_calls_still_run() -> None:
    copy = two_calls_of_another()
    anew(copy, 1.0)
    assert copy.room(tokens(1), 1.0).running == 1
    assert not copy.standing(1.0).running  # what nobody has said yet is not handed on
    told = Standing({}, [Running("runs", "other", tokens(1)), Running("later", "other", tokens(1))], "1-0")
    read = Read(False, [Entry("2-0", 0.0, "other", told)], "2-0", afresh=False)  # noqa: FBT003 - a tuple
    assert copy.apply(read, 2.0, copy.epoch)
    assert {call.call for call in copy.standing(2.0).running} == {"runs", "later"}
    assert copy.room(tokens(1), 30.0).running == 1
    copy.apply(Read(False, [], "2-0", afresh=False), 30.0, copy.epoch)  # noqa: FBT003 - a tuple
    assert copy.room(tokens(1), 30.0).running == 1


def test_calls_of_a_process_that_ended_with_the_log_give_their_places_back_after_a_while() -> None:
    copy = two_calls_of_another()
    anew(copy, 1.0)
    for now, free in ((20.0, 1), (21.5, 3)):
        returned = copy.apply(Read(False, [], "1-0", afresh=False), now, copy.epoch)  # noqa: FBT003 - a tuple
        assert bool(returned) == (free == 3)
        assert copy.room(tokens(1), now).running == free


def test_what_one_process_heard_of_another_s_calls_the_other_knows_better() -> None:
    copy = Replica("a", account(concurrent_requests=3), "me")
    heard = Standing({}, [Running("ended", "other", tokens(1))], "4-0")
    copy.apply(Read(False, [Entry("4-0", 0.0, "third", heard)], "4-0", afresh=False), 0.0, 0)  # noqa: FBT003
    assert copy.room(tokens(1), 0.0).running == 2
    copy.apply(Read(False, [Entry("5-0", 0.0, "other", Standing({}))], "5-0", afresh=False), 0.0, 0)  # noqa: FBT003
    assert copy.room(tokens(1), 0.0).running == 3


def test_alone_with_its_part_a_process_takes_as_much_for_each_other() -> None:
    copy = Replica("a", account(tokens_per_minute=120, concurrent_requests=4), "me")
    copy.alone, copy.parts = True, 4
    assert copy.bound(tokens(31), 0.0).seconds == 0.0  # or what is large would never go
    holds = copy.take("mine", tokens(20), 0.0)
    assert copy.room(tokens(1), 0.0).total_tokens == pytest.approx(40.0)
    assert copy.bound(tokens(11), 0.0).seconds > 0.0
    for limit, hold in holds:
        limit.settle(0.0, hold, getattr(tokens(10), limit.unit))
    copy.settle("mine", tokens(10), 0.0)
    assert copy.room(tokens(1), 0.0).total_tokens == pytest.approx(80.0)
    copy.rejoin(0.0)
    assert copy.room(tokens(1), 0.0).total_tokens == pytest.approx(110.0)
    assert (copy.alone, copy.parts) == (False, 1)


def test_what_a_process_held_as_it_forked_is_another_process_for_its_child() -> None:
    log, copy = Log(), Replica("a", account(tokens_per_minute=100, concurrent_requests=1), "parent")
    take(copy, log, "mine", tokens(50), 0.0)
    copy.keep("asked", tokens(50))
    copy.inherit("child")
    assert not copy.bound(tokens(1), 0.0).timed
    log.write(0.0, "parent", Settled("mine", tokens(10)))
    follow(copy, log, 0.0)
    assert copy.bound(tokens(90), 0.0).seconds == 0.0


def test_a_copy_that_is_to_pause_says_for_how_long() -> None:
    copy = Replica("a", account(tokens_per_minute=100), "me")
    copy.rests_until = 2.0
    assert copy.bound(tokens(1), 1.5).seconds == 0.5
    copy.alone = True
    assert copy.bound(tokens(1), 1.5).seconds == 0.0


def test_the_log_remembers_only_so_many_calls_that_ended() -> None:
    log, copy = Log(), Replica("a", account(tokens_per_minute=100), "me")
    for number in range(1100):
        log.write(0.0, "other", Settled(f"call-{number}", NOTHING))
    log.write(0.0, "other", Taken("call-0", tokens(10)))
    log.write(0.0, "other", Taken("call-1099", tokens(20)))
    follow(copy, log, 0.0)
    assert copy.room(tokens(1), 0.0).total_tokens == pytest.approx(90.0)


def test_a_call_that_is_confirmed_without_its_entry_is_taken_all_the_same() -> None:
    copy = Replica("a", account(tokens_per_minute=100), "me")
    copy.keep("mine", tokens(40))
    assert copy.confirmed("mine", tokens(40), 0.0)
    assert copy.room(tokens(1), 0.0).total_tokens == pytest.approx(60.0)


def test_many_moments_of_a_window_are_told_in_a_few() -> None:
    log, copy = Log(), Replica("a", account(tokens_per_minute=10_000, bucket=False), "me")
    for number in range(500):
        take(copy, log, f"call-{number}", tokens(10), number / 10)
    told = copy.standing(50.0).taken["tokens_per_minute"]
    assert len(told) <= 64
    assert sum(amount for _, amount in told) == pytest.approx(5000.0)
