"""`manifold serve`: the gateway, which the program's entry lends to this room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Protocol

import typer

from .shell import ConfigOption, JsonOption, QuietOption, Shell

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# \b keeps the lines as they stand.
EPILOG: Final = """
\b
Examples:
  manifold serve
  manifold serve --port 9000 --workers 4
  manifold keys create alice        # and put what it prints under gateway.api_keys
  manifold serve --host 0.0.0.0
  PORT=80 LOG_LEVEL=warning manifold serve --config /etc/llm.yaml

\b
  curl http://127.0.0.1:8000/v1/chat/completions \\
    -d '{"messages": [{"role": "user", "content": "Hello"}]}'
"""


class Serve(Protocol):
    """Serves until a signal comes."""

    def __call__(
        self, config: Path | None, host: str | None, port: int | None, workers: int, *, say: Callable[[str], object]
    ) -> int:
        """Return the exit status."""
        ...


_lent: list[Serve] = []


def lend(serve: Serve) -> Serve | None:
    """Have `manifold serve` call that; returns what it called before."""
    before = _lent[0] if _lent else None
    _lent[:] = [serve]
    return before


def serve(  # noqa: PLR0913 - the command's options
    context: typer.Context,
    *,
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on; another than loopback needs keys.")
    ] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="Port; 0: any free one.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, max=256, help="Processes that share the port.")] = 1,
    first_key: Annotated[
        str | None,
        typer.Option(
            "--first-key", metavar="NAME", help="Where there are no keys, make one, print it, and keep its hash."
        ),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    r"""Serve every provider and the model on this machine over HTTP, to OpenAI's clients, Anthropic's and any other.

    With nothing configured it serves the small model on this machine, to this machine alone, at http://127.0.0.1:8000.

    \b
    Options go before the environment, and that before the file: HOST, PORT, MODEL_NAME (of the
    model on this machine, else of requests that name none), DEVICE, MAX_LENGTH and TEMPERATURE
    (of /v1/generate), LOG_LEVEL, METRICS_ENABLED, and LLM__SECTION__FIELD for any field.

    Ctrl-C ends it at once. SIGTERM lets running calls finish for gateway.drain seconds, and refuses new ones; SIGHUP
    reads the configuration again. Several workers share limits through `limits.store: redis`; without it each takes
    its part of them. The log goes to stderr, a JSON object a line.

    --first-key is for containers, which listen on more than loopback from their first start on: unless the
    configuration has a key, it does as `manifold keys create NAME --write`. Starts after that print none.
    """
    shell = Shell.of(context, config, as_json, quiet)
    if first_key is not None:
        from .keys import create_first

        create_first(shell, first_key)
    raise typer.Exit(_lent[0](shell.config, host, port, workers, say=shell.remark))
