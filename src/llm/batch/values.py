"""What goes through a batch: rows, rows that are none, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from llm.core.exceptions import LLMException
from llm.core.types import EmbeddingResponse, LLMResponse, TokenUsage
from llm.utils.frozen import quick

CHAT: Final = "/v1/chat/completions"
EMBEDDINGS: Final = "/v1/embeddings"
RESPONSES: Final = "/v1/responses"


@quick
@dataclass(frozen=True, slots=True)
class Row:
    """One request of a batch, in the OpenAI Batch format.

    Attributes:
        order: Its place in the input from 0; bad rows count, blank lines do not.
        custom_id: The user's name for it, by which a rerun knows it again.
        url: One of `CHAT`, `EMBEDDINGS` and `RESPONSES`: how the body is to be read and the answer written.
        body: The request in OpenAI's dialect.
        line: Its line in the file from 1; None where a program made it.

    Source: https://platform.openai.com/docs/guides/batch
    """

    order: int
    custom_id: str
    url: str
    body: Mapping[str, Any]
    line: int | None = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A place in the input that holds no request.

    Attributes:
        order: Its place in the input from 0.
        line: Its line in the file from 1; None where a program made it.
        custom_id: Its name, where that could be read.
        code: What is wrong, for programs: `invalid_json`, `missing_custom_id`, `duplicate_custom_id`, `row_too_large`…
        message: What is wrong and what to do, for people.
    """

    order: int
    line: int | None
    custom_id: str | None
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ResponseWrapper:
    """What became of one request of a batch.

    Attributes:
        request_id: The request's `custom_id`; empty where a bad row had none.
        order: Its place in the input from 0.
        response: The answer; None where there is none.
        error: Why there is none; a value, never raised.
    """

    request_id: str
    order: int
    response: LLMResponse | EmbeddingResponse | None = None
    error: LLMException | None = None


class Outcome(NamedTuple):
    """The end of a row, as small as it can be sent from one process to another.

    Attributes:
        order: Its place in the input from 0.
        line: Its line in the output, or in the errors file.
        kind: What its failure is called; None: it was answered.
        usage: Tokens of the answer.
        cost: US dollars of the answer; None where its price is unknown.
        cached: Whether the cache gave it.
    """

    order: int
    line: bytes
    kind: str | None
    usage: TokenUsage = TokenUsage()
    cost: float | None = None
    cached: bool = False
