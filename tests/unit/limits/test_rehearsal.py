"""A run on copies of the limits takes as long as a real one would, and leaves the limits as they are."""

# ruff: noqa: ANN401 - helpers hand on what a test gives them
from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from llm.core.call import Charge
from llm.core.exceptions import LLMAuthenticationError, LLMInvalidRequestError, LLMRateLimitError
from llm.core.keys import KeyState
from llm.limits.base import DAY, GUARD
from llm.limits.rehearsal import Planned, Rehearsal

if TYPE_CHECKING:
    from llm.limits.admission import AdmissionQueue
    from llm.limits.rotation import Rotation

Bench = Any  # of this room's conftest.py


def planned(tokens: int = 0, used: int | None = None, *, model: str = "m", seconds: float = 0.0) -> Planned:
    end = tokens if used is None else used
    return Planned("fake", model, Charge(tokens, 0, tokens), Charge(end, 0, end), seconds)


def rehearse(queue: Rotation, *requests: Planned, workers: int = 64, **options: Any) -> tuple[float, Rehearsal]:
    rehearsal = Rehearsal([queue], 0.0, workers=workers, **options)
    for request in requests:
        rehearsal.send(request)
    return rehearsal.finish(), rehearsal


def bucket(bench: Bench, **limits: float) -> Any:
    return bench.account(algorithm="token_bucket", **limits)


def window(bench: Bench, **limits: float) -> Any:
    return bench.account(algorithm="sliding_window", **limits)


def test_a_bucket_gives_its_burst_at_once_and_the_rest_as_it_refills(bench: Bench) -> None:
    queue = bench.queue(bucket(bench, requests_per_minute=10))
    assert rehearse(queue, *[planned()] * 10)[0] == 0.0
    assert rehearse(queue, *[planned()] * 20)[0] == pytest.approx(60.0 + GUARD)


def test_a_window_gives_all_at_once_in_each_of_its_spans(bench: Bench) -> None:
    queue = bench.queue(window(bench, requests_per_minute=10))
    assert rehearse(queue, *[planned()] * 20)[0] == pytest.approx(60.0 + GUARD)
    assert rehearse(queue, *[planned()] * 21)[0] == pytest.approx(2 * (60.0 + GUARD))


def test_what_is_not_known_to_be_a_bucket_or_a_window_is_taken_as_either(bench: Bench) -> None:
    queue = bench.queue(bench.account(bucket=False, requests_per_minute=10))
    assert rehearse(queue, *[planned()] * 15)[0] == pytest.approx(30.0 + GUARD)
    assert rehearse(queue, *[planned()] * 15, kind="window")[0] == pytest.approx(60.0 + GUARD)


async def test_what_is_taken_already_counts_and_nothing_more_is_taken(bench: Bench) -> None:
    queue = bench.queue(bucket(bench, requests_per_minute=10, concurrent_requests=4))
    for i in range(4):
        await bench.pay(queue, str(i))
    before = queue.saturation(queue.slots[0])
    assert rehearse(queue, *[planned()] * 6)[0] == 0.0
    assert rehearse(queue, *[planned()] * 7)[0] == pytest.approx(6.0 + GUARD)
    assert queue.saturation(queue.slots[0]) == before


def test_what_is_reserved_until_the_answer_is_there_is_not_free_and_then_comes_back(bench: Bench) -> None:
    queue = bench.queue(bucket(bench, tokens_per_minute=1000))
    assert rehearse(queue, *[planned(500, 50)] * 10)[0] == 0.0
    assert rehearse(queue, *[planned(500, 50, seconds=1.0)] * 10)[0] == pytest.approx(9.0)
    # 1000 at the start, and half of that must be there for the last
    assert rehearse(queue, *[planned(500, 50)] * 21)[0] == pytest.approx(30.0, abs=0.2)


