"""The dashboard's page: one document with its style and its script in it, and no data.

It loads nothing, so no address beside its own has to be open to whoever has no key yet; and its policy names the two
parts by their hashes, so nothing else can run in it.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from llm.providers.endpoints.inquiry import Header

_POLICY: Final = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


class Shell(NamedTuple):
    """The page as it is sent.

    Attributes:
        body: Its bytes.
        policy: The content security policy that fits them.
    """

    body: bytes
    policy: Header


@cache
def shell() -> Shell:
    """Return the page; does I/O the first time."""
    folder = files("llm.gateway.pages").joinpath("dashboard")
    text, style, script = (
        folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.html", "style.css", "script.js")
    )
    policy = _POLICY.format(script=_hash(script), style=_hash(style))
    body = text.replace("/* style.css */", style).replace("/* script.js */", script)
    return Shell(body.encode(), (b"content-security-policy", policy.encode()))


def _hash(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
