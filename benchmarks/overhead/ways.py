"""The ways to make a call that are compared."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import aiohttp
import orjson

from llm import LLMManager

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

Call: TypeAlias = Callable[[], Awaitable[object]]

_MODEL: Final = "gpt-4o-mini"
_PROMPT: Final = "What is Python, in a sentence?"
_AMPLE: Final = 1_000_000_000
_LEVEL: Final = {
    "requests_per_minute": _AMPLE,
    "tokens_per_minute": _AMPLE,
    "input_tokens_per_minute": _AMPLE,
    "output_tokens_per_minute": _AMPLE,
}
_KEY: Final = {"rate_limits": [_LEVEL]}
_ABOVE: Final = {"limits": {"global": _LEVEL, "users": {"default": _LEVEL}}}


@dataclass(frozen=True, slots=True)
class Way:
    """A way to make calls.

    Attributes:
        name: What the table calls it.
        open: Makes what it needs, and gives the function that makes one call.
    """

    name: str
    open: Callable[[str], AbstractAsyncContextManager[Call]]


@asynccontextmanager
async def _bare(base_url: str) -> AsyncGenerator[Call]:
    headers = {"authorization": "Bearer sk-test", "content-type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers=headers) as http:

        async def call() -> object:
            messages = [{"role": "user", "content": _PROMPT}]
            body = orjson.dumps({"model": _MODEL, "messages": messages, "max_tokens": 16})
            async with http.post(f"{base_url}/chat/completions", data=body) as response:
                answer: object = orjson.loads(await response.read())
                return answer

        yield call


@asynccontextmanager
async def _ours(
    base_url: str, *, key: Mapping[str, Any], above: Mapping[str, Any], middleware: list[Any] | None, user: str | None
) -> AsyncGenerator[Call]:
    section = {"base_url": base_url, "api_keys": ["sk-test"], "models": [_MODEL], **key}
    async with LLMManager.open({"providers": {"openai": section}, **above}) as manager:
        client = manager.get_client(middleware=middleware, user=user)
        yield partial(client.complete, _PROMPT, max_tokens=16)


BARE: Final = Way("bare aiohttp and orjson", _bare)
NO_CHAIN: Final = Way("no middleware", partial(_ours, key={}, above={}, middleware=[], user=None))
NO_LIMITS: Final = Way("default chain, no limits", partial(_ours, key={}, above={}, middleware=None, user=None))
KEY_LIMITS: Final = Way(
    "default chain, limits of the key", partial(_ours, key=_KEY, above={}, middleware=None, user=None)
)
ALL_LIMITS: Final = Way(
    "default chain, limits of key, user and global",
    partial(_ours, key=_KEY, above=_ABOVE, middleware=None, user="alice"),
)
SDK: Final = Way(
    "default chain, transport: sdk", partial(_ours, key={"transport": "sdk"}, above={}, middleware=None, user=None)
)
WAYS: Final = (BARE, NO_CHAIN, NO_LIMITS, KEY_LIMITS, ALL_LIMITS, SDK)