def test_workers_that_wait_for_answers_are_what_bounds_it(bench: Bench) -> None:
    seconds, rehearsal = rehearse(bench.queue(bucket(bench)), *[planned(seconds=1.0)] * 10, workers=2)
    assert seconds == pytest.approx(5.0)
    assert [(brake.limit, brake.level, brake.keys) for brake in rehearsal.brakes] == [("concurrency", None, set())]
    assert rehearsal.sent == 10


def test_workers_that_outnumber_the_requests_bound_nothing(bench: Bench) -> None:
    seconds, rehearsal = rehearse(bench.queue(bucket(bench)), *[planned(seconds=2.0)] * 5, workers=8)
    assert (seconds, rehearsal.brakes) == (2.0, [])


def test_the_limit_that_keeps_calls_waiting_is_named_with_its_keys(bench: Bench) -> None:
    everything = bench.account(level="global", requests_per_minute=60)
    queue = bench.queue(bucket(bench, tokens_per_minute=60), bucket(bench, tokens_per_minute=60), shared=[everything])
    _, rehearsal = rehearse(queue, *[planned(30)] * 8)
    brakes = [(brake.limit, brake.level, brake.keys) for brake in rehearsal.brakes]
    assert brakes == [("tokens_per_minute", "key", {"key-0", "key-1"})]
    _, rehearsal = rehearse(queue, *[planned()] * 90)
    assert [(brake.limit, brake.level, brake.keys) for brake in rehearsal.brakes] == [
        ("requests_per_minute", "global", set())
    ]


def test_small_requests_go_on_with_other_keys_while_a_large_one_waits_for_the_large_key(bench: Bench) -> None:
    queue = bench.queue(bucket(bench, tokens_per_minute=100), bucket(bench, tokens_per_minute=1000))
    large = [planned(900)] * 3
    alone, _ = rehearse(queue, *large)
    assert rehearse(queue, *large, *[planned(50)] * 3)[0] == pytest.approx(alone)


def test_each_model_has_its_own_keys_and_may_keep_the_workers_from_the_others(bench: Bench) -> None:
    queue = bench.queue(("a", bucket(bench, requests_per_minute=10)), ("b", bucket(bench, requests_per_minute=60)))
    mixed = [planned(model="a"), planned(model="b")] * 20
    assert rehearse(queue, *mixed)[0] == pytest.approx(60.0 + GUARD)
    seconds, rehearsal = rehearse(queue, *[planned(model="a")] * 20, *[planned(model="b")] * 60, workers=1)
    assert seconds == pytest.approx(60.0, abs=1.0)
    assert rehearsal.sent == 80


def test_a_key_that_somebody_waits_for_is_kept_from_all_who_come_after(bench: Bench) -> None:
    queue = bench.queue(("*", bucket(bench, tokens_per_minute=100)))
    requests = [planned(100, model="a"), planned(90, model="a"), planned(10, model="b")]
    assert rehearse(queue, *requests)[0] == pytest.approx(60.0 + GUARD)


def test_who_names_no_model_is_given_one_that_can_pay_now(bench: Bench) -> None:
    queue = bench.queue(("a", bucket(bench, requests_per_minute=1)), ("b", bucket(bench, requests_per_minute=10)))
    rehearsal = Rehearsal([queue], 0.0, workers=1)
    chosen: list[str] = []
    for _ in range(6):
        chosen.append(rehearsal.choose_model("fake", ("a", "b")))
        rehearsal.send(planned(model=chosen[-1]))
    assert chosen == ["a", "b", "b", "b", "b", "b"]


def test_accounts_that_providers_share_are_shared_in_the_copy(bench: Bench) -> None:
    account = bucket(bench, requests_per_minute=10)
    one, other = bench.queue(account), bench.queue(account)
    other.provider = "other"
    rehearsal = Rehearsal([one, other], 0.0, workers=64)
    for _ in range(10):
        rehearsal.send(planned())
        rehearsal.send(planned()._replace(provider="other"))
    assert rehearsal.finish() == pytest.approx(60.0 + GUARD)


