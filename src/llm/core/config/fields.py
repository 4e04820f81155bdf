"""The kinds of value that fields hold: strict, limited to their range, and said plainly to editors.

They are used as `fields.Seconds` and the like: pydantic reads annotations when the program runs.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NoReturn
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
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

from .scalars import FromEnvironment, Value, resolve

if TYPE_CHECKING:
    from collections.abc import Callable


_LISTS: tuple[type, ...] = (list, tuple)


class Section(BaseModel):
    """A mapping of the configuration: frozen, and with no field but those that it names."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


@dataclass(frozen=True)
class FromText:
    """The field also takes a `${VARIABLE}` whose text stands for its value."""

    def __get_pydantic_core_schema__(self, source: Value, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Resolve text of the environment before the field's own check."""
        return core_schema.no_info_before_validator_function(_resolved, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Let editors accept the reference beside the value."""
        return {"anyOf": [handler(schema), {"type": "string", "pattern": r"^\$\{.+\}$"}]}


@dataclass(frozen=True)
class OneOrMany:
    """The field takes one value or a list; one value is a list of one, and nothing is an empty list."""

    def __get_pydantic_core_schema__(self, source: Value, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Make a list of what is not one."""
        return core_schema.no_info_before_validator_function(_listed, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Say that either form is right."""
        many = handler(schema)
        return {"anyOf": [many["items"], many, {"type": "null"}]}


@dataclass(frozen=True)
class Defaulted:
    """The section may be there but empty, which means all its defaults."""

    def __get_pydantic_core_schema__(self, source: Value, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Read nothing as an empty mapping."""
        return core_schema.no_info_before_validator_function(_mapping, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Let editors accept the empty section."""
        return {"anyOf": [handler(schema), {"type": "null"}]}


def _resolved(value: Value) -> Value:
    return resolve(value) if isinstance(value, FromEnvironment) else value


def _listed(value: Value) -> Value:
    if value is None:
        return ()
    return value if isinstance(value, _LISTS) else (value,)


def _mapping(value: Value) -> Value:
    return {} if value is None else value


def refuse(why: str) -> NoReturn:
    """Refuse a value; `why` never quotes it, for it may be a secret."""
    kind = "refused"
    raise PydanticCustomError(kind, "{why}", {"why": why})


def _secret(value: Value) -> Secret:
    if isinstance(value, Secret):
        return _usable(value)
    if isinstance(value, str):
        return _usable(Secret(str(value)))
    refuse("expected a key as text; put it in quotes")


def _usable(secret: Secret) -> Secret:
    if not secret.reveal():
        refuse("the key is empty; give one, or take the entry out")
    if not re.fullmatch(r"[!-~]+", secret.reveal()):
        refuse("the key holds a space, a line break or a character outside ASCII, which no HTTP header can carry")
    return secret


def _url_of(*schemes: str) -> Callable[[str], str]:
    def check(url: str) -> str:
        try:
            parts = urlsplit(url)
            whole = parts.scheme in schemes and bool(parts.netloc or parts.scheme == "unix") and parts.port != 0
        except ValueError:
            whole = False
        if not whole or any(character.isspace() for character in url):
            refuse(f"expected a URL that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}")
        return url

    return check


def _origin(origin: str) -> str:
    if not re.fullmatch(r"https?://(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?", origin):
        refuse("expected an exact origin such as https://app.example.org, with no path and no `*`")
    return origin


Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], OneOrMany()]
Switch = Annotated[bool, Strict(), FromText()]
Folder = Annotated[Path, WithJsonSchema({"type": "string"})]
Day = Annotated[dt.date, FromText()]

Count = Annotated[int, Strict(), Field(ge=1), FromText()]
CountOrZero = Annotated[int, Strict(), Field(ge=0), FromText()]
Port = Annotated[int, Strict(), Field(ge=0, le=65535), FromText()]
Positive = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False), FromText()]
PositiveOrZero = Annotated[float, Strict(), Field(ge=0, allow_inf_nan=False), FromText()]
Share = Annotated[float, Strict(), Field(gt=0, le=1), FromText()]
Seconds = Positive
SecondsOrZero = PositiveOrZero
Dollars = PositiveOrZero
Budget = Positive
Weights = tuple[Positive, ...]

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
