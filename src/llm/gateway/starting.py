"""From arguments and environment to a gateway that serves: everything that can be refused is refused first."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Final

from llm.core.config import load_config

from .container import read_container
from .life import live
from .listening import bind, check_open, url_of
from .logs import JSONLines
from .siblings import Mailboxes, Siblings
from .workers import Supervisor, say_ready

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from llm.core.config import LLMConfig

_YOUNG: Final = 10_000
"""New objects after which the collector looks at them: a request makes hundreds, and nearly all go by themselves."""


def start(  # noqa: PLR0913, PLR0917 - the command's options, and two doors to the process
    config: Path | None,
    host: str | None,
    port: int | None,
    workers: int,
    say: Callable[[str], object],
    end: Callable[[int], object] = os._exit,
) -> int:
    """Serve until a signal comes, and return the exit status; `end` ends the process at once.

    Raises:
        LLMConfigurationError: Something is wrong; nothing was opened.
        LLMException: The manager could not be opened.
    """
    for number in (signal.SIGHUP, signal.SIGUSR1):  # who has not begun yet reads the newest anyhow, and has no clients
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _nothing)
    for name, value in (("HOST", host), ("PORT", port)):
        if value is not None:
            os.environ[f"LLM__GATEWAY__{name}"] = str(value)
    found, container = read_container(os.environ, config)
    if workers > 1:
        found = _divided(found, config, workers, say)
    check_open(found.gateway)
    sockets = bind(found.gateway.host, found.gateway.port)
    logger, root, lines = logging.getLogger("llm"), logging.getLogger(), JSONLines()
    logger.handlers.clear()
    logger.setLevel(container.level)
    root.addHandler(lines)  # what libraries have to say becomes JSON, too
    run = partial(live, config, sockets, container, end=end)
    often = gc.get_threshold()
    said = _said(found, sockets)
    try:
        if workers == 1:
            return asyncio.run(run(ready=lambda: _begin(partial(say, said))))
        with closing(Mailboxes(workers)) as boxes:
            return Supervisor(
                workers,
                lambda line, place: asyncio.run(
                    run(ready=lambda: _begin(partial(say_ready, line)), parent=line, siblings=Siblings(boxes, place))
                ),
                ready=lambda: say(said),
                leave=partial(_close, sockets),
            ).run()
    finally:
        gc.unfreeze()
        gc.set_threshold(*often)
        root.removeHandler(lines)
        lines.flush()


def _begin(tell: Callable[[], object]) -> None:
    """Serve from now on: the collector passes over what is loaded, which stays, and looks at the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)
    tell()


def _divided(found: LLMConfig, config: Path | None, workers: int, say: Callable[[str], object]) -> LLMConfig:
    """Have each worker take its part of the limits, where no store holds them to the whole."""
    if found.limits.store == "redis":
        return found
    if found.limits.processes < workers:
        os.environ["LLM__LIMITS__PROCESSES"] = str(workers)
        found = load_config(config)
    found.own_part()
    parts = found.limits.processes
    say(f"each worker takes 1/{parts} of every limit; with `limits.store: redis` they share all of it")
    return found


def _said(config: LLMConfig, sockets: list[socket.socket]) -> str:
    """Return the line that tells where it listens, what it serves, and who may call."""
    url = url_of(sockets[0])
    names = list(config.gateway.api_keys)
    who = f"{len(names)} gateway key{'s' * (len(names) > 1)}" if names else "no keys: this machine alone may call"
    pages = f"dashboard at {url}/dashboard, docs" if config.features.dashboard else "docs"
    return f"listening on {url}; providers: {', '.join(config.providers)}; {who}; {pages} at {url}/docs"


def _close(sockets: list[socket.socket]) -> None:
    for bound in sockets:
        bound.close()


def _nothing(*_: object) -> None:
    """Have no effect."""
