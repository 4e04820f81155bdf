"""What llm-manifold does, from a first call to a look at the numbers. Run it from the checkout's root:

    python examples/llm_usage.py

With OPENAI_API_KEY, ANTHROPIC_API_KEY or OPENROUTER_API_KEY in the environment (several keys: with commas between), or
with providers in config/llm.yaml, it asks those. With neither, a small model on this machine answers; fetch it once
with `manifold models fetch smollm2-135m`.
"""

# ruff: noqa: T201 - a script that prints

from __future__ import annotations

import asyncio
import sys
from string import ascii_uppercase
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table

from llm import LLMClient, LLMException, LLMTimeoutError, Message, MessageRole, get_llm_manager

console = Console(highlight=False)


async def main() -> None:
    # The manager owns keys, limits, cache and connections: one per process. Leaving the block closes it.
    async with await get_llm_manager() as manager:
        # A client is a handle to call with: cheap, and safe to share. This one asks the default provider;
        # get_client("anthropic") would ask that one.
        client = manager.get_client()

        await one_question(client)
        await a_conversation(client)
        await a_stream(client)
        await many_at_once(client)
        await an_error(client)
        show(manager.get_status())


async def one_question(client: LLMClient) -> None:
    headline("One question")
    response = await client.chat("What is Python? Answer in one short sentence.", max_tokens=24)

    # A response prints as its text, and knows where it came from and what it took.
    print(response)
    cost = "unknown" if response.cost is None else f"${response.cost:.6f}"
    tokens = f"{response.usage.input_tokens} tokens in, {response.usage.output_tokens} out"
    print(f"-- {response.provider}/{response.model}: {tokens}, {response.latency:.2f} s, cost {cost}")


async def a_conversation(client: LLMClient) -> None:
    headline("A conversation, with options")
    messages = [
        Message(MessageRole.SYSTEM, "You are a friendly guide. Answer in one short sentence."),
        Message(MessageRole.USER, "My name is Ada. Which city should I visit?"),
    ]
    response = await client.complete(messages, temperature=0.7, max_tokens=24)
    print(response)

    # The answer is the next turn; append it and go on.
    messages += [response.message, Message(MessageRole.USER, "What is my name?")]
    print(await client.complete(messages, temperature=0, max_tokens=12))


async def a_stream(client: LLMClient) -> None:
    headline("A stream, printed as it comes")

    # Leaving the block, also in the middle, ends the answer at the provider at once.
    async with client.stream_complete("Tell me a very short story about a lighthouse.", max_tokens=32) as stream:
        async for chunk in stream:
            print(chunk, end="", flush=True)
        response = await stream.response()  # all of it, with its usage
    print(f"\n-- {response.usage.output_tokens} tokens in {response.latency:.2f} s, end: {response.finish_reason}")


async def many_at_once(client: LLMClient) -> None:
    headline("Twenty calls at once")
    questions = [f"Name an animal that begins with {letter}." for letter in ascii_uppercase[:20]]

    # Start them all: limits, retries and the turns that keys take are the manager's business.
    for again in (False, True):
        calls = asyncio.as_completed([client.chat(question, max_tokens=6) for question in questions])
        title = "the same again" if again else "asking"
        answers = [await call for call in track(calls, title, total=len(questions), console=console)]
        print(f"{len(answers)} answers, {sum(answer.cached for answer in answers)} of them from the cache")

    # The cache is there because config/llm.yaml has a `cache:` section; without one nothing is cached.


async def an_error(client: LLMClient) -> None:
    headline("An error, handled")

    # Every failure is an LLMException, and each kind says what happened and what to do. `timeout` is in seconds and
    # bounds the whole call, waiting and retries included.
    try:
        await client.chat("This call has no time to speak of.", timeout=0.0001)
    except LLMTimeoutError as error:
        print(f"{type(error).__name__}: {error}")
        print(f"-- phase {error.phase}, retryable: {error.retryable}")


def show(status: dict[str, Any]) -> None:
    headline("What it came to")
    metrics = status["metrics"]
    latency, tokens, cache = metrics["latency"], metrics["tokens"], metrics["cache"]

    totals = Table("all calls", "", box=SIMPLE)
    totals.add_row("calls", f"{metrics['total_requests']}, of which {metrics['failed_requests']} failed")
    totals.add_row("retries", f"{metrics['retries']}")
    totals.add_row("tokens", f"{tokens['input']} in, {tokens['output']} out")
    totals.add_row("cache", f"{cache['hits']} hits ({cache['hit_ratio']:.0%}), {cache['tokens_saved']} tokens saved")
    totals.add_row("latency", f"median {latency['p50']:.2f} s, p95 {latency['p95']:.2f} s, p99 {latency['p99']:.2f} s")
    totals.add_row("cost", f"${metrics['cost']:.4f}")
    console.print(totals)

    # Keys are shown by fingerprint, never as they are.
    keys = Table("provider", "key", "state", "requests", "tokens", box=SIMPLE)
    for name, provider in status["providers"].items():
        for key in provider["keys"]:
            used = metrics["keys"].get(key["key"])
            numbers = (str(used["requests"]), str(used["tokens"]["total"])) if used else ("0", "0")
            keys.add_row(name, key["key"], key["state"], *numbers)
    console.print(keys)


def headline(text: str) -> None:
    console.rule(f"[bold]{text}", align="left")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except LLMException as failure:
        sys.exit(f"error: {failure}")
