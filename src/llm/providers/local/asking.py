"""An `LLMRequest` as what the engine takes: a prompt, its options, and the form that the answer is held to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.structured import shape_of
from llm.providers.structured import Way, shaped

from .grammar import choice_grammar, model_grammar, object_grammar, regex_grammar, schema_grammar
from .request import Conversation
from .tools import calls_grammar
from .turns import read_choice, read_turns, tools_of

if TYPE_CHECKING:
    from llm.core.types import LLMRequest

    from .engine import Options
    from .grammar import Grammar
    from .request import Prompt
    from .tools import CallForm

_KNOWN: Final = ("logprobs", "n", "parallel_tool_calls", "raw", "structured_outputs", "top_k", "top_logprobs")
_NOTES: Final = frozenset({
    "metadata", "prompt_cache_key", "safety_identifier", "service_tier", "store", "stream_options", "user",
})  # fmt: skip
"""Fields of OpenAI's that concern its service and no answer."""
_NEUTRAL: Final[Mapping[str, tuple[object, ...]]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
}
"""Fields that ask for nothing with these values, or none."""


class Asked(NamedTuple):
    """A request as the engine takes it.

    Attributes:
        prompt: The prompt.
        options: Its options.
        form: How calls of tools are written; None: no tools may be called.
    """

    prompt: Prompt
    options: Options
    form: CallForm | None = None


def read_request(request: LLMRequest, form: CallForm | None) -> Asked:
    """Return all of a request; `form` is how the model writes calls, where the request has tools.

    Raises:
        LLMInvalidRequestError: It asks for what a model on the box does not do; names the field.
    """
    options, prompt = read_options(request), read_prompt(request)
    callable_ = read_choice(request)
    if form is None or not callable_.tools:
        return Asked(prompt, options)
    answer = options.get("grammar")
    if answer is not None and answer.kind != "lark":
        raise LLMInvalidRequestError(f"{answer.field} is given with tools; leave one of them out")
    options["grammar"] = calls_grammar(
        form, callable_.tools, must=callable_.must, several=callable_.several, answer=answer
    )
    return Asked(prompt, options, form)


def read_prompt(request: LLMRequest) -> Prompt:
    """Return the request's conversation in the form that chat templates take; with `raw` the text to be continued.

    Raises:
        LLMInvalidRequestError: A turn that is not text; names it. With `raw` anything but one message, a user's.
    """
    turns = read_turns(shaped(request, Way.WORDS).messages)
    tools = tools_of(request)
    if not _raw(request):
        return Conversation(turns, tools) if tools else turns
    if len(turns) != 1 or turns[0]["role"] != "user" or tools:
        raise LLMInvalidRequestError(
            "extra.raw is true; expected one message, a user's, whose text is continued, and no tools"
        )
    return str(turns[0]["content"])


def read_options(request: LLMRequest) -> Options:
    """Return the request's options for the engine.

    Raises:
        LLMInvalidRequestError: An option that a model on the box does not have; names it.
    """
    extra = {name: value for name, value in (request.extra or {}).items() if _says_something(name, value)}
    if unknown := extra.keys() - set(_KNOWN):
        raise LLMInvalidRequestError(
            f"extra has {min(unknown)!r}, which a model on the box does not know; leave it out "
            f"(known: {', '.join(_KNOWN)})"
        )
    return {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": extra.get("top_k"),
        "seed": request.seed,
        "stop": request.stop or (),
        "grammar": read_form(request),
        "logprobs": _read_logprobs(extra),
        "choices": extra.get("n", 1),
    }


def _says_something(name: str, value: object) -> bool:
    return name not in _NOTES and value is not None and value not in _NEUTRAL.get(name, ())


def _read_logprobs(extra: Mapping[str, Any]) -> int | None:
    asked, likeliest = extra.get("logprobs", False), extra.get("top_logprobs")
    if not isinstance(asked, bool):
        raise LLMInvalidRequestError(f"extra.logprobs is {asked!r}; expected true or false")
    if not asked and likeliest:
        raise LLMInvalidRequestError("extra.top_logprobs is given without logprobs; set logprobs to true")
    return (likeliest or 0) if asked else None


def read_form(request: LLMRequest) -> Grammar | None:
    """Return the form that the answer is held to; None where it is free.

    Raises:
        LLMInvalidRequestError: There are several, or one of an unknown kind; names the field.
    """
    outputs: object = (request.extra or {}).get("structured_outputs")
    asked: Grammar | None
    if request.response_model is not None:
        asked = model_grammar(shape_of(request.response_model).schema, field="response_model")
    else:
        asked = _read_format(request.response_format)
    if outputs is None:
        return asked
    if asked is not None:
        raise LLMInvalidRequestError("extra.structured_outputs is given beside another form; pass one of them")
    return _read_outputs(outputs)


def _read_format(form: str | Mapping[str, Any] | None) -> Grammar | None:
    asked: Mapping[str, Any] = {"type": form or "text"} if form is None or isinstance(form, str) else form
    match asked.get("type"):
        case "text":
            return None
        case "json_object":
            return object_grammar(field="response_format")
        case "json_schema":
            where = "response_format.json_schema.schema"
            return schema_grammar(_schema(_mapping(asked.get("json_schema")).get("schema"), where), field=where)
        case _:
            raise LLMInvalidRequestError("response_format is unknown; expected text, json_object or json_schema")


def _read_outputs(outputs: object) -> Grammar:
    where, given = "extra.structured_outputs", _mapping(outputs)
    kind, value = next(iter(given.items())) if len(given) == 1 else ("", None)
    if kind == "json":
        return schema_grammar(_schema(value, f"{where}.json"), field=f"{where}.json")
    if kind == "json_object" and value is True:
        return object_grammar(field=where)
    if kind == "regex" and isinstance(value, str):
        return regex_grammar(value, field=f"{where}.regex")
    if kind == "choice" and (texts := _texts(value)):
        return choice_grammar(texts, field=f"{where}.choice")
    raise LLMInvalidRequestError(
        f"{where} is none that is known; expected one of json (a JSON Schema), regex (a text), choice (texts) and "
        "json_object (true)"
    )


def _schema(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise LLMInvalidRequestError(f"{where} is no object; pass a JSON Schema")
    return cast("Mapping[str, Any]", value)


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _texts(value: object) -> list[str]:
    several = cast("list[object]", value) if isinstance(value, list) else []
    texts = [each for each in several if isinstance(each, str)]
    return texts if len(texts) == len(several) else []


def _raw(request: LLMRequest) -> bool:
    raw: object = (request.extra or {}).get("raw", False)
    if not isinstance(raw, bool):
        raise LLMInvalidRequestError(f"extra.raw is {raw!r}; expected true or false")
    return raw
