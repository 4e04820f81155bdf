"""Where OpenAI's client has its `create` methods, on a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from .plain import written_turns
from .values import CHAT, EMBEDDINGS, RESPONSES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llm.core.messages import MessagesLike


class Adds(Protocol):
    """What takes requests."""

    def __call__(self, url: str, body: Mapping[str, object], *, custom_id: str | None = None) -> str:
        """Add a request; return its id."""
        ...


class Completions:
    """Conversations."""

    def __init__(self, add: Adds) -> None:
        """Hand requests on to this."""
        self._add = add

    def create(
        self, *, messages: MessagesLike, model: str | None = None, custom_id: str | None = None, **body: object
    ) -> str:
        """Add a conversation; return its id.

        Args:
            messages: `Message`s, `{"role": …, "content": …}` mappings, or one text, which is the user's. Thoughts and
                marks for the prompt cache are left out, for which this form has no word.
            model: Its model; None: the one that the batch is run with.
            custom_id: Its id, unique in the batch; None: one is made.
            body: Any other field of OpenAI's chat completions, such as `temperature` and `max_tokens`.

        Raises:
            LLMInvalidRequestError: A field is wrong; names it.
        """
        return self._add(CHAT, {**_model(model), "messages": written_turns(messages), **body}, custom_id=custom_id)


class Chat:
    """Where OpenAI's client has conversations.

    Attributes:
        completions: Adds them.
    """

    def __init__(self, add: Adds) -> None:
        """Hand requests on to this."""
        self.completions: Completions = Completions(add)


class Embeddings:
    """Vectors of texts."""

    def __init__(self, add: Adds) -> None:
        """Hand requests on to this."""
        self._add = add

    def create(
        self,
        *,
        input: str | Sequence[str],  # noqa: A002 - the vendor's name
        model: str | None = None,
        custom_id: str | None = None,
        **body: object,
    ) -> str:
        """Add texts whose vectors are asked for; return the request's id.

        Args:
            input: One text or several.
            model: Its model; None: the one that the batch is run with.
            custom_id: Its id, unique in the batch; None: one is made.
            body: Any other field of OpenAI's embeddings, such as `dimensions`.

        Raises:
            LLMInvalidRequestError: A field is wrong; names it.
        """
        return self._add(EMBEDDINGS, {**_model(model), "input": input, **body}, custom_id=custom_id)


class Responses:
    """Requests of the Responses API."""

    def __init__(self, add: Adds) -> None:
        """Hand requests on to this."""
        self._add = add

    def create(
        self,
        *,
        input: str | Sequence[Mapping[str, Any]],  # noqa: A002 - the vendor's name
        model: str | None = None,
        custom_id: str | None = None,
        **body: object,
    ) -> str:
        """Add a request; return its id.

        Args:
            input: A text, or items.
            model: Its model; None: the one that the batch is run with.
            custom_id: Its id, unique in the batch; None: one is made.
            body: Any other field of OpenAI's Responses API, such as `instructions` and `max_output_tokens`.

        Raises:
            LLMInvalidRequestError: A field is wrong; names it.
        """
        return self._add(RESPONSES, {**_model(model), "input": input, **body}, custom_id=custom_id)


def _model(model: str | None) -> dict[str, object]:
    return {} if model is None else {"model": model}
