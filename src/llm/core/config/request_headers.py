"""Headers of one's own that go with every request to a provider."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, PlainSerializer, PlainValidator, WithJsonSchema

from llm.utils.redact import MASK, Secret, looks_secret

from .fields import refuse

if TYPE_CHECKING:
    from .scalars import Value

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""Source: RFC 9110, section 5.1."""

_KEYS: Final = frozenset({"authorization", "proxy-authorization", "x-api-key"})
_OURS: Final = frozenset(
    {"accept", "accept-encoding", "connection", "content-length", "content-type", "host", "transfer-encoding"}
)


def _name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        refuse("expected a header's name: letters, digits and `-`")
    if name.lower() in _KEYS:
        refuse("this header carries the key, which belongs under api_keys")
    if name.lower() in _OURS:
        refuse("this header is written for every request already; take it out")
    return name


def _text(value: Value) -> Secret | str:
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        refuse("expected text; put it in quotes")
    text = str(value)
    if not (text.isascii() and text.isprintable() and text and text == text.strip()):
        refuse("expected printable ASCII without line ends, and without blanks around it")
    return text


def _sealed(headers: dict[str, Secret | str]) -> dict[str, Secret | str]:
    if len({name.lower() for name in headers}) < len(headers):
        refuse("one header stands here twice, for capitals make no difference; keep one of them")
    return {name: _seal(name, value) for name, value in headers.items()}


def _seal(name: str, value: Secret | str) -> Secret | str:
    return Secret(value) if isinstance(value, str) and looks_secret(name, value) else value


_Text = Annotated[
    Secret | str,
    PlainValidator(_text),
    PlainSerializer(lambda value: MASK if isinstance(value, Secret) else value, return_type=str),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
Headers = Annotated[dict[Annotated[str, AfterValidator(_name)], _Text], AfterValidator(_sealed)]
"""Values by name; one that looks like a secret is kept as one."""
