"""What the pages are made of: the document of the routes, two pages that draw it, and the scripts they need.

The scripts come with the package `fastapi-offline`, of which nothing but its files is used, so the pages need no other
host and allow none.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
import yaml

from llm.core.exceptions import LLMInvalidRequestError
from llm.utils.distribution import __version__

ASSETS: Final = "/docs/assets/"
_SCRIPT: Final = "text/javascript; charset=utf-8"
_BUNDLED: Final = {
    "swagger-ui-bundle.js": _SCRIPT,
    "swagger-ui.css": "text/css; charset=utf-8",
    "redoc.standalone.js": _SCRIPT,
    "favicon.png": "image/png",
}
_OWN: Final = {
    "docs.js": (
        'SwaggerUIBundle({url: "/openapi.json", dom_id: "#page", deepLinking: true, persistAuthorization: false, '
        "presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset]});\n"
    ),
    "redoc.js": 'Redoc.init("/openapi.json", {disableSearch: false}, document.getElementById("page"));\n',
}
NAMES: Final = (*_BUNDLED, *_OWN)
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>llm-manifold gateway</title>
<link rel="icon" href="{assets}favicon.png">
{head}
</head>
<body>
<div id="page"></div>
<noscript>This page needs JavaScript; <a href="/openapi.json">/openapi.json</a> does not.</noscript>
{scripts}
</body>
</html>
"""


class File(NamedTuple):
    """What is sent.

    Attributes:
        body: Its bytes.
        kind: Its content type.
    """

    body: bytes
    kind: str


@cache
def document() -> File:
    """Return the OpenAPI document; does I/O the first time."""
    text = files("llm.gateway.pages").joinpath("openapi.yaml").read_text(encoding="utf-8")
    told: dict[str, Any] = yaml.safe_load(text)
    told["info"]["version"] = __version__
    return File(orjson.dumps(told), "application/json")


@cache
def page(name: str) -> File:
    """Return the page that Swagger UI (`docs`) or Redoc (`redoc`) draws."""
    if name == "docs":
        head = f'<link rel="stylesheet" href="{ASSETS}swagger-ui.css">'
        scripts = ("swagger-ui-bundle.js", "docs.js")
    else:
        head, scripts = "", ("redoc.standalone.js", "redoc.js")
    loads = "\n".join(f'<script src="{ASSETS}{script}"></script>' for script in scripts)
    text = _PAGE.format(assets=ASSETS, head=head, scripts=loads)
    return File(text.encode(), "text/html; charset=utf-8")


@cache
def asset(name: str) -> File:
    """Return what a page loads, one of `NAMES`; does I/O the first time.

    Raises:
        LLMInvalidRequestError: The package that has it is not installed; status 404.
    """
    if name in _OWN:
        return File(_OWN[name].encode(), _SCRIPT)
    package = importlib.util.find_spec("fastapi_offline")
    folders = [] if package is None else package.submodule_search_locations or []
    for folder in folders:
        return File(Path(folder, "static", name).read_bytes(), _BUNDLED[name])
    raise LLMInvalidRequestError(
        "the scripts of this page are not installed; type: pip install 'llm-manifold[gateway]'", status=404
    )
