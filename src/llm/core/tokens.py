"""How many tokens a request takes, before it is sent: an estimate for limits, and OpenAI's count for context and price.

What is no text is estimated in both, by the vendors' published sizes:

- an image: 85 tokens at detail `low`, else 765, which is OpenAI's figure for 1024 by 1024 pixels
  (Source: platform.openai.com/docs/guides/images-vision, "Calculating costs");
- a document that is no text: 3,000 tokens, Anthropic's upper figure for a page
  (Source: docs.anthropic.com/en/docs/build-with-claude/pdf-support, "Estimate your costs");
- sound: ten tokens a second (Source: platform.openai.com/docs/guides/realtime-costs), a second being 16,000 bytes.
"""

from __future__ import annotations

import re
import warnings
from collections import deque
from functools import cache
from math import ceil
from typing import TYPE_CHECKING, Final, assert_never

from .messages import AudioPart, DocumentPart, ImagePart, TextPart, ThinkingPart
from .types import ToolDefinition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from .messages import Message, Part
    from .types import LLMRequest

CHARACTERS_PER_TOKEN: Final = 4
"""Of English text. Source: help.openai.com/en/articles/4936856, "What are tokens and how to count them"."""

_IMAGE: Final = 765
_IMAGE_LOW: Final = 85
_DOCUMENT: Final = 3000
_BYTES_PER_AUDIO_TOKEN: Final = 1600

# Source: OpenAI's cookbook, "How to count tokens with tiktoken", num_tokens_from_messages.
_PER_MESSAGE: Final = 3
_PER_NAME: Final = 1
_BEFORE_ANSWER: Final = 3

# Source: tiktoken/model.py of github.com/openai/tiktoken.
_VOCABULARIES: Final = (
    (re.compile(r"(ft:)?(gpt-4o|gpt-4\.1|gpt-4\.5|gpt-5|gpt-oss|chatgpt-4o|o[134](-|$))"), "o200k_base"),
    (re.compile(r"(ft:)?(gpt-4|gpt-3\.5|gpt-35|text-embedding-)"), "cl100k_base"),
)
# The tokenizer refuses more than 200,000 tokens at once; a character is four bytes, thus tokens, at most.
_PIECE: Final = 50_000
_SAFE_CUT: Final = re.compile(r"(?<=[^\W\d_]) (?=[^\W\d_])")


