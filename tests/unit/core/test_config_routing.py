"""What a section says about OpenRouter, and the headers that any section may add."""

# ruff: noqa: ANN401 - options and JSON as they come
from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from llm.core.config import config_schema, load_config
from llm.core.exceptions import LLMConfigurationError
from llm.utils.redact import Secret

if TYPE_CHECKING:
    from pathlib import Path

    from llm.core.config import ProviderConfig


def section(type_: str = "openrouter", **fields: Any) -> ProviderConfig:
    config = load_config(
        {"providers": {"p": {"type": type_, "api_keys": "k", "models": "m", **fields}}}, environ={"TITLE": "App"}
    )
    return config.providers["p"]


def test_without_it_nothing_is_added() -> None:
    of = section()
    assert (of.routing, of.on_unsupported, of.models_ttl, of.headers) == (None, "drop", 3600.0, {})


def test_everything_that_the_vendor_documents_is_passed_on_as_the_vendor_has_it() -> None:
    routing = {
        "models": ["b", "c"],
        "order": ["deepinfra"],
        "only": ["deepinfra", "together"],
        "ignore": ["x"],
        "allow_fallbacks": False,
        "require_parameters": True,
        "data_collection": "deny",
        "zdr": True,
        "enforce_distillable_text": True,
        "quantizations": ["fp8", "bf16"],
        "sort": {"by": "price", "partition": "none"},
        "preferred_min_throughput": {"p50": 50.0, "p90": 20.0},
        "preferred_max_latency": {"p99": 3.0},
        "max_price": {"prompt": 1.0, "completion": 2.0, "request": 0.0, "image": 0.0, "audio": 0.0},
    }
    of = section(routing=routing).routing
    assert of is not None
    assert of.body() == {"models": routing.pop("models"), "provider": routing}
    again = section(routing=of).routing  # as reload takes it
    assert again == of


def test_the_short_forms_mean_the_same() -> None:
    of = section(
        routing={"order": "a", "sort": "latency", "preferred_min_throughput": 50, "preferred_max_latency": {"p50": 2}}
    ).routing
    assert of is not None
    assert of.body() == {
        "provider": {"order": ["a"], "sort": "latency", "preferred_min_throughput": 50.0, "preferred_max_latency": 2.0}
    }


@pytest.mark.parametrize("routing", [{}, {"sort": None, "order": [], "models": None, "max_price": None}])
def test_what_is_empty_says_nothing(routing: dict[str, Any]) -> None:
    of = section(routing=routing).routing
    assert of is not None
    assert of.body() == {}


LINES = "providers:\n  openrouter:\n    api_keys: k\n    models: m\n    "


