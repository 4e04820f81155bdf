"""Which address of a vendor's leads where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from . import chat, embeddings, messages, models, responses, text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .answers import Events, Reply
    from .inquiry import Inquiry
    from .service import Service

    Endpoint: TypeAlias = Callable[[Service, Inquiry], Awaitable[Reply | Events]]

MODELS: Final = "/models"


class Address(NamedTuple):
    """What answers at an address.

    Attributes:
        endpoint: Answers.
        anthropic: Whether it speaks Anthropic's dialect.
    """

    endpoint: Endpoint
    anthropic: bool = False


ADDRESSES: Final[Mapping[tuple[str, str], Address]] = {
    ("GET", MODELS): Address(models.models),
    ("POST", "/chat/completions"): Address(chat.complete),
    ("POST", "/completions"): Address(text.complete),
    ("POST", "/embeddings"): Address(embeddings.embed),
    ("POST", "/responses"): Address(responses.respond),
    ("POST", "/messages"): Address(messages.message, anthropic=True),
    ("POST", "/messages/count_tokens"): Address(messages.count, anthropic=True),
}
"""By method, and by path behind `/v1`. `/models`, which both vendors have, is told in the dialect of who asks; a path
below it is a model's."""