def test_a_limit_per_day_is_waited_for_and_said_to_refuse(bench: Bench) -> None:
    queue = bench.queue(window(bench, requests_per_day=10))
    seconds, rehearsal = rehearse(queue, *[planned()] * 15)
    assert seconds == pytest.approx(DAY + GUARD)
    assert rehearsal.refused_after == 10
    assert [(brake.limit, brake.refuses) for brake in rehearsal.brakes] == [("requests_per_day", True)]


def test_a_provider_that_asked_for_a_rest_gets_it(bench: Bench) -> None:
    queue = bench.queue(bucket(bench, requests_per_minute=10))
    queue.cool(queue.slots[0], 7.0)
    seconds, rehearsal = rehearse(queue, planned())
    assert seconds == pytest.approx(7.0)
    assert rehearsal.brakes[0].limit == "pause"
    assert rehearsal.brakes[0].keys == {"key-0"}


def test_why_a_request_can_never_be_sent_is_said(bench: Bench) -> None:
    everything = bench.account(level="global", tokens_per_minute=5000)
    queue = bench.queue(("a", bucket(bench, tokens_per_minute=100)), ("a", bucket(bench)), shared=[everything])
    rehearsal = Rehearsal([queue], 0.0, workers=1)
    assert rehearsal.why_never(planned(5000, model="a")) is None
    assert isinstance(rehearsal.why_never(planned(5001, model="a")), LLMRateLimitError)
    assert isinstance(rehearsal.why_never(planned(model="b")), LLMInvalidRequestError)
    small = Rehearsal([bench.queue(bucket(bench, tokens_per_minute=100))], 0.0, workers=1)
    assert "tokens_per_minute" in str(small.why_never(planned(101)))


def test_that_no_key_is_left_is_told_as_what_the_keys_were_refused_with(bench: Bench) -> None:
    queue = bench.queue(bucket(bench))
    queue.slots[0].key.refuse(LLMAuthenticationError("this key is gone"), state=KeyState.REJECTED)
    assert isinstance(Rehearsal([queue], 0.0, workers=1).why_never(planned()), LLMAuthenticationError)


def test_what_was_found_out_of_a_size_is_forgotten_when_there_are_many(bench: Bench) -> None:
    queue = bench.queue(bucket(bench, tokens_per_minute=1e9))
    rehearsal = Rehearsal([queue], 0.0, workers=1)
    assert all(rehearsal.why_never(planned(tokens)) is None for tokens in range(5000))


@pytest.mark.parametrize("seed", range(6))
async def test_it_takes_as_long_as_the_real_queue_with_the_same_requests(bench: Bench, seed: int) -> None:
    dice = Random(seed)  # noqa: S311 - a test's dice
    accounts = [
        bench.account(
            algorithm=dice.choice(["token_bucket", "sliding_window"]),
            requests_per_minute=dice.randint(5, 40),
            tokens_per_minute=dice.randint(300, 3000),
        )
        for _ in range(dice.randint(1, 4))
    ]
    queue = bench.queue(*accounts)
    requests = [planned(tokens := dice.randint(1, 300), dice.randint(1, tokens), seconds=0.5) for _ in range(120)]
    foretold, _ = rehearse(queue, *requests, workers=32)
    assert foretold == pytest.approx(await _really(bench, queue, requests, workers=32), rel=0.005, abs=0.11)


async def _really(bench: Bench, queue: AdmissionQueue, requests: list[Planned], *, workers: int) -> float:
    rest = iter(enumerate(requests))

    async def work() -> None:
        for number, request in rest:
            await bench.pay(queue, str(number), tokens=request.charge.total_tokens)
            await bench.clock.sleep(request.seconds)
            bench.end(str(number), request.used.total_tokens)

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(work()) for _ in range(workers)]
        while not all(task.done() for task in running):
            await bench.clock.advance(0.1)
    return float(bench.clock.now())
