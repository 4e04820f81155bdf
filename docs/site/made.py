"""Pages that are made: the reference, of docstrings, of the configuration's file, of the gateway's own documents."""

from __future__ import annotations

import json
import re
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import yaml

from llm.gateway.graphql.operations import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Door(NamedTuple):
    """A page of a door, or of a part of it.

    Attributes:
        title: The page's.
        lead: What stands above the names.
        module: The door.
        names: In the page's order, spaces between; none: all.
    """

    title: str
    lead: str
    module: str
    names: str = ""


MEMBERS: Final = {
    "LLMManager": "open get_client get_status health_check explain reload invalidate_cache clear_cache close closed",
    "LLMClient": "chat complete stream_complete request embed count_tokens",
    "LLMStream": "response partials aclose begin",
    "Middleware": "__call__",
}
"""Of classes that nobody makes with their constructor: what is for those who read the reference."""
DOORS: Final = {
    "client": Door(
        "Managers and clients",
        "A manager owns keys, limits, cache and connections; a client is the cheap handle that calls are made with.",
        "llm",
        "get_llm_manager close_llm_manager LLMManager LLMClient LLMStream LLMConfig Admission HealthStatus "
        "TokenStats LLMProvider __version__",
    ),
    "values": Door(
        "Requests and answers",
        "All of these are frozen; change one with `dataclasses.replace`.",
        "llm",
        "LLMRequest CachePolicy Message MessageRole Part TextPart ImagePart DocumentPart AudioPart "
        "ThinkingPart VendorPart CachePoint ToolDefinition ToolCall LLMResponse Choice TokenLogprob "
        "StreamChunk ToolCallDelta TokenUsage EmbeddingResponse",
    ),
    "exceptions": Door(
        "Exceptions",
        "What to do for each stands in [Running it](../operations.md#what-to-do-for-each-exception).",
        "llm",
        "LLMException LLMProviderError LLMInvalidRequestError LLMContextLengthError LLMContentFilterError "
        "LLMQuotaExceededError LLMOverloadedError LLMServerError LLMConnectionError LLMStreamInterruptedError "
        "LLMRateLimitError LLMAuthenticationError LLMTimeoutError LLMPoolExhaustedError LLMCircuitOpenError "
        "LLMValidationError LLMConfigurationError ConfigProblem",
    ),
    "extending": Door(
        "Layers and providers of your own",
        "What a layer of the chain and a provider must have. [Providers](../providers.md) has one in forty lines, "
        "[How a call goes](../chain.md#a-layer-of-your-own) a layer.",
        "llm",
        "Middleware CallNext LLMResult Provider ProviderSettings register_provider",
    ),
    "batch": Door("llm.batch", "[Batches](../batch.md) shows how to use it.", "llm.batch"),
    "cache": Door("llm.cache", "[The cache](../cache.md) shows how to use it.", "llm.cache"),
    "middleware": Door("llm.middleware", "The layers of the [chain](../chain.md).", "llm.middleware"),
    "progress": Door("llm.progress", "[Progress](../progress.md) shows how to use it.", "llm.progress"),
    "providers": Door("llm.providers", "[Providers](../providers.md) shows how to use it.", "llm.providers"),
    "local": Door("llm.providers.local", "[A model on the box](../local.md) shows it.", "llm.providers.local"),
    "sync": Door("llm.sync", "[Without a loop of your own](../blocking.md) shows how to use it.", "llm.sync"),
    "testing": Door("llm.testing", "[Testing](../testing.md) shows how to use it.", "llm.testing"),
}


def made(root: Path) -> Iterator[tuple[str, str]]:
    """Give the place on the site and the text of each page and file that is made.

    Raises:
        LookupError: A door has names that stand on none of its pages, or the other way round.
    """
    _all_told()
    for name, door in DOORS.items():
        yield f"reference/{name}.md", _door(door)
    yield "reference/configuration.md", _configuration((root / "config" / "llm.yaml").read_text(encoding="utf-8"))
    yield "reference/llm.schema.json", (root / "config" / "llm.schema.json").read_text(encoding="utf-8")
    document = yaml.safe_load((root / "src/llm/gateway/pages/openapi.yaml").read_text(encoding="utf-8"))
    yield "reference/routes.md", _routes(document)
    yield "reference/openapi.json", json.dumps(document, indent=2, ensure_ascii=False)
    yield "reference/graphql.md", _GRAPHQL.format(schema=SCHEMA.as_str())


def _names(door: Door) -> tuple[str, ...]:
    return tuple(door.names.split()) or tuple(import_module(door.module).__all__)


