"""How likely a choice's tokens were, in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llm.core.choices import TokenLogprob

if TYPE_CHECKING:
    from collections.abc import Iterable

_SAID: Final = ("content", "refusal")


def read_logprobs(logprobs: dict[str, Any]) -> tuple[TokenLogprob, ...]:
    """Read the `logprobs` of a choice: of its text, or of its refusal.

    Raises:
        TypeError: They make no sense; so do KeyError, ValueError and AttributeError.
    """
    return tuple([read_token(token) for said in _SAID for token in logprobs.get(said) or ()])


def write_logprobs(logprobs: Iterable[TokenLogprob], *, refused: bool) -> dict[str, Any]:
    """Return the `logprobs` of a choice."""
    tokens = [{**_written(token), "top_logprobs": [_written(other) for other in token.top]} for token in logprobs]
    return {"content": None, "refusal": tokens} if refused else {"content": tokens, "refusal": None}


def read_token(token: dict[str, Any]) -> TokenLogprob:
    """Read how likely one token was.

    Raises:
        TypeError: It makes no sense; so do KeyError, ValueError and AttributeError.
    """
    text, logprob, top = token["token"], token["logprob"], token.get("top_logprobs")
    if type(text) is not str or type(logprob) not in {float, int}:
        raise TypeError("expected a token and a number")
    return TokenLogprob(text, float(logprob), _data(token.get("bytes")), tuple(map(read_token, top)) if top else ())


def _data(octets: list[int] | None) -> bytes | None:
    if octets is None:
        return None
    if type(octets) is not list:  # a number alone would do for `bytes`, too
        raise TypeError("expected a list of bytes")
    return bytes(octets)


def _written(token: TokenLogprob) -> dict[str, Any]:
    data = None if token.data is None else list(token.data)
    return {"token": token.token, "logprob": token.logprob, "bytes": data}
