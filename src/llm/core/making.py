"""Requests made of a call's arguments: checked as they are put in, in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm.utils.frozen import maker

from .messages import are_read, read_messages
from .options import option_reads, read_stop, read_tools
from .types import CachePolicy, LLMRequest, ToolDefinition

if TYPE_CHECKING:
    from .messages import Message, MessagesLike


def _messages(given: MessagesLike) -> tuple[Message, ...]:
    return read_messages(given) if type(given) is str or not are_read(given) else given


make_request = maker(
    LLMRequest,
    reads={
        "messages": _messages,
        "stop": read_stop,
        "tools": lambda tools: read_tools(tools, ToolDefinition),
        **option_reads(CachePolicy),
    },
)
"""Makes a request in words of its fields in their order; `continue_stream` is the caller's to check."""
