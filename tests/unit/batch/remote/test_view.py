from __future__ import annotations

from llm.batch.remote.ledger import Part, Plan, State
from llm.batch.remote.values import Phase, Standing
from llm.batch.remote.view import View
from llm.progress import ProgressTracker


def part(number: int, state: State = State.SENT) -> Part:
    return Part(Plan(number, "openai", "/v1/x", "m", 2500), f"run-{number}", state)


def test_it_says_how_all_batches_stand() -> None:
    view, parts = View(ProgressTracker()), [part(1), part(2), part(3), part(4, State.PLANNED), part(5, State.PLANNED)]
    assert view.words(parts[:1]) == "submitted"
    view.stands(parts[0], Standing(Phase.CHECKED))
    assert view.words(parts[:1]) == "validating"
    view.stands(parts[0], Standing(Phase.RUNNING, 1200, 2500))
    assert view.words(parts[:1]) == "in progress 1,200 of 2,500"
    view.stands(parts[1], Standing(Phase.RUNNING))
    view.queued(parts[3])
    said = "5 batches: in progress 1,200 of 5,000, 1 not sent yet, 1 submitted, 1 waiting for room in the queue"
    assert view.words(parts) == said
    assert view.words([]) == ""


def test_a_tracker_hears_it() -> None:
    tracker = ProgressTracker()
    view = View(tracker)
    view.show([part(1), part(2, State.PLANNED)])
    progress = tracker.snapshot()
    assert (progress.in_flight, progress.waiting) == (2500, "2 batches: 1 not sent yet, 1 submitted")
    view.show([])
    assert tracker.snapshot().waiting is None
