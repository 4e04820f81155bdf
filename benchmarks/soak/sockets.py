"""Who calls over a WebSocket, or over a connection whose bytes are no HTTP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import aiohttp

from .callers import CLOCK
from .settings import CLAUDE, GPT, HEADER_TIMEOUT, KEYS

if TYPE_CHECKING:
    from .callers import Callers

_LEFT: Final = 499
_ALICE: Final = {"authorization": f"Bearer {KEYS['alice']}"}
_QUERY: Final = "subscription ($p: String!, $m: String!) { completion(input: {prompt: $p, model: $m}) { content } }"


async def streams(callers: Callers) -> None:
    """Ask for several streams on one connection, and cancel some of them."""
    books, random = callers.books, callers.random
    connection = books.next_id()
    texts = {number: callers.text() for number in range(1, random.randint(2, 5))}
    cancelled = {number for number in texts if random.random() < 0.2}
    got = dict.fromkeys(texts, "")
    headers = {**_ALICE, "x-request-id": connection}
    async with callers.session.ws_connect(f"{callers.url}/v1/stream", headers=headers) as socket:
        for number, text in texts.items():
            await socket.send_json({"id": number, "model": random.choice((GPT, CLAUDE)), "prompt": text})
        going_on = len(texts)
        while going_on:
            message: dict[str, Any] = await socket.receive_json(timeout=60.0)
            number = message["id"]
            if message["type"] == "chunk":
                got[number] += message["text"]
                if number in cancelled:
                    cancelled.discard(number)
                    await socket.send_json({"id": number, "type": "cancel"})
                continue
            going_on -= 1
            ended = message.get("finish_reason") == "cancelled"
            books.answered(f"{connection}-{number}", _LEFT if ended else 200)
            if message["type"] == "error" or not texts[number].startswith(got[number]):
                books.breach(
                    "each stream of a socket is its own", f"{texts[number]!r}: {message} after {got[number]!r}"
                )
            elif not ended and got[number] != texts[number]:
                books.breach("each stream of a socket is whole", f"{texts[number]!r}: {got[number]!r}")


async def subscription(callers: Callers) -> None:
    """Subscribe by GraphQL, whose key comes in a message."""
    books, text = callers.books, callers.text()
    connection = books.next_id()
    opened = callers.session.ws_connect(
        f"{callers.url}/graphql", protocols=("graphql-transport-ws",), headers={"x-request-id": connection}
    )
    async with opened as socket:
        await socket.send_json({"type": "connection_init", "payload": {"x-api-key": KEYS["alice"]}})
        await socket.receive_json(timeout=60.0)
        variables = {"p": text, "m": callers.random.choice((GPT, CLAUDE))}
        await socket.send_json({"id": "1", "type": "subscribe", "payload": {"query": _QUERY, "variables": variables}})
        got = ""
        while (message := await socket.receive_json(timeout=60.0))["type"] == "next":
            got += message["payload"]["data"]["completion"]["content"]
    books.answered(f"{connection}-1", 200)
    if message["type"] != "complete" or got != text:
        books.breach("a subscription is whole", f"{text!r}: {message} after {got!r}")


async def refused(callers: Callers) -> None:
    """Open a socket without a good key."""
    books = callers.books
    name = books.next_id()
    try:
        async with callers.session.ws_connect(f"{callers.url}/v1/stream", headers={"x-request-id": name}):
            books.breach("without a key no socket is opened", name)
    except aiohttp.WSServerHandshakeError as error:
        books.answered(name, error.status)


async def left(callers: Callers) -> None:
    """Open a socket, ask, and go without a word."""
    books = callers.books
    connection = books.next_id()
    headers = {**_ALICE, "x-request-id": connection}
    async with callers.session.ws_connect(f"{callers.url}/v1/stream", headers=headers) as socket:
        await socket.send_json({"id": "a", "model": GPT, "prompt": callers.text()})
        await CLOCK.sleep(callers.random.uniform(0.0, 0.03))
        books.left(f"{connection}-1")


async def no_http(callers: Callers) -> None:
    """Send what is no request, or half of one."""
    data, status = callers.random.choice(
        (
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"POST /v1/generate HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            (b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
            (b"GET /livez HTTP/1.1\r\nHost: a", 408),
        )
    )
    at = urlsplit(callers.url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    try:
        writer.write(data)
        async with CLOCK.timeout(HEADER_TIMEOUT + 10.0):
            told = await reader.readline()
            await reader.read()
    finally:
        writer.close()
    callers.books.was_refused(status)
    if not told.startswith(b"HTTP/1.1 %d " % status):
        callers.books.breach("what is no request is refused", f"{data[:100]!r}: {told!r}")
