"""`manifold chat`: one call, or a conversation."""

from __future__ import annotations

import asyncio
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm.core.exceptions import LLMConfigurationError, LLMException
from llm.core.manager import LLMManager
from llm.core.messages import Message, MessageRole

from .errors import ExitStatus
from .shell import ConfigOption, JsonOption, QuietOption, Shell

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from llm.core.client import LLMClient
    from llm.core.types import LLMResponse


def chat(  # noqa: PLR0913 - the command's options
    context: typer.Context,
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="What to say. Text on stdin follows it.")] = None,
    *,
    provider: Annotated[
        str | None, typer.Option("--provider", "-p", help="Provider to ask; default: the configured one.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model, provider/model or alias; default: any of the provider.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="Instructions before the conversation.")] = None,
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", help="Print the answer as it comes, or when it is whole.")
    ] = True,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Ask once, or hold a conversation.

    With TEXT, or text on stdin, it is one call. Without, on a terminal, it is a conversation that Ctrl-D ends. With
    --json an answer is one document: content, model, provider, usage in tokens, cost in US dollars, latency in seconds.
    """
    shell = Shell.of(context, config, as_json, quiet)
    talk = _Talk(shell, provider, model, [Message(MessageRole.SYSTEM, system)] if system else [], stream=stream)
    piped = "" if sys.stdin.isatty() else sys.stdin.read().strip()
    prompt = "\n\n".join(part for part in (text, piped) if part)
    if prompt:
        asyncio.run(talk.once(prompt))
    elif text is None and sys.stdin.isatty():
        talk.converse()
    else:
        shell.error("there is nothing to say; pass TEXT, or text on stdin")
        raise typer.Exit(ExitStatus.USAGE)


@dataclass(slots=True)
class _Talk:
    """Turns so far, and how the next one is asked for and shown."""

    shell: Shell
    provider: str | None
    model: str | None
    turns: list[Message]
    stream: bool = field(kw_only=True)

    async def once(self, text: str) -> None:
        async with LLMManager.open(self.shell.config) as manager:
            await self.answer(self.client(manager), text)

    def converse(self) -> None:
        """Ask for a turn, answer it, and again; the loop rests while the user types, so that Ctrl-C is heard."""
        import_module("readline")  # gives input() its line editing and its history

        with asyncio.Runner() as runner:
            manager = runner.run(_opened(self.shell))
            try:
                client = self.client(manager)
                self.shell.remark("A conversation. Ctrl-D ends it.")
                while (text := _ask()) is not None:
                    if text:
                        self.turn(runner, client, text)
            finally:
                runner.run(manager.close(drain=0.0))

    def turn(self, runner: asyncio.Runner, client: LLMClient, text: str) -> None:
        """Answer one turn; a call that failed is told, and the conversation goes on without it."""
        try:
            runner.run(self.answer(client, text))
        except LLMConfigurationError:
            raise
        except LLMException as error:
            self.shell.error(str(error))

    def client(self, manager: LLMManager) -> LLMClient:
        return manager.get_client(self.provider, model=self.model)

    async def answer(self, client: LLMClient, text: str) -> None:
        turns = [*self.turns, Message(MessageRole.USER, text)]
        if self.stream and not self.shell.json:
            response = await self._printed(client, turns)
        else:
            with self._waiting():
                response = await client.complete(turns)
            self._put(response)
        self.turns = [*turns, response.message]

    async def _printed(self, client: LLMClient, turns: list[Message]) -> LLMResponse:
        stream = client.stream_complete(turns)
        with self._waiting():
            await stream.begin()
        began = False
        try:
            async with stream:
                async for chunk in stream:
                    began = began or bool(chunk.content)
                    self.shell.put(chunk.content, end="")
                return await stream.response()
        finally:
            if began:
                self.shell.put("")

    def _put(self, response: LLMResponse) -> None:
        if self.shell.json:
            self.shell.put_json(_as_json(response))
        else:
            self.shell.put(response.content)

    def _waiting(self) -> AbstractContextManager[object]:
        """Show on a terminal that something goes on; a model on this machine takes seconds to load."""
        if not self.shell.drawing:
            return nullcontext()
        from rich.console import Console

        return Console(stderr=True).status("waiting for the answer")


async def _opened(shell: Shell) -> LLMManager:
    return await LLMManager.open(shell.config)


def _ask() -> str | None:
    """Return what the user types; None at the end of it."""
    try:
        return input("> ").strip()
    except EOFError:
        print(file=sys.stderr)  # noqa: T201 - the line that Ctrl-D left open
        return None


def _as_json(response: LLMResponse) -> dict[str, Any]:
    usage = response.usage
    return {
        "id": response.id,
        "content": response.content,
        "model": response.model,
        "provider": response.provider,
        "usage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cached_input_tokens": usage.cached_input_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
            "total_tokens": usage.total_tokens,
        },
        "finish_reason": response.finish_reason,
        "cached": response.cached,
        "cost": response.cost,
        "latency": round(response.latency, 6),
        "attempts": response.attempts,
        "key": response.key,
    }
