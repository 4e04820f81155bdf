"""`manifold chat`: one call, or a conversation."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from llm.core.manager import LLMManager

from .counting import Counting
from .errors import ExitStatus
from .prompt import Prompt
from .remembered import Memory
from .shell import ConfigOption, JsonOption, ModelOption, ProviderOption, QuietOption, Shell
from .talk import Conversation, Talk


def chat(  # noqa: PLR0913 - the command's options
    context: typer.Context,
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="What to say. Text on stdin follows it.")] = None,
    *,
    provider: ProviderOption = None,
    model: ModelOption = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="Instructions before the conversation.")] = None,
    go_on: Annotated[bool, typer.Option("--continue", "-c", help="Go on with the last conversation.")] = False,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Keep the conversation and the lines typed, or nothing.")
    ] = True,
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", help="Print the answer as it comes, or when it is whole.")
    ] = True,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Ask once, or hold a conversation.

    With TEXT, or text on stdin, it is one call. Without, on a terminal, it is a conversation: /help tells what can be
    typed there, and Ctrl-D ends it. With --json an answer is one document: content, model, provider, usage in tokens,
    cost in US dollars, latency in seconds.

    On a terminal the last conversation is kept for --continue, and the lines typed for the arrow keys: what you typed
    and got, in files that only you may read, in $LLM_STATE_DIR, else in llm-manifold in the user's state folder. With
    --no-history nothing is.
    """
    shell = Shell.of(context, config, as_json, quiet)
    memory = Memory(shell, keeps=history and (go_on or sys.stdout.isatty()))
    said = memory.last() if go_on else Conversation()
    said.provider, said.model = (provider, model) if provider or model else (said.provider, said.model)
    said.system = said.system if system is None else system
    talk = Talk(shell, said, stream=stream)
    piped = "" if sys.stdin.isatty() else sys.stdin.read().strip()
    prompt = "\n\n".join(part for part in (text, piped) if part)
    if prompt:
        asyncio.run(_once(talk, memory, prompt))
    elif text is None and sys.stdin.isatty():
        Prompt(talk, memory).converse()
    else:
        shell.error("there is nothing to say; pass TEXT, or text on stdin")
        raise typer.Exit(ExitStatus.USAGE)


async def _once(talk: Talk, memory: Memory, text: str) -> None:
    async with LLMManager.open(talk.shell.config) as manager, Counting(talk.shell, "chat", manager.get_status):
        await talk.answer(manager, text)
    memory.keep(talk.conversation)
