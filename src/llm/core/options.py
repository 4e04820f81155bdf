"""What the options of a request must be, and what to say where they are not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from .exceptions import LLMConfigurationError, LLMInvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

Test: TypeAlias = Callable[[object], bool]


def check_options(request: object, cache_policy: type) -> None:
    """Look at all options of a request that are given and need no reading.

    Only what no provider takes is refused; a narrower range is the provider's to refuse.

    Raises:
        LLMInvalidRequestError: One is of the wrong kind or out of range; names it and what is expected.
    """
    asked: Any = request
    _check_options(request)
    if asked.extra is not None:
        _read_extra(asked.extra)
    if asked.cache is not None:
        _read_cache(cache_policy, asked.cache)


def option_reads(cache_policy: type) -> dict[str, Callable[[Any], Any]]:
    """Return for each of those options a function that returns what is given for it, and raises as `check_options`."""
    reads = {name: partial(_read, name, test, expected) for name, test, expected in _OPTIONS}
    return {**reads, "extra": _read_extra, "cache": partial(_read_cache, cache_policy)}


def check_cache_policy(policy: object) -> None:
    """Look at the fields of a `CachePolicy`.

    Raises:
        LLMInvalidRequestError: One is of the wrong kind or out of range; names it and what is expected.
    """
    _check_policy(policy)


def check_embedding(request: object, embedding: type) -> None:
    """Look at a request for vectors: it has texts, and nothing that concerns an answer in words.

    Raises:
        LLMInvalidRequestError: It has a conversation, or an option that no call for vectors takes; names it.
    """
    embed = getattr(request, "embed", None)
    if not isinstance(embed, embedding):
        raise _refused("embed", embed, "an EmbeddingInput")
    given = [name for name in _OF_WORDS if getattr(request, name) is not None]
    given += [name for name in ("messages", "stream") if getattr(request, name)]
    if given:
        raise LLMInvalidRequestError(
            f"{given[0]} is given in a request for embeddings, which takes none; leave it out, or leave embed out"
        )


def check_continuation(request: object) -> None:
    """Look at a request that asks for its stream to be carried on.

    Raises:
        LLMInvalidRequestError: It is no stream, or no answer that can be put together of parts; names why.
    """
    asked: Any = request
    if asked.continue_stream is not True:
        raise _refused("continue_stream", asked.continue_stream, "True or False")
    if not asked.stream:
        raise LLMInvalidRequestError(
            "continue_stream is given for an answer that is no stream; call stream_complete(), or leave it out"
        )
    formed = asked.response_format not in (None, "text")
    for name, given in (("tools", asked.tools), ("response_model", asked.response_model), ("response_format", formed)):
        if given:
            raise LLMInvalidRequestError(
                f"continue_stream is given with {name}, and such an answer cannot be put together of parts; leave one "
                "of them out"
            )


def check_model(model: object) -> None:
    """Look at the model of a call that is made without a request.

    Raises:
        LLMInvalidRequestError: It is no name.
    """
    if model is not None and not _is_name(model):
        raise _refused("model", model, _A_MODEL)


def check_drain(drain: object) -> None:
    """Look at the seconds that closing waits; what is no number of them would put the loop's timers out of order.

    Raises:
        LLMConfigurationError: They are none.
    """
    if not _from_to(0, float("inf"))(drain):
        raise LLMConfigurationError(_told("drain", drain, "seconds, 0 or more"))


def check_client(model: object, user: object, priority: object, middleware: object) -> None:
    """Look at what a client is made with.

    Raises:
        LLMConfigurationError: One is of the wrong kind; names it and what is expected.
    """
    if isinstance(middleware, str):
        raise LLMConfigurationError(f"middleware is the text {middleware!r}; pass {_LAYERS}")
    for name, value, fits, expected in (
        ("model", model, model is None or _is_name(model), _A_MODEL),
        ("user", user, user is None or _is_name(user), f"{_A_USER}, or None for none"),
        ("priority", priority, _is_whole(priority), "a whole number; higher goes first"),
        ("middleware", middleware, middleware is None or isinstance(middleware, Iterable), _LAYERS),
    ):
        if not fits:
            raise LLMConfigurationError(_told(name, value, expected))


def read_stop(stop: object) -> tuple[str, ...]:
    """Return one text or several as a tuple.

    Raises:
        LLMInvalidRequestError: It is neither, or one of them is empty.
    """
    several = tuple(cast("Sequence[object]", stop)) if isinstance(stop, (list, tuple)) else (stop,)
    texts = tuple(text for text in several if isinstance(text, str) and text)
    if not texts or len(texts) != len(several):
        raise LLMInvalidRequestError(
            "stop is neither a text nor a list of texts, none of them empty; pass one of these"
        )
    return texts


def read_tools(tools: object, definition: type) -> tuple[Any, ...]:
    """Return a list of definitions, or of mappings in OpenAI's form, as a tuple.

    Raises:
        LLMInvalidRequestError: It is no such list.
    """
    if isinstance(tools, (list, tuple)):
        several = tuple(cast("Sequence[object]", tools))
        if all(isinstance(tool, definition) or _is_mapping(tool) for tool in several):
            return several
    raise LLMInvalidRequestError("tools is no list of ToolDefinitions or of mappings in OpenAI's form; pass one")


def _checker(*rules: tuple[str, Test, str], within: str = "") -> Callable[[object], None]:
    """Return a function that refuses a thing for the first rule that it breaks by what is given.

    Written as source and compiled: every request comes here, and a loop over the rules takes five times as long.
    """

    def refuse(place: int, value: object) -> None:
        name, _, expected = rules[place]
        raise _refused(f"{within}{name}", value, expected)

    space: dict[str, Any] = {"refuse": refuse} | {f"test{place}": test for place, (_, test, _) in enumerate(rules)}
    lines = [
        f"    if (value := thing.{name}) is not None and not test{place}(value): refuse({place}, value)"
        for place, (name, _, _) in enumerate(rules)
    ]
    exec("\n".join(["def check(thing):", *lines]), space)  # noqa: S102 - of our own names only
    made: Callable[[object], None] = space["check"]
    return made


def _read(name: str, test: Test, expected: str, value: object) -> object:
    if not test(value):
        raise _refused(name, value, expected)
    return value


def _read_extra(extra: object) -> Mapping[str, Any]:
    if not isinstance(extra, Mapping):
        raise _refused("extra", extra, "a mapping of the vendor's fields")
    fields = cast("Mapping[str, Any]", extra)
    for name in fields:
        if name in _OURS:
            raise LLMInvalidRequestError(
                f"extra holds {name!r}; pass {_OURS[name]} instead, which keys, limits and budgets go by"
            )
    return fields


def _read_cache(policy: type, cache: object) -> object:
    if cache is not False and not isinstance(cache, policy):
        raise _refused("cache", cache, "False, a CachePolicy, or None")
    return cache


def _refused(name: str, value: object, expected: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(_told(name, value, expected))


def _told(name: str, value: object, expected: str) -> str:
    # Never what a caller wrote: it may be content. Of a huge number Python writes no digits.
    plain = isinstance(value, (int, float)) and not (isinstance(value, int) and value.bit_length() > _SHOWN_BITS)
    shown = repr(value) if plain or not value else f"a {type(value).__name__}"
    return f"{name} is {shown}; expected {expected}"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_name(value: object) -> bool:
    """Return whether it is a text that logs, metrics and traces can write, which half a character is not."""
    if not isinstance(value, str) or not value:
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_text_or_mapping(value: object) -> bool:
    return _is_text(value) or _is_mapping(value)


def _from_to(low: float, high: float) -> Test:
    return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


_OURS: Final = {
    "model": "model=",
    "stream": "stream=, or call stream_complete()",
    "max_tokens": "max_tokens=",
    "max_completion_tokens": "max_tokens=",
    "max_output_tokens": "max_tokens=",
}
"""Vendor fields that would go around an option of ours."""

_YEAR: Final = 31_536_000
_SHOWN_BITS: Final = 128
_A_MODEL: Final = "a model's name of whole characters, or None for any"
_A_USER: Final = "a tenant's name of whole characters"
_LAYERS: Final = "a list of layers, outermost first"

_OF_WORDS: Final = (
    "temperature", "top_p", "max_tokens", "stop", "seed", "tools", "tool_choice", "response_format", "response_model",
    "reasoning_effort",
)  # fmt: skip
"""Options that have no meaning where vectors are asked for."""

_OPTIONS: Final[tuple[tuple[str, Test, str], ...]] = (
    ("model", _is_name, _A_MODEL),
    ("temperature", _from_to(0, 2), "a number, 0 to 2"),
    ("top_p", _from_to(0, 1), "a number, 0 to 1"),
    ("max_tokens", lambda value: type(value) is int and value > 0, "a whole number of 1 or more"),
    ("seed", _is_whole, "a whole number"),
    ("tool_choice", _is_text_or_mapping, "auto, none, required, a tool's name, or the vendor's mapping"),
    ("response_format", _is_text_or_mapping, "text, json_object, or the vendor's mapping"),
    ("response_model", lambda value: isinstance(value, type), "a pydantic class"),
    ("reasoning_effort", _is_text, "low, medium or high"),
    ("timeout", _from_to(0, _YEAR), "seconds, 0 or more, at most a year (31536000), or None for those configured"),
    ("user", _is_name, _A_USER),
    ("priority", _is_whole, "a whole number; higher goes first"),
    ("metadata", _is_mapping, "a mapping"),
)
"""An option, the test that it passes where it is given, and what to say."""

_check_options: Final = _checker(*_OPTIONS)

_check_policy: Final = _checker(
    ("ttl", _from_to(0, float("inf")), "seconds, 0 or more, or None for those configured"),
    ("refresh", lambda value: isinstance(value, bool), "True or False"),
    ("scope", lambda value: value in ("shared", "user"), "shared, user, or None for the one configured"),
    ("stale_while_revalidate", _from_to(0, float("inf")), "seconds, 0 or more, or None for those configured"),
    ("stale_if_error", _from_to(0, float("inf")), "seconds, 0 or more, or None for those configured"),
    within="CachePolicy.",
)
