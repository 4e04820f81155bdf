"""`/embeddings` in OpenAI's dialect, from the server's side: a body → a request, a response → a body.

Source: https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING, Any, Final

from llm.core.texts import EmbeddingInput
from llm.core.types import LLMRequest

from .fields import is_list, wrong
from .openai_read import model_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llm.core.types import EmbeddingResponse, LLMResponse

MOST_TEXTS: Final = 2048
_READ: Final = {"model", "input", "dimensions", "encoding_format"}


def read_embeddings(body: Mapping[str, Any]) -> LLMRequest:
    """Return the request of an `/embeddings` body.

    Fields without a name of ours go into `extra`. `encoding_format` concerns the form of the answer, and is the
    writer's.

    Raises:
        LLMInvalidRequestError: A field is missing or wrong; says which and what was expected. Tokens in place of texts
            are not taken.
    """
    if body.get("encoding_format") not in (None, "float", "base64"):
        raise wrong("encoding_format", "float or base64")
    dimensions: object = body.get("dimensions")
    if dimensions is not None and not (type(dimensions) is int and dimensions > 0):
        raise wrong("dimensions", "a whole number of 1 or more")
    extra = {name: value for name, value in body.items() if name not in _READ}
    embed = EmbeddingInput(_texts(body.get("input")), dimensions)
    return LLMRequest((), model=model_of(body), embed=embed, extra=extra or None)


def _texts(given: object) -> Sequence[str]:
    several = [given] if isinstance(given, str) else given
    if not is_list(several) or not several or len(several) > MOST_TEXTS:
        raise wrong("input", f"text, or a list of 1 to {MOST_TEXTS} texts")
    for place, text in enumerate(several):
        if not isinstance(text, str) or not text:
            raise wrong(f"input[{place}]", "text that is not empty")
    return several


def write_embeddings(response: LLMResponse | EmbeddingResponse, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body that answers `/embeddings`, as numbers or base64, whichever the request's `body` asks for."""
    packed = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": place, "embedding": _pack(vector) if packed else list(vector)}
        for place, vector in enumerate(response.embeddings)
    ]
    tokens = response.usage.input_tokens
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": response.model, "usage": usage}


def _pack(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
