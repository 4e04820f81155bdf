"""The OpenAPI document, and the pages that draw it."""

from __future__ import annotations

import importlib.util
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it comes with the one above
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry, Resource

from llm.core.exceptions import LLMInvalidRequestError
from llm.gateway.entry import ROUTES
from llm.gateway.pages import files
from llm.testing import MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Serving = Callable[..., Any]

DOCUMENT: dict[str, Any] = json.loads(files.document().body)


def asked() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, schema and body of each example of a request."""
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in content.get("examples", {}).values():
                yield path, content["schema"]["$ref"], example["value"]


def check(schema: dict[str, Any], value: object) -> None:
    whole: Any = Resource.from_contents({"$schema": "https://json-schema.org/draft/2020-12/schema", **DOCUMENT})
    empty: Any = Registry
    registry = empty().with_resource("urn:document", whole)
    bound = json.loads(json.dumps(schema).replace('"#/', '"urn:document#/'))
    validator: Any = Draft202012Validator(bound, registry=registry)
    validator.validate(value)


def test_the_document_is_valid() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_no_description_ends_at_its_first_comma() -> None:
    """As one does that has no quotes between `{` and `}`: what follows is then a name without a value."""
    assert re.findall(r'"([^"]+ [^"]*)": null', json.dumps(DOCUMENT)) == []


def test_the_document_has_every_route_with_an_example() -> None:
    there = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    pages = {("GET", path) for path in ("/docs", "/redoc", "/openapi.json")}
    bare = {route for route in ROUTES if not route[1].startswith(files.ASSETS)} - pages
    assert there == bare | {("GET", "/v1/models/{model}"), ("POST", "/graphql")}
    assert {path for path, _, _ in asked()} == {path for method, path in there if method == "POST"}


@pytest.mark.parametrize(("path", "schema", "body"), list(asked()))
async def test_an_example_of_a_request_is_answered_as_the_document_says(
    serving: Serving, path: str, schema: str, body: dict[str, Any]
) -> None:
    models = ["gpt-4o-mini", "claude-haiku-4-5", "text-embedding-3-small"]
    check({"$ref": schema}, body)
    async with MockUpstream() as up, serving(up, section={"models": models}) as it:
        status, told, _ = await it.ask("POST", path, body)
        wrong = await it.ask("POST", path, {"stream": 1})
    assert status == 200
    assert "errors" not in told
    answers = DOCUMENT["paths"][path]["post"]["responses"]
    if not isinstance(told, str):
        check(answers["200"]["content"]["application/json"]["schema"], told)
    failed = DOCUMENT["components"]["responses"][answers["default"]["$ref"].rpartition("/")[2]]
    assert wrong[0] == (200 if path == "/graphql" else 400)  # which tells of failures in the body
    check(failed["content"]["application/json"]["schema"], wrong[1])


async def test_what_is_read_is_as_the_document_says(serving: Serving) -> None:
    async with serving() as it:
        for path in ("/v1/models", "/v1/models/{model}", "/v1/health", "/livez", "/readyz"):
            answers = DOCUMENT["paths"][path]["get"]["responses"]["200"]
            if "$ref" in answers:
                answers = DOCUMENT["components"]["responses"][answers["$ref"].rpartition("/")[2]]
            for headers in ({}, {"anthropic-version": "2023-06-01"}):
                status, told, _ = await it.ask("GET", path.replace("{model}", "gpt-4o-mini"), headers=headers)
                assert status == 200
                check(answers["content"]["application/json"]["schema"], told)


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_a_page_loads_what_the_gateway_has_and_nothing_else(serving: Serving, path: str) -> None:
    async with serving() as it:
        status, page, headers = await it.ask("GET", path)
        loads = re.findall(r'(?:src|href)="([^"]+)"', page)
        for address in loads:
            assert address.startswith("/")
            async with it.session.get(it.url + address) as loaded:
                assert loaded.status == 200
                assert loaded.headers["x-content-type-options"] == "nosniff"
                assert len(await loaded.read()) > 50
    assert status == 200
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "<script>" not in page
    assert f"{files.ASSETS}{path.strip('/')}.js" in loads


def test_without_their_package_the_scripts_are_a_404(monkeypatch: pytest.MonkeyPatch) -> None:
    files.asset.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", dict[str, Any]().get)
    with pytest.raises(LLMInvalidRequestError, match=r"llm-manifold\[gateway\]") as refused:
        files.asset("swagger-ui.css")
    assert refused.value.status == 404
    assert files.asset("docs.js").body
