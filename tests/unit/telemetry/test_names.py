from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, Final

import pytest

from llm.core import kinds
from llm.telemetry import names

# By their paths, for what has moved elsewhere is marked as deprecated there.
PUBLISHED: Final = [
    import_module(f"opentelemetry.semconv.{path}")
    for path in (
        "_incubating.attributes.gen_ai_attributes",
        "_incubating.attributes.http_attributes",
        "_incubating.metrics.gen_ai_metrics",
        "attributes.error_attributes",
        "attributes.exception_attributes",
        "attributes.server_attributes",
    )
]
SCHEMAS: Final[Any] = import_module("opentelemetry.semconv.schemas")
VALUES = {
    value for module in PUBLISHED for name, value in vars(module).items() if name.isupper() and isinstance(value, str)
}
# That package has no names of events.
# Source: https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-events.md
EVENTS: Final = {"gen_ai.client.inference.operation.details"}
OURS = {name: value for name, value in vars(names).items() if name.isupper() and isinstance(value, str)}


@pytest.mark.parametrize("name", sorted(name for name, value in OURS.items() if value.count(".") and "//" not in value))
def test_a_name_is_published_or_marked_as_ours(name: str) -> None:
    value = OURS[name]
    assert value in VALUES | EVENTS or value.startswith("llm."), f"{value} is neither"


def words(enum: str) -> set[str]:
    return {member.value for member in getattr(PUBLISHED[0], enum)}


def test_the_words_are_those_of_the_conventions() -> None:
    assert {names.OPERATION_CHAT, names.OPERATION_EMBEDDINGS} <= words("GenAiOperationNameValues")
    assert {names.OUTPUT_JSON, names.OUTPUT_TEXT} <= words("GenAiOutputTypeValues")
    assert {names.TOKENS_INPUT, names.TOKENS_OUTPUT} <= words("GenAiTokenTypeValues")
    assert names.SCHEMA_URL in {schema.value for schema in SCHEMAS.Schemas}


def test_providers_that_have_a_name_there_go_by_it() -> None:
    published = words("GenAiProviderNameValues")
    assert set(names.PROVIDERS.values()) <= published
    assert set(names.PROVIDERS) <= {*kinds.ALL, "azure", "bedrock", "vertex"}
    known = {kind for kind in kinds.ALL if names.PROVIDERS.get(kind, kind) in published}
    assert known == {"openai", "anthropic", "deepseek", "gemini", "groq", "mistral", "xai"}


def test_no_name_is_there_twice() -> None:
    shared = {names.COST, names.QUEUE_WAIT}  # of spans and of metrics
    values = [value for value in OURS.values() if value not in shared]
    assert len(values) == len(set(values))
    assert inspect.getdoc(names)
