"""`algorithm: auto`: both are counted until the provider's own numbers prove one."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.core.call import Charge, LimitReport
from llm.limits.amounts import amounts_of
from llm.limits.auto import AutoLimit, Evidence
from llm.limits.base import GUARD
from llm.limits.memory import Account
from llm.testing.allowance import Allowance, BucketAllowance, FixedAllowance, SlidingAllowance

if TYPE_CHECKING:
    from llm.limits.auto import Kind
    from llm.limits.base import Holds

MINUTE = 60.0


def report(used: float, reset: float | None, *, limit: float = 60.0, rounding: float = 0.0) -> LimitReport:
    return LimitReport("requests", limit, limit - used, reset, rounding)


def auto(capacity: float = 60.0, *, bucket: bool = False) -> AutoLimit:
    return AutoLimit("requests_per_minute", "requests", capacity, MINUTE, bucket=bucket)


# --- what is proved -------------------------------------------------------------------------------------------------


def proved(*reports: LimitReport) -> Kind | None:
    evidence = Evidence()
    kinds: list[Kind | None] = [evidence.see(one, MINUTE) for one in reports]
    return next((kind for kind in kinds if kind is not None), None)


def test_one_reset_longer_than_a_refill_explains_proves_a_window() -> None:
    assert proved(report(1, 60.0)) == "window"
    assert proved(report(10, 42.8)) == "window"


def test_one_reset_shorter_than_a_refill_takes_proves_a_window() -> None:
    assert proved(report(55, 10.0)) == "window"


def test_three_resets_that_fit_use_of_very_different_size_prove_a_bucket() -> None:
    assert proved(report(1, 1.0), report(20, 20.0)) is None
    assert proved(report(1, 1.0), report(20, 20.0), report(30, 30.0)) == "bucket"


def test_alike_resets_that_fit_prove_nothing_for_a_window_may_end_then() -> None:
    assert proved(*[report(used, 30.0) for used in (28, 29, 30, 31, 32)] * 5) is None


def test_rounding_and_whole_seconds_prove_nothing() -> None:
    assert (
        proved(report(1000, 1.0, limit=10_000, rounding=1000.0), report(1000, 13.0, limit=10_000, rounding=1000.0))
        is None
    )
    assert proved(report(1, 3.0), report(2, 4.0)) is None


def test_a_bucket_that_owes_is_no_window() -> None:
    assert proved(report(60, 90.0)) is None


def test_what_is_not_said_proves_nothing() -> None:
    assert proved(report(30, None), report(0, 60.0)) is None


@settings(max_examples=settings().max_examples, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(["bucket", "fixed", "sliding"]),
    limit=st.sampled_from([10.0, 50.0, 500.0]),
    rate=st.floats(0.1, 5.0),
    phase=st.floats(0.5, 60.0),
    whole=st.booleans(),
)
def test_nothing_false_is_ever_proved(  # noqa: PLR0913 - what a vendor may be
    seed: int, kind: str, limit: float, rate: float, phase: float, *, whole: bool
) -> None:
    vendors: dict[str, Allowance] = {
        "bucket": BucketAllowance(limit, MINUTE, 0.0),
        "fixed": FixedAllowance(limit, MINUTE, 0.0, phase),
        "sliding": SlidingAllowance(limit, MINUTE),
    }
    vendor = vendors[kind]
    random, evidence, now = Random(seed), Evidence(), 0.0  # noqa: S311 - a vendor's customers
    for _ in range(100):
        now += random.expovariate(rate * limit / MINUTE)
        if vendor.wait(now, 1.0) == 0.0:
            vendor.take(now, 1.0)
        reset = vendor.reset(now)
        said = LimitReport("requests", limit, vendor.remaining(now) // 1, -(-reset // 1) if whole else reset)
        found = evidence.see(said, MINUTE)
        if found is not None:
            assert found == ("bucket" if kind == "bucket" else "window")
            return


# --- what holds -----------------------------------------------------------------------------------------------------


def test_undecided_both_hold_and_so_the_window_does() -> None:
    limit = auto()
    limit.take(0.0, 60.0)
    assert limit.wait(30.0, 1.0) == pytest.approx(30.0 + GUARD)
    limit.decide("bucket")
    assert limit.wait(30.0, 29.0) == 0.0


def test_at_the_vendors_hosts_the_bucket_holds_until_a_window_is_proved() -> None:
    limit = auto(bucket=True)
    limit.take(0.0, 60.0)
    assert limit.wait(30.0, 29.0) == 0.0
    assert limit.saturation(30.0) == pytest.approx(0.5, abs=0.01)
    limit.decide("window")
    assert limit.wait(30.0, 1.0) == pytest.approx(30.0 + GUARD)
    assert limit.saturation(30.0) == 1.0


@pytest.mark.parametrize("kind", ["bucket", "window"])
def test_what_was_taken_before_the_proof_is_learned_from_after_it(kind: Kind) -> None:
    limit = auto()
    limit.settle(0.5, limit.take(0.0, 20.0), 10.0)
    early = limit.take(1.0, 1.0)
    limit.decide(kind)
    limit.learn(1.1, early, report(31, None))
    assert limit.saturation(1.1) == pytest.approx(31 / 60, abs=0.03)


@pytest.mark.parametrize("kind", ["bucket", "window"])
def test_what_was_taken_before_the_proof_settles_after_it(kind: Kind) -> None:
    limit = auto()
    early = limit.take(0.0, 60.0)
    limit.decide(kind)
    limit.settle(1.0, early, 10.0)
    assert limit.saturation(1.0) == pytest.approx(10 / 60, abs=0.03)
    late = limit.take(2.0, 40.0)
    limit.settle(3.0, late, 0.0)
    assert limit.saturation(3.0) == pytest.approx(10 / 60, abs=0.05)


@pytest.mark.parametrize("kind", ["bucket", "window"])
def test_what_had_left_before_the_proof_gives_nothing_back_and_tells_what_is_left(kind: Kind) -> None:
    limit = auto(bucket=kind == "window")
    early, refused = limit.take(0.0, 20.0), limit.take(2.0, 20.0)
    limit.settle(2.5, limit.take(2.0, 10.0), 5.0)
    for now in (66.0, 67.0):
        limit.take(now, 15.0)
    limit.decide(kind)
    before = limit.free(68.0)
    limit.settle(68.0, early, 0.0)
    assert limit.free(68.0) == before
    limit.learn(68.0, refused, LimitReport("requests", 60.0, 5.0, refused=True))
    assert 0.0 <= limit.free(68.0) <= before


def test_what_is_settled_twice_around_the_proof_is_given_back_once() -> None:
    limit = auto()
    early = limit.take(0.0, 40.0)
    limit.take(0.0, 15.0)
    limit.decide("bucket")
    limit.settle(0.0, early, 30.0)
    limit.settle(0.0, early, 30.0)
    assert limit.free(0.0) == pytest.approx(15.0)


def test_what_a_bucket_refused_is_given_back_once() -> None:
    limit = auto()
    limit.take(0.0, 30.0)
    early = limit.take(0.0, 20.0)
    limit.decide("bucket")
    for _ in range(2):
        limit.learn(0.0, early, LimitReport("requests", 60.0, 10.0, refused=True))
    assert limit.free(0.0) >= 5.0


def test_both_learn_until_then_and_follow_a_new_number() -> None:
    for kind in ("bucket", "window"):
        limit = auto()
        hold = limit.take(0.0, 1.0)
        limit.learn(0.1, hold, report(40, None))
        limit.resize(0.1, 30.0)
        limit.decide(kind)
        assert limit.capacity == 30.0
        assert limit.wait(0.1, 31.0) == float("inf")
        assert limit.wait(0.1, 25.0) > 0.0


# --- in an account --------------------------------------------------------------------------------------------------


def account(algorithm: str = "auto", *, bucket: bool = False) -> Account:
    made = Account()
    stated = {"requests_per_minute": 60, "tokens_per_minute": 6000, "algorithm": algorithm}
    made.state(0.0, stated, level="key", bucket=bucket)
    return made


def spend(of: Account, *resets: tuple[float, float]) -> None:
    holds = [[(limit, limit.take(0.0, 20.0)) for limit in of.limits] for _ in resets]
    for paid, (used, reset) in zip(holds, resets, strict=True):
        of.learn(0.1, paid, [report(used, reset)])


BUCKETS = ((20.0, 20.0), (40.0, 40.0), (60.0, 60.0))


def test_a_proof_by_one_limit_holds_for_all_of_the_account_and_for_those_that_a_reload_adds() -> None:
    made = account()
    version = made.version
    spend(made, *BUCKETS)
    assert [limit.kind for limit in made.limits if isinstance(limit, AutoLimit)] == ["bucket", "bucket"]
    assert made.version > version
    assert made.limits[0].wait(10.0, 5.0) == 0.0
    made.state(10.0, {"requests_per_hour": 100}, level="key", bucket=False)
    assert [limit.kind for limit in made.limits if isinstance(limit, AutoLimit)] == ["bucket"]


def test_a_window_is_proved_by_the_first_answer() -> None:
    made = account(bucket=True)
    spend(made, (20.0, 60.0))
    assert [limit.kind for limit in made.limits if isinstance(limit, AutoLimit)] == ["window", "window"]


def test_a_stated_algorithm_is_never_switched() -> None:
    made = account("sliding_window")
    kinds = [type(limit) for limit in made.limits]
    spend(made, *BUCKETS)
    assert [type(limit) for limit in made.limits] == kinds
    assert made.limits[0].wait(10.0, 5.0) > 0.0
    made = account("token_bucket")
    spend(made, (1.0, 60.0))
    assert made.limits[0].wait(30.0, 40.0) == 0.0


@pytest.mark.parametrize(("bucket", "kind"), [(True, "bucket"), (False, "window")])
def test_where_answers_say_nothing_it_stops_counting_both_ways(kind: str, *, bucket: bool) -> None:
    made = account(bucket=bucket)
    for now in range(32):
        assert [limit.kind for limit in made.limits if isinstance(limit, AutoLimit)] == [None, None]
        made.succeeded(float(now))
    assert [limit.kind for limit in made.limits if isinstance(limit, AutoLimit)] == [kind, kind]


# --- paid together ----------------------------------------------------------------------------------------------------


def paid(of: Account, requests: int) -> Holds:
    amounts = amounts_of(Charge(requests=requests))
    return [(payer, payer.take(0.0, amounts[payer.place])) for payer in of.payers]


def settled(holds: Holds, requests: int) -> None:
    amounts = amounts_of(Charge(requests=requests))
    for payer, hold in holds:
        payer.settle(1.0, hold, amounts[payer.place])


def test_what_was_paid_together_is_settled_of_the_bucket_that_each_turned_out_to_be() -> None:
    made = account()
    several = [paid(made, 10) for _ in BUCKETS]
    for holds, (used, reset) in zip(several, BUCKETS, strict=True):
        made.learn(0.1, holds, [report(used, reset)])
    assert [limit.kind for limit in made.limits if isinstance(limit, AutoLimit)] == ["bucket", "bucket"]
    requests = made.limits[0]
    before = requests.saturation(1.0)
    settled(several[0], 0)
    assert before - requests.saturation(1.0) == pytest.approx(10 / 60, abs=0.01)
    assert made.payers == made.limits  # each by itself


def test_what_a_bucket_refused_is_not_given_back_again_as_the_attempt_ends() -> None:
    made = account()
    several = [paid(made, 10) for _ in range(4)]
    for holds, (used, reset) in zip(several, BUCKETS, strict=False):
        made.learn(0.1, holds, [report(used, reset)])
    refused = LimitReport("requests", 60.0, 0.0, refused=True)
    made.learn(0.2, several[3], [refused])
    before = made.limits[0].free(1.0)
    settled(several[3], 0)
    assert made.limits[0].free(1.0) == before
