"""Arguments to a command, and how it ended to an exit status."""

from __future__ import annotations

import sys
from typing import Annotated, Final, Protocol, cast

import typer

from llm.core.exceptions import LLMException

from .batch import EPILOG as BATCH_EPILOG
from .batch import batch
from .cache import app as cache_app
from .chat import chat
from .config import app as config_app
from .errors import ExitStatus, exit_status, told
from .keys import app as keys_app
from .models import app as models_app
from .sections import Sections
from .serve import EPILOG as SERVE_EPILOG
from .serve import serve
from .shell import ConfigOption, JsonOption, QuietOption, Shell, give_up, say
from .stats import stats
from .status import status

_UsageError: Final[type[Exception]] = typer.BadParameter.__bases__[0]  # click's, or of typer's own copy of it


class _Refused(Protocol):
    """What a `_UsageError` has."""

    ctx: typer.Context | None

    def format_message(self) -> str: ...


_HELP = """
Call language models through many keys: pooled, limited, cached, observed.

The configuration is the first that exists of --config, $LLM_CONFIG, config/llm.yaml and llm.yaml. Without providers
in it, the keys in OPENAI_API_KEY, ANTHROPIC_API_KEY and OPENROUTER_API_KEY name them (several: with commas between),
and with no key at all a small model answers on this machine. A .env file in the current folder is read, too.
"""
# \b keeps the lines as they stand.
_EPILOG = """
\b
Examples:
  manifold chat "Why is the sky blue?"
  git diff | manifold chat "Write a commit message:" -m openai/gpt-4o-mini
  manifold batch questions.jsonl -o answers.jsonl
  manifold stats --since 7d --by day
  manifold cache invalidate --model gpt-4o-mini --older-than 1h

Results go to stdout, progress and remarks to stderr. Exit status: 0 done, 1 some rows of a batch
have no answer, output could not be written or what was named is not there, 2 wrong usage or
configuration, 3 a provider or the cache's store did not serve, 130 Ctrl-C, 143 SIGTERM.
"""

app: typer.Typer = typer.Typer(
    name="manifold",
    cls=Sections,
    help=_HELP,
    epilog=_EPILOG,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command(short_help="Ask once, or hold a conversation.")(chat)
app.command(short_help="Answer a file of requests.", epilog=BATCH_EPILOG)(batch)
app.command(short_help="Serve HTTP to any client.", epilog=SERVE_EPILOG)(serve)
app.command(short_help="Ask every provider how it is.")(status)
app.command(short_help="Tell what calls came to, over all runs.")(stats)
app.add_typer(models_app, name="models")
app.add_typer(config_app, name="config")
app.add_typer(cache_app, name="cache")
app.add_typer(keys_app, name="keys")


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - a callback of typer
    if wanted:
        from llm.utils.distribution import __version__

        typer.echo(f"manifold {__version__}")
        raise typer.Exit


@app.callback()
def everywhere(
    context: typer.Context,
    *,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that may also stand before a command."""
    del version  # its callback did it all
    Shell.of(context, config, as_json, quiet)


def run() -> int:
    """Run the program with the process's arguments and return its exit status."""
    try:
        status: object = app(prog_name="manifold", standalone_mode=False)
    except _UsageError as error:
        return _told(error)
    except LLMException as error:
        say(f"error: {told(error)}")
        return exit_status(error)
    except OSError as error:  # a full disk, say; of a pipe that was closed typer has taken care
        say(f"error: reading or writing failed: {error.strerror or error}")
        give_up(sys.stdout)
        return ExitStatus.FAILED
    return status if isinstance(status, int) else ExitStatus.DONE


def _told(error: Exception) -> int:
    """Say in one line what is wrong with the arguments; where there were none, show the help."""
    refused = cast("_Refused", error)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(refused.format_message(), file=sys.stderr)  # noqa: T201 - the program's voice
    else:
        command = "manifold" if refused.ctx is None else refused.ctx.command_path
        said = " ".join(refused.format_message().split()).rstrip(".")
        say(f"error: {said[:1].lower()}{said[1:]}; `{command} -h` shows what there is")
    return ExitStatus.USAGE
