"""Which of the providers behind OpenRouter may serve, in which order, and which models when the first cannot.

Source: https://openrouter.ai/docs/guides/routing/provider-selection,
https://openrouter.ai/docs/guides/routing/model-fallbacks
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic_core import core_schema

from . import fields
from .scalars import is_mapping

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

    from .scalars import Value


@dataclass(frozen=True)
class OrJust:
    """The field takes a mapping, or the value alone of its one most used entry.

    Attributes:
        name: That entry.
    """

    name: str

    def __get_pydantic_core_schema__(self, source: Value, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Make a mapping of what is not one."""
        return core_schema.no_info_before_validator_function(self._mapping, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Say that either form is right."""
        whole = handler(schema)
        alone = handler.resolve_ref_schema(whole["anyOf"][0])["properties"][self.name]["anyOf"][0]
        return {"anyOf": [alone, *whole["anyOf"]]}

    def _mapping(self, value: Value) -> Value:
        if value is None or is_mapping(value) or isinstance(value, fields.Section):
            return value
        return {self.name: value}


Quantization = Literal["int4", "int8", "fp4", "fp6", "fp8", "fp16", "bf16", "fp32", "unknown"]


class Sorting(fields.Section):
    """What goes first."""

    by: Literal["price", "throughput", "latency"] | None = Field(default=None, description="What decides.")
    partition: Literal["model", "none"] | None = Field(
        default=None, description="none: endpoints of all the models are sorted together."
    )


class Percentiles(fields.Section):
    """A threshold for each share of the requests of late."""

    p50: fields.Positive | None = Field(default=None, description="For half of them.")
    p75: fields.Positive | None = Field(default=None, description="For 75 of 100.")
    p90: fields.Positive | None = Field(default=None, description="For 90 of 100.")
    p99: fields.Positive | None = Field(default=None, description="For 99 of 100.")


class MostPrice(fields.Section):
    """The most that an answer may cost, in US dollars."""

    prompt: fields.Dollars | None = Field(default=None, description="Per million tokens of prompt.")
    completion: fields.Dollars | None = Field(default=None, description="Per million tokens of answer.")
    request: fields.Dollars | None = Field(default=None, description="Per request.")
    image: fields.Dollars | None = Field(default=None, description="Per image.")
    audio: fields.Dollars | None = Field(default=None, description="Per million tokens of sound.")


class RoutingConfig(fields.Section):
    """OpenRouter's preferences among providers, and the models to fall back on; a call's `extra` goes before them."""

    models: fields.Texts = Field(default=(), description="Models that are tried in turn when the call's own cannot.")
    order: fields.Texts = Field(default=(), description="Providers, in the order in which they are tried.")
    only: fields.Texts = Field(default=(), description="Providers, and no others.")
    ignore: fields.Texts = Field(default=(), description="Providers that are passed over.")
    allow_fallbacks: fields.Switch | None = Field(
        default=None, description="Whether others serve when those of `order` cannot."
    )
    require_parameters: fields.Switch | None = Field(
        default=None, description="Whether only providers serve that take all parameters of a request."
    )
    data_collection: Literal["allow", "deny"] | None = Field(
        default=None, description="deny: no provider that keeps what it is sent."
    )
    zdr: fields.Switch | None = Field(default=None, description="Whether only endpoints serve that retain no data.")
    enforce_distillable_text: fields.Switch | None = Field(
        default=None, description="Whether only models serve whose text may be distilled."
    )
    quantizations: Annotated[tuple[Quantization, ...], fields.OneOrMany()] = Field(
        default=(), description="Precisions of weights that may serve."
    )
    sort: Annotated[Sorting | None, OrJust("by")] = Field(
        default=None, description="What goes first: price, throughput or latency.", examples=["price"]
    )
    preferred_min_throughput: Annotated[Percentiles | None, OrJust("p50")] = Field(
        default=None, description="Tokens per second below which a provider goes last."
    )
    preferred_max_latency: Annotated[Percentiles | None, OrJust("p50")] = Field(
        default=None, description="Seconds to the first token above which a provider goes last."
    )
    max_price: MostPrice | None = Field(default=None, description="The most that an answer may cost.")

    def body(self) -> dict[str, Any]:
        """Return what it adds to the body of every request: `models` and `provider`, where they are stated."""
        stated = self.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        for name, alone in (("sort", "by"), ("preferred_min_throughput", "p50"), ("preferred_max_latency", "p50")):
            if list(stated.get(name, ())) == [alone]:
                stated[name] = stated[name][alone]
        preferences = {name: value for name, value in stated.items() if name != "models" and value != []}
        models = stated.get("models")
        return ({"models": models} if models else {}) | ({"provider": preferences} if preferences else {})