@pytest.mark.parametrize(
    ("text", "line", "column", "field", "message"),
    [
        ("on_unsupported: ignore", 5, 21, "on_unsupported", "expected 'drop' or 'refuse'"),
        ("models_ttl: 0", 5, 17, "models_ttl", "expected a number above 0"),
        ("routing: price", 5, 14, "routing", "expected a mapping, found text"),
        ("routing: {oder: [a]}", 5, 15, "routing.oder", 'did you mean "order"?'),
        ("routing: {order: [1]}", 5, 23, "routing.order[0]", "expected text"),
        ("routing: {sort: cheap}", 5, 21, "routing.sort.by", "expected 'price', 'throughput' or 'latency'"),
        ("routing: {sort: {by: price, partition: all}}", 5, 44, "routing.sort.partition", "'model' or 'none'"),
        ("routing: {data_collection: no}", 5, 32, "routing.data_collection", "expected 'allow' or 'deny'"),
        ("routing: {quantizations: [fp7]}", 5, 31, "routing.quantizations[0]", 'did you mean "fp'),
        ("routing: {zdr: 1}", 5, 20, "routing.zdr", "expected true or false"),
        ("routing: {max_price: {promt: 1}}", 5, 27, "routing.max_price.promt", 'did you mean "prompt"?'),
        ("routing: {max_price: {prompt: -1}}", 5, 35, "routing.max_price.prompt", "at least 0"),
        ("routing: {preferred_max_latency: {p95: 1}}", 5, 39, "routing.preferred_max_latency.p95", "unknown field"),
        ("routing: {preferred_max_latency: 0}", 5, 38, "routing.preferred_max_latency.p50", "a number above 0"),
        ("headers: {Authorization: x}", 5, 15, "headers.Authorization", "belongs under api_keys"),
        ("headers: {X-Api-Key: x}", 5, 15, "headers.X-Api-Key", "belongs under api_keys"),
        ("headers: {Content-Type: x}", 5, 15, "headers.Content-Type", "is written for every request already"),
        ("headers: {X Title: x}", 5, 15, "headers.X Title", "expected a header's name"),
        ('headers: {X-Title: "a\\r\\nX-Evil: b"}', 5, 24, "headers.X-Title", "printable ASCII without line ends"),
        ('headers: {X-Title: " a"}', 5, 24, "headers.X-Title", "without blanks around it"),
        ('headers: {X-Title: ""}', 5, 24, "headers.X-Title", "printable ASCII"),
        ("headers: {X-Title: ä}", 5, 24, "headers.X-Title", "printable ASCII"),
        ("headers: {X-Version: 1}", 5, 26, "headers.X-Version", "expected text; put it in quotes"),
        ("headers: {X-Title: a, x-title: b}", 5, 14, "headers", "one header stands here twice"),
    ],
)
def test_a_mistake_is_told_with_its_place(  # noqa: PLR0913, PLR0917 - a mistake's columns
    tmp_path: Path, text: str, line: int, column: int, field: str, message: str
) -> None:
    file = tmp_path / "llm.yaml"
    file.write_text(LINES + text, encoding="utf-8")
    with pytest.raises(LLMConfigurationError) as caught:
        load_config(file, environ={})
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.field) == (line, column, f"providers.openrouter.{field}")
    assert message in problem.message


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("openai", "routing", {}),
        ("anthropic", "on_unsupported", "drop"),
        ("local", "models_ttl", 60),
        ("local", "headers", {}),
        ("groq", "routing", {}),
    ],
)
def test_what_a_kind_of_provider_has_no_use_for_is_refused(kind: str, field: str, value: object) -> None:
    with pytest.raises(LLMConfigurationError) as caught:
        section(kind, **{field: value})
    (problem,) = caught.value.problems
    assert problem.field == f"providers.p.{field}"
    assert f"`type: {kind}` has no use for it; it is for" in problem.message


def test_a_registered_kind_may_know_all_of_it() -> None:
    of = section("mine", headers={"X-A": "b"}, routing={"sort": "price"}, on_unsupported="refuse", models_ttl=1)
    assert of.on_unsupported == "refuse"


def test_headers_are_text_from_anywhere_and_secrets_where_they_look_like_one() -> None:
    headers = {
        "HTTP-Referer": "https://app.example.org",
        "X-Title": "${TITLE}",
        "X-Tenant-Token": "planted",
        "X-Plain": "Bearer planted-0123",
        "X-Sealed": Secret("planted"),
    }
    of = section(headers=headers)
    assert of.headers["X-Title"] == "App"
    assert {name for name, value in of.headers.items() if isinstance(value, Secret)} == {
        "X-Tenant-Token", "X-Plain", "X-Sealed",
    }  # fmt: skip
    shown = [repr(of), str(vars(of)), repr(list(of)), of.model_dump_json(), repr(of.model_dump())]
    assert [text for text in shown if "planted" in text] == []
    openai = {"type": "openai", "base_url": "http://h", "models": "m", "headers": headers}
    masked = load_config({"providers": {"p": openai}}, environ={"TITLE": "App"}).masked()["providers"]["p"]["headers"]
    assert masked["HTTP-Referer"] == "https://app.example.org"
    assert masked["X-Tenant-Token"] == "**********"
    assert "planted" not in json.dumps(masked)


def test_editors_are_offered_both_forms() -> None:
    sort = config_schema()["$defs"]["RoutingConfig"]["properties"]["sort"]
    assert sort["anyOf"][0]["enum"] == ["price", "throughput", "latency"]
    assert {"$ref": "#/$defs/Sorting"} in sort["anyOf"]
