"""A request's fit to a model: what the model does not take is left out, or refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import AudioPart, ImagePart

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.core.types import LLMRequest

    from .models import Accepted

STEERING: Final = frozenset({
    "frequency_penalty", "logit_bias", "logprobs", "min_p", "presence_penalty", "reasoning", "repetition_penalty",
    "seed", "stop", "temperature", "top_a", "top_k", "top_logprobs", "top_p", "verbosity",
})  # fmt: skip
"""Fields that steer how a model chooses its words; without them the answer is to the same question.

Source: https://openrouter.ai/docs/api-reference/parameters
"""


def unsupported(body: dict[str, Any], accepted: Accepted) -> list[str]:
    """Return the fields of a body that steer, and that the model does not take."""
    if not accepted.parameters:
        return []
    return sorted((STEERING & body.keys()) - accepted.parameters)


def check_meaning(request: LLMRequest, body: dict[str, Any], model: str, accepted: Accepted) -> None:
    """Refuse what changes the question when it is left out, and that the model does not take.

    Raises:
        LLMInvalidRequestError: It does not take tools, the form of the answer, or a kind of content; names it.
    """
    field = _missing_field(body, accepted.parameters) or _missing_input(request, accepted.inputs)
    if field is not None:
        raise LLMInvalidRequestError(
            f"{model} does not take {field}, and the request means something else without; take it out, or name a "
            "model that takes it"
        )


def refuse(model: str, parameters: list[str]) -> LLMInvalidRequestError:
    """Return the error for parameters that are not to be left out."""
    named = ", ".join(parameters)
    return LLMInvalidRequestError(
        f"{model} does not take {named}; leave {'it' if len(parameters) == 1 else 'them'} out, name a model that takes "
        f"{'it' if len(parameters) == 1 else 'them'}, or set on_unsupported: drop"
    )


def wants_form(body: dict[str, Any]) -> bool:
    """Return whether the answer must have a form, which a provider that does not know it would just not give."""
    wanted: Mapping[str, object] = body.get("response_format", {})
    return wanted.get("type", "text") != "text"


def _missing_field(body: dict[str, Any], parameters: frozenset[str]) -> str | None:
    if not parameters:
        return None
    if body.get("tools") and "tools" not in parameters:
        return "tools"
    if body.get("tool_choice", "auto") not in ("auto", "none") and "tool_choice" not in parameters:
        return "tool_choice"
    if not wants_form(body):
        return None
    if body["response_format"]["type"] == "json_schema":
        return None if "structured_outputs" in parameters else "a JSON schema as response_format"
    return None if parameters & {"response_format", "structured_outputs"} else "response_format"


def _missing_input(request: LLMRequest, inputs: frozenset[str]) -> str | None:
    if not inputs:
        return None
    for at, message in enumerate(request.messages):
        if isinstance(message.content, str):
            continue
        for part in message.content:
            if isinstance(part, ImagePart) and "image" not in inputs:
                return f"the image in messages[{at}]"
            if isinstance(part, AudioPart) and "audio" not in inputs:
                return f"the audio in messages[{at}]"
    return None
