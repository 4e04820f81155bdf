"""Who calls over HTTP: each way of calling, and what is to come of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import aiohttp
import orjson

from llm.utils.clock import SystemClock

from .dialects import DIALECTS, text_of
from .settings import CLAUDE, GPT, KEYS, MOST_BYTES, SHAKY, VECTORS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from random import Random

    from .books import Books

CLOCK: Final = SystemClock()
FINE: Final = frozenset({200})
_WORDS: Final = "the quick brown fox jumps over the lazy dog and back again "
_FEW: Final = 40
"""Texts that are asked for again and again, so that a cache has them."""

_OUR_FAULT: Final = b"the gateway failed"
_PATIENCE: Final = 60.0  # seconds


class Answer(NamedTuple):
    """An answer.

    Attributes:
        status: HTTP status.
        headers: Headers.
        body: All of the body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Callers:
    """All who call a gateway."""

    def __init__(self, url: str, session: aiohttp.ClientSession, books: Books, random: Random) -> None:
        """Call the gateway at `url`, and note in `books` what comes of it."""
        self.url: str = url
        self.session: aiohttp.ClientSession = session
        self.books: Books = books
        self.random: Random = random

    def text(self) -> str:
        """Return a text of its own, or one of a few that come again."""
        number = self.random.getrandbits(64) if self.random.random() < 0.8 else self.random.randrange(_FEW)
        return f"{number:x} {_WORDS * (1 + number % 4)}".strip()

    async def fetch(  # noqa: PLR0913 - what a request has
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = KEYS["alice"],
        expected: Collection[int] = FINE,
        slowly: bool = False,
    ) -> Answer:
        """Ask, and hold the status against what is expected; of a provider that fails anything is, but a 500 of ours.

        Args:
            method: The method.
            path: The path.
            body: JSON, or bytes that are none.
            key: Whose key is sent.
            expected: Statuses that may come; none: any.
            slowly: Whether the answer is read slowly.
        """
        name = self.books.next_id()
        headers = {"x-request-id": name, "content-type": "application/json"}
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        data = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        try:
            async with CLOCK.timeout(_PATIENCE):
                answer = await self._fetch(method, path, data, headers, slowly=slowly)
        except asyncio.CancelledError:
            self.books.left(name)
            raise
        except (aiohttp.ClientError, TimeoutError) as error:
            self.books.left(name)
            self.books.breach("each call is answered", f"{method} {path}: {error!r}")
            return Answer(0, {}, b"")
        self.books.answered(name, answer.status)
        self._check(f"{method} {path}", name, answer, expected)
        return answer

    def _check(self, asked: str, name: str, answer: Answer, expected: Collection[int]) -> None:
        shown = f"{asked}: {answer.status} {answer.body[:300].decode(errors='replace')}"
        if (expected and answer.status not in expected) or _OUR_FAULT in answer.body:
            self.books.breach("no call fails without a reason", shown)
        if answer.headers.get("x-request-id") != name:
            self.books.breach("each answer has its request's name", shown)
        if answer.status == 429 and expected and int(answer.headers.get("retry-after", "0")) < 1:
            self.books.breach("a 429 tells when to come back", shown)

    async def _fetch(
        self, method: str, path: str, data: bytes | None, headers: Mapping[str, str], *, slowly: bool
    ) -> Answer:
        async with self.session.request(method, self.url + path, data=data, headers=headers) as answer:
            pieces: list[bytes] = []
            async for piece in answer.content.iter_any():
                pieces.append(piece)
                if slowly:
                    await CLOCK.sleep(0.01)
            return Answer(answer.status, answer.headers, b"".join(pieces))

    # --- ways ---------------------------------------------------------------------------------------------------------

    async def whole(self) -> None:
        """Ask for a whole answer in any dialect of any model."""
        spoken, text = self.random.choice(DIALECTS), self.text()
        model = self.random.choice((spoken.model, GPT, CLAUDE))
        answer = await self.fetch("POST", spoken.path, spoken.body(text, model, stream=False))
        if text.encode() not in answer.body:
            self.books.breach("each call gets its own answer", f"{spoken.path} of {text!r}: {answer.body[:500]!r}")

    async def stream(self) -> None:
        """Ask for a stream in any dialect of any model, and read it at any pace."""
        spoken, text = self.random.choice(DIALECTS), self.text()
        model = self.random.choice((spoken.model, GPT, CLAUDE))
        body = spoken.body(text, model, stream=True)
        answer = await self.fetch("POST", spoken.path, body, slowly=self.random.random() < 0.1)
        if text_of(answer.body) != text or spoken.whole not in answer.body:
            self.books.breach("each stream is whole", f"{spoken.path} of {text!r}: {answer.body[-500:]!r}")

    async def leave(self) -> None:
        """Ask for anything, and leave at any moment."""
        task = asyncio.create_task(self.random.choice((self.whole, self.stream, self.shaky))())
        await asyncio.wait([task], timeout=self.random.uniform(0.0, 0.06))
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def shaky(self) -> None:
        """Ask the provider that fails: what comes is its answer, or an error that is told as one."""
        spoken, text, stream = self.random.choice(DIALECTS), self.text(), self.random.random() < 0.5
        body = spoken.body(text, SHAKY, stream=stream)
        answer = await self.fetch("POST", spoken.path, body, expected=())
        if answer.status != 200:
            return
        own = text.startswith(text_of(answer.body)) if stream else text.encode() in answer.body
        if not own:
            self.books.breach("each call gets its own answer", f"{spoken.path} of {text!r}: {answer.body[:500]!r}")
        elif stream and (text_of(answer.body) == text) != (spoken.whole in answer.body) and b"error" not in answer.body:
            self.books.breach("a stream that breaks says so", f"{spoken.path}: {answer.body[-500:]!r}")

    async def vectors(self) -> None:
        """Ask for vectors."""
        body: dict[str, Any] = {"model": VECTORS, "input": [self.text(), self.text()]}
        answer = await self.fetch("POST", "/v1/embeddings", body)
        if answer.body.count(b'"embedding":') != 2:
            self.books.breach("each text gets its vector", repr(answer.body[:500]))

    async def look(self) -> None:
        """Look things up."""
        path, key = self.random.choice(
            (
                *(("/v1/models", KEYS[name]) for name in ("alice", "bob")),
                *((path, KEYS["alice"]) for path in (f"/v1/models/{GPT}", "/v1/metrics", "/openapi.json", "/docs")),
                *((path, None) for path in ("/v1/health", "/livez", "/readyz")),
            )
        )
        await self.fetch(self.random.choice(("GET", "GET", "HEAD")), path, key=key)

    async def count(self) -> None:
        """Have tokens counted."""
        body = {"model": CLAUDE, "messages": [{"role": "user", "content": self.text()}]}
        await self.fetch("POST", "/v1/messages/count_tokens", body)

    async def graphql(self) -> None:
        """Ask by GraphQL."""
        text = self.text()
        query = "mutation ($p: String!, $m: String!) { complete(input: {prompt: $p, model: $m}) { content } }"
        variables = {"p": text, "m": self.random.choice((GPT, CLAUDE))}
        answer = await self.fetch("POST", "/graphql", {"query": query, "variables": variables})
        if text.encode() not in answer.body:
            self.books.breach("each call gets its own answer", f"/graphql of {text!r}: {answer.body[:500]!r}")

    async def limited(self) -> None:
        """Ask with a key that may not ask so often, or for this, or not any more, or not yet again."""
        name, expected = self.random.choice(
            (("carol", {200, 429}), ("dave", {200, 401}), ("erin", {401}), ("bob", {403}))
        )
        spoken = self.random.choice(DIALECTS)
        body = spoken.body(self.text(), GPT, stream=self.random.random() < 0.5)
        await self.fetch("POST", spoken.path, body, key=KEYS[name], expected=expected)

    async def forged(self) -> None:
        """Ask with no key, or with one that nobody made."""
        key = self.random.choice((None, "sk-manifold-forged", KEYS["alice"][:-1], ""))
        spoken = self.random.choice(DIALECTS)
        await self.fetch("POST", spoken.path, spoken.body("Hi", GPT, stream=True), key=key, expected={401})

    async def wrong(self) -> None:
        """Ask for what is not there, or is no request."""
        asked: tuple[tuple[str, str, bytes | dict[str, Any] | None, int], ...] = (
            ("GET", "/v1/unheard-of", None, 404),
            ("DELETE", "/v1/models", None, 405),
            ("POST", "/v1/chat/completions", b"{", 400),
            ("POST", "/v1/messages", b'{"messages": "\xff"}', 400),
            ("POST", "/v1/generate", b'{"a":' * 300 + b"1" + b"}" * 300, 400),
            ("POST", "/v1/chat/completions", {"model": "unheard-of", "messages": []}, 400),
            ("POST", "/v1/embeddings", {"model": "unheard-of", "input": "x"}, 404),
            ("POST", "/graphql", {"query": "{ a " * 200 + "}" * 200}, 200),
        )
        method, path, body, status = self.random.choice(asked)
        await self.fetch(method, path, body, expected={status})

    async def huge(self) -> None:
        """Send more than anybody may."""
        async with self.session.post(
            f"{self.url}/v1/generate",
            data=b"x" * (MOST_BYTES + 1),
            headers={"authorization": f"Bearer {KEYS['alice']}"},
        ) as answer:
            status = answer.status
        self.books.was_refused(status)
        if status != 413:
            self.books.breach("too large a body is a 413", str(status))
