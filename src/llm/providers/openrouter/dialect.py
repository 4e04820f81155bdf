"""OpenRouter's dialect: OpenAI's, with preferences among the providers behind it.

It takes documents by address and the effort of reasoning in an object, puts a failure of the model behind it into an
answer of status 200 or an event, with the status as the error's code, and sends comments to keep a stream alive.

Source: https://openrouter.ai/docs/api-reference/overview
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, cast

from llm.core.messages import MessageRole, ThinkingPart
from llm.core.vendor import CachePoint
from llm.providers.openai import OpenAIDialect
from llm.providers.openai.body import Flavor, body_of
from llm.providers.wire import cache_control, dump

from .answer import read_routed
from .events import OpenRouterEvents
from .fitting import check_meaning, refuse, unsupported, wants_form
from .models import Nothing
from .thoughts import thoughts_as_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.messages import Message
    from llm.core.types import LLMRequest, LLMResponse

    from .models import Knowledge

BASE_URL: Final = "https://openrouter.ai/api/v1"


class OpenRouterDialect(OpenAIDialect):
    """Chat completions at OpenRouter, or at `base_url`.

    Attributes:
        models_url: Where the models are listed, to anybody: it says nothing of a key.
    """

    flavor: ClassVar[Flavor] = Flavor(developer=True, reasoning=True, document_url=True, cache_control=True)

    def __init__(
        self,
        base_url: str | None = None,
        *,
        routing: Mapping[str, Any] | None = None,
        on_unsupported: Literal["drop", "refuse"] = "drop",
        knowledge: Knowledge | None = None,
    ) -> None:
        """Take what holds for every request.

        Args:
            base_url: The address, with or without the `/v1` at its end.
            routing: Fields that every body has, unless the call says otherwise.
            on_unsupported: What becomes of a parameter that steers, and that the model does not take.
            knowledge: What is known of the models.

        Raises:
            LLMConfigurationError: The address is no web address.
        """
        super().__init__(base_url or BASE_URL)
        self.models_url: str = self.health_url
        self.health_url: str = f"{self.models_url.removesuffix('/models')}/key"
        self._routing: Mapping[str, Any] = routing or {}
        self._on_unsupported = on_unsupported
        self._knowledge: Knowledge = knowledge or Nothing()

    def encode(self, request: LLMRequest, *, stream: bool) -> bytes:
        """Return the body; what the call's `extra` says goes before the configuration, field by field of its objects.

        Raises:
            LLMInvalidRequestError: The dialect cannot express the request, or the model does not take it; names the
                field.
        """
        body = body_of(request, self._flavor, stream=stream)
        _give_thoughts_back(request.messages, body["messages"])
        _mark_turns(request.messages, body["messages"])
        self._fit(request, body)
        if wants_form(body):  # a provider that does not know the field would answer in any form
            body["provider"] = {"require_parameters": True}
        for name, value in (*self._routing.items(), *(request.extra or {}).items()):
            body[name] = _merged(body.get(name), value)
        return dump(body)

    def decode(self, body: bytes, *, provider: str, key: str | None) -> LLMResponse:
        """Read a whole answer."""
        return read_routed(body, provider=provider, key=key)

    def events(self) -> OpenRouterEvents:
        """Return a reader for one stream."""
        return OpenRouterEvents()

    def _fit(self, request: LLMRequest, body: dict[str, Any]) -> None:
        model: str = body["model"]
        accepted = self._knowledge.accepted(model)
        if accepted is None:
            return
        check_meaning(request, body, model, accepted)
        parameters = unsupported(body, accepted)
        if not parameters:
            return
        if self._on_unsupported == "refuse":
            raise refuse(model, parameters)
        for name in parameters:
            del body[name]
        self._knowledge.dropped(model, parameters)


def _give_thoughts_back(messages: tuple[Message, ...], turns: list[dict[str, Any]]) -> None:
    for message, turn in zip(messages, turns, strict=True):
        if message.role is MessageRole.ASSISTANT and not isinstance(message.content, str):
            turn.update(thoughts_as_fields(part for part in message.content if isinstance(part, ThinkingPart)))


def _mark_turns(messages: tuple[Message, ...], turns: list[dict[str, Any]]) -> None:
    """Mark the turns before those that begin with a mark; only text, images and the like can carry one."""
    for at in range(1, len(messages)):
        content, before = messages[at].content, turns[at - 1]["content"]
        if isinstance(content, str) or not content or not isinstance(content[0], CachePoint) or not before:
            continue
        blocks: list[dict[str, Any]] = [{"type": "text", "text": before}] if isinstance(before, str) else before
        blocks[-1]["cache_control"] = cache_control(content[0])
        turns[at - 1]["content"] = blocks


def _merged(before: object, value: object) -> object:
    """Return `value` over `before`: a setting here leaves those beside it as they are."""
    if isinstance(before, dict) and hasattr(value, "keys"):
        return {**cast("dict[str, Any]", before), **cast("Mapping[str, Any]", value)}
    return value
