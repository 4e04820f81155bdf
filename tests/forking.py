"""The real program, forked from a parent that has its modules: what a test says of a command, not of its start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Ended:
    """A program that has ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # noqa: ANN401 - JSON
        """What it printed."""
        return json.loads(self.out)


_FORKING = """
import asyncio, encodings.idna, encodings.utf_8_sig, functools, gc, json, os, sqlite3, sys, traceback
import typer.main, typer._adapters, typer._click.decorators
import llm.__main__, llm.cache.disk, llm.cache.levels, llm.cli.editing, llm.cli.foretelling, llm.cli.main
import llm.cli.remote, llm.cli.running, llm.gateway.starting, llm.providers.local.fetch

async def warm():
    at = {"base_url": "http://127.0.0.1:9/v1", "api_keys": ["k"]}
    providers = {"openai": at | {"models": ["gpt-4o-mini"]}, "anthropic": at | {"models": ["claude-haiku-4-5"]}}
    async with llm.LLMManager.open({"providers": providers}) as manager:
        await manager.get_client().count_tokens("Hi")
        await manager.health_check()

asyncio.run(warm())  # what is loaded late is loaded once; no thread is left that a child would lack
typer.main.get_command = functools.cache(typer.main.get_command)  # takes longer than most commands
typer.main.get_command(llm.cli.main.app)
gc.collect()
gc.freeze()
for line in open(0, "rb", buffering=0, closefd=False):
    asked = json.loads(line)
    child = os.fork()
    if child:
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    for number, name in enumerate(asked["streams"]):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
        stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False, buffering=1)
        setattr(sys, ("stdin", "stdout", "stderr")[number], stream)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    sys.argv = ["manifold", *asked["words"]]
    status = 0
    try:
        llm.__main__.main()
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status or 0)
"""


class Forking:
    """The real program, each time in a process of its own that has its modules already: a hundredth of a second."""

    def __init__(self, root: Path) -> None:
        """Load the modules once."""
        kept = {name: value for name, value in os.environ.items() if name.startswith("PATH")}
        self.environ = kept | {"PYTHONPATH": str(root / "src"), "PYTHONUTF8": "1", "COLUMNS": "200"}
        command = [sys.executable, "-c", _FORKING]
        self._parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environ)  # noqa: S603 - our own program

    def __call__(
        self,
        folder: Path,
        *words: str,
        stdin: str = "",
        during: Callable[[int], object] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run it to its end; `during` is called with the process's number while it runs."""
        streams = [str(folder / f".{name}") for name in ("stdin", "stdout", "stderr")]
        for name, text in zip(streams, (stdin, "", ""), strict=True):
            Path(name).write_text(text, encoding="utf-8")
        environ = self.environ | {"HOME": str(folder)} | dict(variables or {})
        asked = {"words": words, "folder": str(folder), "environ": environ, "streams": streams}
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(json.dumps(asked).encode() + b"\n")
        self._parent.stdin.flush()
        child = int(self._parent.stdout.readline())
        if during is not None:
            try:
                during(child)
            except BaseException:
                os.kill(child, signal.SIGKILL)
                self._parent.stdout.readline()
                raise
        status = int(self._parent.stdout.readline())
        out, err = (Path(name).read_text(encoding="utf-8") for name in streams[1:])
        return Ended(status, out, err)

    def close(self) -> None:
        """End it."""
        self._parent.communicate()
