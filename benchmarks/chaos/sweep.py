"""Planted secrets, looked for wherever a program can show something of itself."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import logging
import pickle
import re
import traceback
from collections import Counter
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

from llm import LLMException, LLMManager
from llm.testing import Fault, MockUpstream
from llm.testing.faults import DAMAGES, REFUSALS
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

_CLOCK: Final = SystemClock()
_AT_ONCE: Final = 64
_EVERY: Final = 250  # calls between two looks at all objects
_RELOAD: Final = 40
_MOST_FOUND: Final = 50  # more tells nothing more
_CONTENT: Final = "privatequestion"
_OWN: Final = __file__

# Each has a part by which it is found, also where only a piece of it is shown.
_PLANTED: Final[Mapping[str, tuple[str, str]]] = {
    "a vendor's form": ("sk-proj-Planted0123456789abcdefABCDEF", "Planted0123456789"),
    "another vendor's": ("sk-ant-api03-Sown9876543210abcdef-AA", "Sown9876543210"),
    "a gateway's": ("mnf_live_Buried55555abcdef", "Buried55555"),
    "a short one": ("Zq7Xv", "Zq7Xv"),
    "signs of a URL": ("Hidden/77777+abc=def", "Hidden/77777"),
    "of the environment": ("sk-or-v1-Veiled2468013579", "Veiled2468013579"),
    "of a file": ("filekey.Covered1234512345", "Covered1234512345"),
    "a header": ("Headgear31415926535", "Headgear31415926535"),
    "a header of the SDK": ("Headband27182818284", "Headband27182818284"),
    "a password in a URL": ("Urlish16180339887", "Urlish16180339887"),
}


@dataclass
class Sweep:
    """What was looked at, and what was found.

    Attributes:
        calls: How many were made.
        failed: How many of them failed.
        searched: Texts that were looked at, by what they are of.
        found: Where a secret, or content that nobody asked to show, was found; the secret is named, not shown.
    """

    calls: int = 0
    failed: int = 0
    searched: Counter[str] = field(default_factory=Counter[str])
    found: list[str] = field(default_factory=list[str])
    _told: set[str] = field(default_factory=set[str], repr=False)

    def look(self, where: str, text: str, *, content: bool = False) -> None:
        """Look for secrets in a text, and for `content` where it should not be."""
        self.searched[where] += 1
        if len(self.found) >= _MOST_FOUND or _ANY.search(text) is None:
            return
        found = [name for name, marks in _MARKS.items() if any(mark in text for mark in marks)]
        if content and _CONTENT in text:
            found.append("content")
        for name in found:
            line = f"{name} in {where}: {_around(text, _MARKS.get(name, (_CONTENT,)))}"
            if _UNSTEADY.sub("#", line) not in self._told:
                self._told.add(_UNSTEADY.sub("#", line))
                self.found.append(line)


_UNSTEADY: Final = re.compile(r"0x[0-9a-f]+|\d+|(True|False)")
_MARKS: Final = {name: (mark, quote(mark, safe="")) for name, (_, mark) in _PLANTED.items()}


_ANY: Final = re.compile("|".join(map(re.escape, (_CONTENT, *(mark for marks in _MARKS.values() for mark in marks)))))


def _around(text: str, marks: Iterable[str]) -> str:
    # Where it was found, with the secret itself masked: a report is a text, too.
    place = min(text.find(mark) for mark in marks if mark in text)
    shown = text[max(0, place - 160) : place + 60]
    for mark in marks:
        shown = shown.replace(mark, "<secret>")
    return " ".join(shown.split())


class _Recorder(logging.Handler):
    """Looks at every record of every logger."""

    def __init__(self, sweep: Sweep) -> None:
        super().__init__(logging.DEBUG)
        self._sweep = sweep

    def emit(self, record: logging.LogRecord) -> None:
        # Of a library everything is looked at for secrets; content is held back in what we write.
        ours = record.name == "llm" or record.name.startswith("llm.")
        text = "\n".join([record.getMessage(), repr(record.args), repr(record.__dict__), record.stack_info or ""])
        self._sweep.look(f"a record of {record.name.partition('.')[0]}", text, content=ours)
        if record.exc_info is not None and record.exc_info[1] is not None:
            _look_at_traceback(self._sweep, record.exc_info[1])


@contextmanager
def _everything_logged(sweep: Sweep) -> Generator[None]:
    recorder, root = _Recorder(sweep), logging.getLogger()
    names = [None, *logging.root.manager.loggerDict]
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    root.addHandler(recorder)
    try:
        yield
    finally:
        root.removeHandler(recorder)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _look_at_traceback(sweep: Sweep, error: BaseException) -> None:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        here = waiting.pop()
        if here is None or id(here) in seen:
            continue
        seen.add(id(here))
        waiting += [here.__cause__, here.__context__]
        _look_at_frames(sweep, here, here.__traceback__)
        if isinstance(here, BaseExceptionGroup):
            waiting += cast("BaseExceptionGroup[BaseException]", here).exceptions


def _look_at_frames(sweep: Sweep, error: BaseException, trace: TracebackType | None) -> None:
    # What `TracebackException(capture_locals=True)` shows, without the lines of source, which take longest.
    frames = traceback.StackSummary.extract(traceback.walk_tb(trace), capture_locals=True, lookup_lines=False)
    shown = [str(error), repr(error), *getattr(error, "__notes__", ())]
    for frame in frames:
        if frame.filename != _OWN:
            shown += [f"{frame.name}: {name} = {value}" for name, value in (frame.locals or {}).items()]
    sweep.look("a traceback with locals", "\n".join(shown))


def look_at_error(sweep: Sweep, error: LLMException) -> None:
    """Look at all that an exception, its causes and contexts, and their frames show."""
    told = {name: value for name, value in vars(error).items() if name != "partial"}
    sweep.look("an exception", "\n".join([str(error), repr(error), repr(error.args), repr(told)]), content=True)
    sweep.look("an exception's pickle", pickle.dumps(error).decode("latin-1"))
    sweep.look("an exception's copy", repr(copy.copy(error)))
    _look_at_traceback(sweep, error)


def _look_at_objects(sweep: Sweep) -> None:
    """Look at what every object of the package, and of the vendors' clients, shows of itself."""
    for each in gc.get_objects():
        module = str(type(each).__module__)  # a class may have anything there
        room = module.partition(".")[0]
        if room in _SHOWN and not module.startswith("llm.testing"):
            sweep.look(f"an object of {room}", _shown(each))


