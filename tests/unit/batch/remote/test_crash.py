"""A run that ends at any of its requests, before the vendor has it or after: no row goes over twice, none is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llm.testing import BatchScript

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.unit.batch.remote.conftest import Bench

    from llm.core.protocols import Reply, Transport


class KilledError(BaseException):
    """As if the process ended: nothing catches it."""


class Killing:
    """A transport that ends the run at one request: before it goes out, or when its answer is there."""

    def __init__(self, inner: Transport, at: int, *, after: bool) -> None:
        self.inner = inner
        self.at = at
        self.after = after
        self.sent = 0

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        self.sent += 1
        if self.sent == self.at and not self.after:
            raise KilledError
        reply = await self.inner.request(method, url, headers=headers, body=body)
        if self.sent == self.at:
            reply.close()
            raise KilledError
        return reply

    async def close(self) -> None:
        await self.inner.close()


def _expires_once(name: str, times: int) -> Any:  # noqa: ANN401 - an outcome
    return "expired" if times == 1 and name.endswith("3") else "answered"


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_at_any_request_no_row_is_submitted_twice_and_none_is_lost(bench: Bench, *, after: bool) -> None:
    bench.script = BatchScript(validating=0.002, running=0.002)
    async with bench.serving():
        ended, at = False, 0
        while not ended:
            at += 1
            bench.up.batches.clear()
            for name in ("out.jsonl", "out.errors.jsonl"):
                (bench.folder / name).unlink(missing_ok=True)
            ended = await _ends(bench, at, after=after)
            if not ended:
                await bench.run()
            assert bench.texts() == {f"r {number}": f"text of r {number}" for number in range(6)}, at
            assert set(bench.submitted().values()) == {1}, at
            assert bench.failures() == {}
            assert not bench.notes.exists()
        assert at >= 5


async def _ends(bench: Bench, at: int, *, after: bool) -> bool:
    try:
        await bench.run(transport=Killing(bench.up.transport(), at, after=after))
    except KilledError:
        return False
    return True


async def test_killed_at_every_request_in_turn_it_comes_to_its_end(bench: Bench) -> None:
    bench.script = BatchScript(outcome=_expires_once)
    async with bench.serving():
        for _ in range(100):
            try:
                await bench.run(transport=Killing(bench.up.transport(), 4, after=True))
            except KilledError:
                continue
            break
        submitted = bench.submitted()
    assert bench.texts() == {f"r {number}": f"text of r {number}" for number in range(6)}
    assert submitted == {f"r {number}": 2 if number == 3 else 1 for number in range(6)}


class Breaking:
    """An answer that ends the run as its eighth piece is read."""

    def __init__(self, inner: Reply) -> None:
        self.inner = inner
        self.status = inner.status
        self.headers = inner.headers
        self.read = inner.read
        self.waiting = inner.waiting
        self.close = inner.close
        self.pieces = 0

    async def chunk(self) -> bytes:
        self.pieces += 1
        if self.pieces == 8:
            raise KilledError
        return await self.inner.chunk()


class BreakingResults(Killing):
    """A transport that ends the run in the middle of the results."""

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        reply = await super().request(method, url, headers=headers, body=body)
        return Breaking(reply) if url.endswith(("/content", "/results")) else reply


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_killed_amid_the_results_no_row_is_there_twice(bench: Bench) -> None:
    bench.write([f"r {number} {'x' * 300}" for number in range(1000)])
    async with bench.serving():
        with pytest.raises(KilledError):
            await bench.run(transport=BreakingResults(bench.up.transport(), -1, after=True))
        half = len(bench.texts())
        summary = await bench.run()
        assert set(bench.submitted().values()) == {1}
    assert 0 < half < 1000
    assert (summary.rows, summary.skipped, summary.answered) == (1000, half, 1000 - half)
    assert len(bench.texts()) == 1000
