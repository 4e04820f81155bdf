"""OpenAI's embeddings, which many other servers have as well.

Vectors are asked for in base64, single precision, little end first: a quarter of the bytes of numbers in JSON. Servers
that answer with numbers all the same are understood.

Source: https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from typing import TYPE_CHECKING, Any, Final

from llm.core.exceptions import LLMInvalidRequestError, LLMServerError
from llm.core.protocols import EmbeddingLimits
from llm.core.types import LLMResponse
from llm.providers.wire import dump, model_of, read_object, senseless, text_of

from .answer import usage_of

if TYPE_CHECKING:
    from llm.core.texts import EmbeddingInput
    from llm.core.types import LLMRequest

LIMITS: Final = EmbeddingLimits(texts=2048, tokens=300_000)
"""Source: https://platform.openai.com/docs/api-reference/embeddings/create, `input`."""

_BYTES: Final = 4  # of a number in single precision
_NUMBERS: Final = frozenset({float, int})


class OpenAIEmbeddings:
    """Embeddings at one base URL.

    Attributes:
        url: Where calls are sent.
        limits: The most in one request.
    """

    def __init__(self, root: str, *, dimensions: str = "dimensions", texts: int | None = LIMITS.texts) -> None:
        """Take the address that paths are put behind, the name of the field for the vectors' length, and a bound."""
        self.url: str = f"{root}/embeddings"
        self.limits: EmbeddingLimits = EmbeddingLimits(texts=texts, tokens=LIMITS.tokens)
        self._dimensions = dimensions

    def encode(self, request: LLMRequest) -> bytes:
        """Return the body.

        Raises:
            LLMInvalidRequestError: It has no model, or asks for no vectors.
        """
        asked = _asked(request)
        body: dict[str, Any] = {"model": model_of(request), "input": asked.texts, "encoding_format": "base64"}
        if asked.dimensions is not None:
            body[self._dimensions] = asked.dimensions
        if request.extra:
            body.update(request.extra)
        return dump(body)

    def decode(self, body: bytes, request: LLMRequest, *, provider: str, key: str | None) -> LLMResponse:
        """Read the answer to `request`.

        Raises:
            LLMServerError: It makes no sense: a vector is missing, there twice, of another length, or holds what is no
                number; or the vectors have not the length that was asked for.
            LLMException: It tells of a failure.
        """
        asked = _asked(request)
        answer = read_object(body)
        try:
            vectors = _in_order(answer["data"], len(asked.texts))
            response = LLMResponse(
                text_of(answer.get("id")),
                "",
                text_of(answer.get("model")),
                provider,
                usage_of(answer.get("usage")),
                key=key,
                raw=answer,
                embeddings=vectors,
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            response = None
        if response is None:
            raise senseless(f"what is not {len(asked.texts)} vectors of one length")
        _check_length(len(response.embeddings[0]), asked.dimensions)
        return response


def _asked(request: LLMRequest) -> EmbeddingInput:
    if request.embed is None:
        raise LLMInvalidRequestError("embed is None; pass an EmbeddingInput with the texts, or call complete()")
    return request.embed


def _check_length(length: int, asked: int | None) -> None:
    if asked is not None and length != asked:
        raise LLMServerError(
            f"the provider sent vectors of {length} numbers where dimensions={asked} was asked for; leave dimensions "
            "out, or name a model that can choose them",
            retryable=False,
        )


def _in_order(data: list[dict[str, Any]], count: int) -> tuple[tuple[float, ...], ...]:
    """Return the vectors by their index; servers that give none send them in order."""
    by_place = {item.get("index", place): item["embedding"] for place, item in enumerate(data)}
    if len(data) != count:
        raise ValueError("not a vector for each text")
    vectors = tuple([_vector(by_place[place]) for place in range(count)])
    if len(set(map(len, vectors))) != 1 or not vectors[0]:
        raise ValueError("vectors of several lengths, or of none")
    return vectors


def _vector(sent: Any) -> tuple[float, ...]:  # noqa: ANN401 - JSON
    vector = _unpacked(sent) if isinstance(sent, str) else _floats(sent)
    # One that is not finite makes the sum so; a sum of large numbers may be infinite by itself.
    if not math.isfinite(sum(vector)) and not all(map(math.isfinite, vector)):
        raise ValueError("not a number, or infinite")
    return vector


def _unpacked(text: str) -> tuple[float, ...]:
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error
    if len(data) % _BYTES:
        raise ValueError("cut in the middle of a number")
    return struct.unpack(f"<{len(data) // _BYTES}f", data)


def _floats(numbers: list[Any]) -> tuple[float, ...]:
    if not set(map(type, numbers)) <= _NUMBERS:
        raise TypeError("expected numbers")
    return tuple(map(float, numbers))