_SHOWN: Final = frozenset({"llm"})


def _shown(each: object) -> str:
    try:
        return f"{each!r}\n{each!s}"
    except Exception as error:  # noqa: BLE001 - half made, or half gone
        return repr(error)


def _look_at_manager(sweep: Sweep, manager: LLMManager) -> None:
    sweep.look("the status", json.dumps(manager.get_status()), content=True)
    sweep.look("the configuration", f"{manager.config!r} {manager.config.masked()}")
    log = [call["log"] for call in manager.get_status()["calls"]]
    sweep.look("a decision log", repr(log), content=True)
    sweep.look("the manager", f"{manager!r} {manager.get_client()!r} {manager.explain('Hi')!r}")


def locked(address: str) -> str:
    """Return an address with a password in it."""
    return address.replace("://", f"://gate:{_PLANTED['a password in a URL'][0]}@")


def plant(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Write the file with a secret; return the providers' sections and what the environment must hold."""
    key = {name: value for name, (value, _) in _PLANTED.items()}
    (folder / "key").write_text(key["of a file"] + "\n")
    sections: dict[str, Any] = {
        "alpha": {
            "type": "openai",
            "api_keys": [key["a vendor's form"], key["a short one"]],
            "headers": {"X-Gateway-Token": key["a header"]},
        },
        "beta": {"type": "anthropic", "api_keys": [key["another vendor's"], key["signs of a URL"]]},
        "gamma": {
            "type": "openai",
            "transport": "sdk",
            "api_keys": [key["a gateway's"]],
            "headers": {"CF-Access-Client-Secret": key["a header of the SDK"]},
        },
        "delta": {"type": "openrouter", "api_keys": ["${CHAOS_PLANTED}"]},
        "epsilon": {"type": "anthropic", "transport": "sdk", "api_keys": [f"${{file:{folder / 'key'}}}"]},
    }
    return sections, {"CHAOS_PLANTED": key["of the environment"]}


_MODELS: Final = {
    "alpha": "gpt-4o-mini",
    "beta": "claude-3-5-haiku-20241022",
    "delta": "meta-llama/llama-3.1-8b-instruct",
}
_MODELS_OF: Final = {**_MODELS, "gamma": _MODELS["alpha"], "epsilon": _MODELS["beta"]}


def _faults(section: Mapping[str, Any]) -> list[Fault]:
    headers = " ".join(section.get("headers", {}).values())
    words = f"no: {{key}}; the key={{key}}, Bearer {{key}}, ?api_key={{key}} {headers}"
    kinds = [*REFUSALS, *DAMAGES]
    faulty, met = list[Fault](), 0.0
    for kind in kinds:
        part = _SHARE / len(kinds) / (5 if kind in _OUT else 1)
        rate = part / (1.0 - met)
        met += part
        retry_after = 0.01 if kind == "rate_limit" else None
        faulty.append(Fault(kind, rate=rate, message=words, retry_after=retry_after, seconds=0.02))
    return faulty


_SHARE: Final = 0.6
_OUT: Final = frozenset({"auth", "quota", "forbidden"})  # rarer, for where no key is left no call meets anything else


async def run(
    calls: int,
    sections: Mapping[str, Any],
    *,
    seed: int = 1,
    advance: Callable[[int], object] = lambda _: None,
) -> Sweep:
    """Make so many calls with every logger at DEBUG, and look at all that is to be seen of them.

    Args:
        calls: How many.
        sections: The providers, as `plant` made them.
        seed: For the faults.
        advance: Is told of calls as they end.
    """
    sweep = Sweep(calls)
    async with AsyncExitStack() as stack:
        providers: dict[str, Any] = {}
        for place, (name, section) in enumerate(sections.items()):
            dialect: Any = section["type"]
            server = MockUpstream(dialect, faults=_faults(section), service=0.002, seed=seed + place)
            await stack.enter_async_context(server)
            providers[name] = {**section, "base_url": server.base_url, "models": [_MODELS_OF[name]]}
        stack.enter_context(_everything_logged(sweep))
        manager = await stack.enter_async_context(LLMManager.open(_configuration(providers)))
        await _all(manager, providers, sweep, Random(seed), advance)  # noqa: S311 - dice of a benchmark
    return sweep


def _configuration(providers: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "global": {"timeouts": {"first_token": 0.3, "idle": 0.3, "attempt": 0.3}},
        "retry": {"max_attempts": 2, "initial_delay": 0.005, "max_delay": 0.02},
        "cache": {},
        "providers": dict(providers),
    }


async def _all(
    manager: LLMManager,
    providers: Mapping[str, Any],
    sweep: Sweep,
    random: Random,
    advance: Callable[[int], object],
) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> None:
        async with gate:
            provider, stream = random.choice(list(providers)), random.random() < 0.5
            await _ask(manager, provider, number, sweep, stream=stream)
        advance(1)
        if number % _RELOAD == 0:  # keys that were refused, or are out of credit, come back
            await manager.reload(_configuration(providers))

    begins = range(0, sweep.calls, _EVERY)
    looks = {begins[0], begins[len(begins) // 2], begins[-1]}  # a look at everything takes as long as many calls
    for begun in begins:
        async with asyncio.TaskGroup() as group:
            for number in range(begun, min(begun + _EVERY, sweep.calls)):
                group.create_task(one(number))
            await _CLOCK.sleep(0.05)
            if begun in looks:  # while calls run
                _look_at_objects(sweep)
            _look_at_manager(sweep, manager)
        _look_at_kept(sweep, manager)
        sweep.look("the health", repr(await manager.health_check()))


def _look_at_kept(sweep: Sweep, manager: LLMManager) -> None:
    parts: Any = manager._routes.parts  # pyright: ignore[reportPrivateUsage] # nobody else can see them
    for kept in parts.answers.backend._kept.values():
        sweep.look("a kept answer", kept.value.decode("latin-1"))


async def _ask(manager: LLMManager, provider: str, number: int, sweep: Sweep, *, stream: bool) -> None:
    client = manager.get_client(provider)
    question = f"{_CONTENT} number {number}, which nobody but the provider should see"
    try:
        if stream:
            async with client.stream_complete(question) as chunks:
                response = await chunks.response()
        else:
            response = await client.complete(question)
    except LLMException as error:
        sweep.failed += 1
        look_at_error(sweep, error)
    else:
        sweep.look("a response", f"{response!r} {response} {response.raw!r}")
