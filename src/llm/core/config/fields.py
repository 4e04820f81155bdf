"""The kinds of value that fields hold: strict, limited to their range, and said plainly to editors.

They are used as `fields.Seconds` and the like: pydantic reads annotations when the program runs.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    Strict,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from llm.utils.redact import MASK, Secret

from .scalars import FromEnvironment, resolve


class Section(BaseModel):
    """A mapping of the configuration: frozen, and with no field but those that it names."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


@dataclass(frozen=True)
class FromText:
    """The field also takes a `${VARIABLE}` whose text stands for its value."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Resolve text of the environment before the field's own check."""
        return core_schema.no_info_before_validator_function(_resolved, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Let editors accept the reference beside the value."""
        return {"anyOf": [handler(schema), {"type": "string", "pattern": r"^\$\{.+\}$"}]}


@dataclass(frozen=True)
class OneOrMany:
    """The field takes one value or a list; one value is a list of one, and nothing is an empty list."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Make a list of what is not one."""
        return core_schema.no_info_before_validator_function(_listed, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Say that either form is right."""
        many = handler(schema)
        return {"anyOf": [many["items"], many, {"type": "null"}]}


def _resolved(value: Any) -> Any:
    return resolve(value) if isinstance(value, FromEnvironment) else value


def _listed(value: Any) -> Any:
    if value is None:
        return ()
    return value if isinstance(value, (list, tuple)) else (value,)


def _empty_if_none(value: Any) -> Any:
    return {} if value is None else value


def refused(why: str) -> PydanticCustomError:
    """Return the error for a value that cannot be; `why` never quotes it, for it may be a secret."""
    return PydanticCustomError("refused", "{why}", {"why": why})


def _secret(value: Any) -> Secret:
    if isinstance(value, Secret):
        return _usable(value)
    if isinstance(value, str):
        return _usable(Secret(str(value)))
    raise refused("expected a key as text; put it in quotes")


def _usable(secret: Secret) -> Secret:
    if not secret.reveal():
        raise refused("the key is empty; give one, or take the entry out")
    if not re.fullmatch(r"[!-~]+", secret.reveal()):
        raise refused(
            "the key holds a space, a line break or a character outside ASCII, which no HTTP header can carry"
        )
    return secret


def _url_of(*schemes: str) -> Callable[[str], str]:
    def check(url: str) -> str:
        try:
            parts = urlsplit(url)
            whole = parts.scheme in schemes and bool(parts.netloc or parts.scheme == "unix") and parts.port != 0
        except ValueError:
            whole = False
        if not whole or any(character.isspace() for character in url):
            raise refused(f"expected a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return url

    return check


def _origin(origin: str) -> str:
    if not re.fullmatch(r"https?://(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?", origin):
        raise refused("expected an exact origin such as https://app.example.org, with no path and no `*`")
    return origin


Whole = Annotated[int, Strict(), FromText()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False), FromText()]
Switch = Annotated[bool, Strict(), FromText()]
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], OneOrMany()]
Folder = Annotated[Path, WithJsonSchema({"type": "string"})]
Day = Annotated[datetime.date, FromText()]

Count = Annotated[Whole, Field(ge=1)]
CountOrZero = Annotated[Whole, Field(ge=0)]
Port = Annotated[Whole, Field(ge=0, le=65535)]
Seconds = Annotated[Number, Field(gt=0)]
SecondsOrZero = Annotated[Number, Field(ge=0)]
Dollars = Annotated[Number, Field(ge=0)]
Budget = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(gt=0, le=1)]
Weights = tuple[Annotated[Number, Field(gt=0)], ...]

Key = Annotated[
    Secret,
    PlainValidator(_secret),
    PlainSerializer(lambda _: MASK, return_type=str),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
Keys = Annotated[tuple[Key, ...], OneOrMany()]
HTTPAddress = Annotated[Text, AfterValidator(_url_of("http", "https"))]
RedisAddress = Annotated[Text, AfterValidator(_url_of("redis", "rediss", "unix"))]
Origins = tuple[Annotated[Text, AfterValidator(_origin)], ...]

Defaulted = BeforeValidator(_empty_if_none)
"""For a section that is there but empty: all its defaults."""