def estimate_tokens(request: LLMRequest) -> int:
    """Return about how many tokens the request's prompt takes: its characters by four, rounded up."""
    characters = 0
    others = 0
    for message in request.messages:
        content = message.content
        if isinstance(content, str):
            characters += len(content)
        else:
            for part in content:
                characters += len(_part_text(part))
                others += _part_tokens(part)
        for call in message.tool_calls:
            characters += len(call.name) + len(call.arguments)
    for text in _declared(request):
        characters += len(text)
    return -(-characters // CHARACTERS_PER_TOKEN) + others


def count_tokens(request: LLMRequest, model: str) -> int | None:
    """Return how many tokens OpenAI counts for the request's prompt; None where the model's vocabulary is not known.

    Exact for text. The first count of a vocabulary takes up to a second, and belongs in a thread.
    """
    count = _counter(model)
    if count is None:
        return None
    tokens = _BEFORE_ANSWER
    for message in request.messages:
        tokens += _PER_MESSAGE + count(message.role) + sum(map(count, _texts(message)))
        tokens += 0 if message.name is None else _PER_NAME + count(message.name)
        tokens += 0 if isinstance(message.content, str) else sum(map(_part_tokens, message.content))
    return tokens + sum(map(count, _declared(request)))


def count_text(text: str, model: str) -> int | None:
    """Return how many tokens OpenAI counts for a text, as for embeddings; None as in `count_tokens`."""
    count = _counter(model)
    return None if count is None else count(text)


class OutputEstimate:
    """How long a model's answers are: the 95th percentile of the last 256, by model.

    Until 20 answers of a model came it is at least `start`. It is worked out anew at every 16th answer, so noting one
    takes a fraction of a microsecond on average.
    """

    def __init__(self, start: int = 512) -> None:
        """Take the tokens of an answer of which nothing is known."""
        self._start = start
        self._models: dict[str, _Answers] = {}

    def expected(self, model: str) -> int:
        """Return the tokens to count on for an answer without `max_tokens`."""
        answers = self._models.get(model)
        return self._start if answers is None else answers.expected

    def observe(self, model: str, output_tokens: int) -> None:
        """Note the tokens of an answer that was not cut by `max_tokens`."""
        answers = self._models.get(model)
        if answers is None:
            answers = self._models.setdefault(model, _Answers(self._start))
        answers.add(output_tokens)


_WINDOW: Final = 256
_ENOUGH: Final = 20
_EVERY: Final = 16
_SHARE: Final = 0.95


class _Answers:
    __slots__ = ("_last", "_seen", "_start", "expected")

    def __init__(self, start: int) -> None:
        self._start = start
        self._seen = 0
        self._last: deque[int] = deque(maxlen=_WINDOW)
        self.expected = start

    def add(self, tokens: int) -> None:
        self._last.append(tokens)
        self._seen += 1
        if self._seen < _ENOUGH:
            self.expected = max(self.expected, tokens)
        elif self._seen == _ENOUGH or self._seen % _EVERY == 0:
            self.expected = max(1, percentile(self._last.copy(), _SHARE))


def percentile(values: deque[int], share: float) -> int:
    """Return the smallest value that at least `share` (0 to 1) of the values do not exceed."""
    return sorted(values)[max(1, ceil(share * len(values))) - 1]


def _texts(message: Message) -> Iterator[str]:
    if isinstance(message.content, str):
        yield message.content
    else:
        yield from map(_part_text, message.content)
    for call in message.tool_calls:
        yield call.name
        yield call.arguments


# Written with repr, not JSON: about the same characters, and nothing that a caller passes makes it fail.
def _declared(request: LLMRequest) -> Iterator[str]:
    for tool in request.tools or ():
        yield _tool_text(tool)
    if request.response_format is not None and not isinstance(request.response_format, str):
        yield str(request.response_format)


def _tool_text(tool: ToolDefinition | Mapping[str, Any]) -> str:
    return f"{tool.name}:{tool.description}{tool.parameters}" if isinstance(tool, ToolDefinition) else str(tool)


def _part_text(part: Part) -> str:
    if isinstance(part, TextPart | ThinkingPart):
        return part.text
    if isinstance(part, DocumentPart) and part.data is not None and _is_text(part):
        return part.data.decode("utf-8", "replace")
    return ""


def _part_tokens(part: Part) -> int:
    match part:
        case TextPart() | ThinkingPart():
            return 0
        case ImagePart():
            return _IMAGE_LOW if part.detail == "low" else _IMAGE
        case DocumentPart():
            return 0 if part.data is not None and _is_text(part) else _DOCUMENT
        case AudioPart():
            return -(-len(part.data) // _BYTES_PER_AUDIO_TOKEN)
        case _:
            assert_never(part)


def _is_text(part: DocumentPart) -> bool:
    return (part.media_type or "").startswith("text/")


def _counter(model: str) -> Callable[[str], int] | None:
    for name, vocabulary in _VOCABULARIES:
        if name.match(model):
            return _vocabulary(vocabulary)
    return None


@cache
def _vocabulary(name: str) -> Callable[[str], int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it reads its files by importlib's old way
        from bpe_openai import get_encoding  # noqa: PLC0415 - most of a second, for who asks for an exact count

    encode = get_encoding(name).encode_ordinary

    def count(text: str) -> int:
        return sum(len(encode(piece)) for piece in _pieces(text))

    return count


def _pieces(text: str) -> Iterator[str]:
    """Cut where a token ends anyway: before a space between letters."""
    start = 0
    while len(text) - start > _PIECE:
        cuts = [cut.start() for cut in _SAFE_CUT.finditer(text, start + 1, start + _PIECE)]
        end = cuts[-1] if cuts else start + _PIECE
        yield text[start:end]
        start = end
    yield text[start:]
