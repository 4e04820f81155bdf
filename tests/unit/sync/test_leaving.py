"""Leaving the interpreter, and Ctrl-C: in processes of their own, every warning an error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.patience import PATIENCE

from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from llm.testing import MockUpstream

CLOCK = SystemClock()

_BEFORE = """
import atexit, logging, os, sys, tempfile, threading, time
from llm.sync import LLMManager, close_llm_manager, get_llm_manager

FAST, SLOW = sys.argv[1:]
logging.getLogger("asyncio").setLevel(logging.ERROR)  # in debug mode it tells of a busy machine, too
def at(url, **more):
    section = {"base_url": url, "api_keys": ["k1"], "models": ["gpt-4o-mini"]}
    return {"providers": {"openai": section}, **more}
"""

_PROGRAMS = {
    "nothing_is_closed": """
client = get_llm_manager(at(FAST, cache={"backend": "disk", "path": tempfile.mkdtemp()})).get_client()
assert client.chat("Hello").content == "Hello"
slow = LLMManager.open(at(SLOW)).get_client()
left = slow.stream_complete("a text that is never read to its end" * 3)
next(left)
next(slow.stream_complete("a text that nobody holds" * 3))
""",
    "threads_are_in_calls_and_who_registered_to_close_may": """
atexit.register(close_llm_manager)
fast, others, slow = get_llm_manager(at(FAST)), LLMManager.open(at(FAST)), LLMManager.open(at(SLOW))

def wait_for_ever():
    slow.get_client().chat("never")

def call_and_call():
    while True:
        others.get_client().chat("again")

def outlast_the_main_thread():
    time.sleep(0.2)
    assert fast.get_client().chat("late").content == "late"

for work in (wait_for_ever, call_and_call, call_and_call):
    threading.Thread(target=work, daemon=True).start()
threading.Thread(target=outlast_the_main_thread).start()
time.sleep(0.3)
""",
    "a_forked_child_leaves_too": """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
client = get_llm_manager(at(FAST)).get_client()
assert client.chat("parent").content == "parent"
child = os.fork()
if child == 0:
    assert get_llm_manager(at(FAST)).get_client().chat("child").content == "child"
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert client.chat("parent").content == "parent"
""",
}

_AFTER = """
print(time.monotonic())
"""


@pytest.fixture
def start(
    upstream: Callable[..., MockUpstream], root: Path
) -> Iterator[Callable[[str], tuple[subprocess.Popen[str], MockUpstream]]]:
    """Starts a program with the addresses of a fast and of a slow server; returns it, and the slow one."""
    started: list[subprocess.Popen[str]] = []

    def run(program: str) -> tuple[subprocess.Popen[str], MockUpstream]:
        fast, slow = upstream(), upstream(service=60.0, chunk_size=1)
        command = [sys.executable, "-W", "error", "-X", "dev", "-c", _BEFORE + program, fast.base_url, slow.base_url]
        pipe = subprocess.PIPE
        running = subprocess.Popen(  # noqa: S603 - our own code
            command, cwd=root / "src", stdin=pipe, stdout=pipe, stderr=pipe, text=True
        )
        started.append(running)
        return running, slow

    yield run
    for running in started:
        with running:  # which waits, and closes its pipes
            running.kill()


@pytest.mark.parametrize("program", _PROGRAMS)
def test_leaving_without_closing_gives_no_warning_no_delay_and_exit_code_0(
    program: str, start: Callable[[str], tuple[subprocess.Popen[str], MockUpstream]]
) -> None:
    running, _ = start(_PROGRAMS[program] + _AFTER)
    said, complaints = running.communicate(timeout=5 * PATIENCE)
    ended = CLOCK.now()
    assert complaints == ""
    assert running.returncode == 0
    assert ended - float(said) < PATIENCE  # a slow answer would take 60


def test_ctrl_c_ends_the_call_closes_upstream_and_the_next_call_is_answered(
    start: Callable[[str], tuple[subprocess.Popen[str], MockUpstream]], soon: Callable[[Callable[[], bool]], bool]
) -> None:
    running, slow = start("""
fast, slow = LLMManager.open(at(FAST)).get_client(), LLMManager.open(at(SLOW)).get_client()
for wait in (lambda: slow.chat("never"), lambda: list(slow.stream_complete("a text of many letters"))):
    print(fast.chat("ready"), flush=True)
    try:
        wait()
    except KeyboardInterrupt:
        print(fast.chat("interrupted"), flush=True)
    input()
""")
    assert running.stdin is not None
    assert running.stdout is not None
    for _ in range(2):
        assert running.stdout.readline() == "ready\n"
        assert soon(lambda: slow.active == 1)
        os.kill(running.pid, signal.SIGINT)
        assert running.stdout.readline() == "interrupted\n"
        assert soon(lambda: slow.active == 0)
        running.stdin.write("\n")
        running.stdin.flush()
    _, complaints = running.communicate(timeout=5 * PATIENCE)
    assert complaints == ""
    assert running.returncode == 0