def _all_told() -> None:
    told = sorted(name for door in DOORS.values() if door.module == "llm" for name in door.names.split())
    there = sorted(import_module("llm").__all__)
    if told != there:
        raise LookupError(f"docs/site/made.py and llm.__all__ differ in {sorted({*told} ^ {*there})}")


def _door(door: Door) -> str:
    imported = ", ".join(_names(door)[:3]) + (", …" if len(_names(door)) > 3 else "")  # noqa: PLR2004 - as many as fit
    entries = "\n".join(f"::: {door.module}.{name}\n{_options(name)}" for name in _names(door))
    return f"# {door.title}\n\n{door.lead}\n\n`from {door.module} import {imported}`\n\n{entries}"


def _options(name: str) -> str:
    if name not in MEMBERS:
        return ""
    chosen = {"members": MEMBERS[name].split(), "merge_init_into_class": False}
    return f"    options: {json.dumps(chosen)}\n"


def _configuration(text: str) -> str:
    # A section begins with the comment above its key, which may itself be a comment: providers are an example.
    opened = re.split(r"\n(?=(?:#.*\n)*(?:# )?[a-z_]+:)", "\n" + text)
    parts = [(re.search(r"^(?:# )?([a-z_]+):", part, re.MULTILINE), part) for part in opened]
    sections = "\n".join(f"## `{key[1]}`\n\n```yaml\n{part.strip()}\n```\n" for key, part in parts if key)
    return _CONFIGURATION + sections


def _routes(document: Any) -> str:  # noqa: ANN401 - JSON
    rows = [
        f"| `{method.upper()} {path}` | {route['summary']} | {'no' if route.get('security') == [] else 'yes'} |"
        for path, methods in document["paths"].items()
        for method, route in methods.items()
    ]
    texts = [
        f"## `{method.upper()} {path}`\n\n{route['summary']}.\n\n{_told(route)}{_body(route, document)}"
        for path, methods in document["paths"].items()
        for method, route in methods.items()
    ]
    return _ROUTES.format(rows="\n".join(rows)) + "\n".join(texts)


def _told(route: Any) -> str:  # noqa: ANN401 - JSON
    return f"{route['description']}\n" if "description" in route else ""


def _body(route: Any, document: Any) -> str:  # noqa: ANN401 - JSON
    content = route.get("requestBody", {}).get("content", {}).get("application/json")
    if not content:
        return ""
    schema = _resolved(content["schema"], document)
    required = schema.get("required", [])
    rows = [
        f"| `{name}` | {_kind(field, document)} | {'yes' if name in required else ''} | {_about(field, document)} |"
        for name, field in schema.get("properties", {}).items()
    ]
    return "\n".join(["| field | type | needed | |", "| --- | --- | --- | --- |", *rows, ""])


def _resolved(schema: Any, document: Any) -> Any:  # noqa: ANN401 - JSON
    reference = schema.get("$ref")
    return document["components"]["schemas"][reference.rpartition("/")[2]] if reference else schema


def _kind(schema: Any, document: Any) -> str:  # noqa: ANN401 - JSON
    schema = _resolved(schema, document)
    if choices := schema.get("oneOf") or schema.get("anyOf"):
        return " or ".join(dict.fromkeys(_kind(choice, document) for choice in choices))
    kind: str | list[str] = schema.get("type", "any")
    return kind if isinstance(kind, str) else " or ".join(kind)


def _about(schema: Any, document: Any) -> str:  # noqa: ANN401 - JSON
    return " ".join((schema.get("description") or _resolved(schema, document).get("description", "")).split())


_CONFIGURATION: Final = """# `llm.yaml`

Every field with its default, as it stands in `config/llm.yaml`. A field that is left out means the same. Editors
complete and check it by its [JSON Schema](llm.schema.json), which `manifold config schema` prints as well;
`manifold config check` tells every mistake with its line.

The first that exists is read: the argument of `get_llm_manager()`, `$LLM_CONFIG`, `config/llm.yaml`, `llm.yaml`. A
value may hold `${VARIABLE}`, `${VARIABLE:-default}` or `${file:/path/to/secret}`. Any field can be set from outside:
`LLM__RETRY__MAX_ATTEMPTS=2` is `retry.max_attempts`.

"""

_ROUTES: Final = """# HTTP routes

What `manifold serve` answers, made of its [OpenAPI document](openapi.json), which it also serves, with pages to try it
at `/docs` and `/redoc`. [The gateway](../gateway.md) has a command for each route.

| route | what it does | needs a key, where there are keys |
| --- | --- | --- |
{rows}

"""

_GRAPHQL: Final = """# GraphQL

What `/graphql` takes, over HTTP and as `graphql-transport-ws`. [The gateway](../gateway.md) shows it in use.

```graphql
{schema}
```
"""
