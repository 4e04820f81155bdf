"""A queue over keys that are never called, on a clock that the test moves."""

# ruff: noqa: ANN401 - helpers hand on what a test gives them
from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pytest

from llm.core.call import Call, Charge, Ticket
from llm.core.keys import Key, Slot
from llm.limits.admission import AdmissionQueue, Levels
from llm.limits.grant import Grant
from llm.limits.memory import Account, AccountBook
from llm.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
    from types import FrameType

    from llm.limits.circuits import Circuits


class CountingClock(FakeClock):
    """Counts how often somebody asks to be called back."""

    def __init__(self) -> None:
        super().__init__()
        self.started = 0
        self.fired = 0

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Any:
        self.started += 1

        def counted() -> object:
            self.fired += 1
            return callback()

        return super().call_later(seconds, counted)


@dataclass
class Bench:
    """Queues that share one book of accounts, and the calls that stand in them."""

    clock: CountingClock = field(default_factory=CountingClock)
    book: AccountBook = field(default_factory=AccountBook)
    order: list[str] = field(default_factory=list[str])
    grants: dict[str, Grant] = field(default_factory=dict[str, Grant])
    calls: dict[str, Call] = field(default_factory=dict[str, Call])

    def account(self, *, level: Any = "key", bucket: bool = True, **limits: float | str) -> Account:
        account = Account()
        account.state(self.clock.now(), limits, level=level, bucket=bucket)
        return account

    def queue(
        self,
        *keys: Account | tuple[str, Account],
        shared: Sequence[Account] = (),
        users: Mapping[str, Account] | None = None,
        max_waiting: int = 1000,
        circuits: Circuits | None = None,
    ) -> AdmissionQueue:
        """Make slots `key-0`, `key-1`, … of model `m`, or of the model that stands beside the account."""
        slots: list[tuple[Slot, Account]] = []
        for i, entry in enumerate(keys):
            model, account = entry if isinstance(entry, tuple) else ("m", entry)
            key = Key(f"key-{i}", FakeProvider, clock=self.clock, idle_timeout=300, max_lifetime=3600)
            slots.append((Slot(i, model, key), account))
        levels = Levels(tuple(shared), users.get if users is not None else None)
        return AdmissionQueue(
            "fake",
            slots,
            clock=self.clock,
            book=self.book,
            levels=levels,
            max_waiting=max_waiting,
            circuits=circuits,
        )

    async def pay(  # noqa: PLR0913 - what a call may ask
        self,
        queue: AdmissionQueue,
        name: str,
        *,
        tokens: int = 0,
        model: str = "m",
        user: str | None = None,
        priority: int = 0,
        deadline: float | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the queue's own
        cost: float = 0.0,
        user_wait: float | None = None,
    ) -> str:
        """Pay as a new call of that name; returns the key that was granted, and notes the order."""
        now = self.clock.now()
        call = self.calls[name] = Call(now, deadline=deadline, user=user, priority=priority)
        call.user_wait = user_wait
        charge = Charge(tokens, 0, tokens, cost)
        call.ticketed(now, Ticket(charge, model, user, priority, deadline))
        return await self.pay_again(queue, name, timeout=timeout)

    async def pay_again(self, queue: AdmissionQueue, name: str, *, timeout: float | None = None) -> str:  # noqa: ASYNC109
        grant = await queue.pay(self.calls[name], timeout=timeout)
        self.grants[name] = grant
        self.order.append(name)
        return grant.key

    def end(self, name: str, used: int | None = None, *, error: BaseException | None = None) -> None:
        """End the attempt of a call that was sent."""
        call = self.calls[name]
        now = self.clock.now()
        call.sent(now)
        self.grants[name].told(error)
        paid = self.grants[name].charge
        call.attempted(now, None if used is None else paid._replace(input_tokens=used, total_tokens=used))

    async def settle(self) -> None:
        await self.clock.advance(0.0)


class Instructions:
    """Counts the instructions that run in this package's queue while it is entered."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        self._before = sys.gettrace()
        sys.settrace(self._frame)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _frame(self, frame: FrameType, _event: str, _: object) -> Any:
        if "/llm/limits/" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._instruction

    def _instruction(self, _frame: FrameType, event: str, _: object) -> Any:
        self.count += event == "opcode"
        return self._instruction


@pytest.fixture
def counting() -> type[Instructions]:
    return Instructions


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
async def start() -> AsyncIterator[Callable[[Coroutine[Any, Any, str]], asyncio.Task[str]]]:
    """Tasks that are cancelled at the test's end."""
    tasks: list[asyncio.Task[str]] = []

    def begin(work: Coroutine[Any, Any, str]) -> asyncio.Task[str]:
        tasks.append(asyncio.get_running_loop().create_task(work))
        return tasks[-1]

    yield begin
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
