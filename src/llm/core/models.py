"""What is known of a model before it is asked: its price and its context window.

The figures are the `genai-prices` package's, which comes with them; nothing is fetched. It takes a quarter of a second
to load, so it is loaded when the first model is looked up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, cast

from .types import LLMProvider

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from decimal import Decimal

    from genai_prices.types import ModelPrice, TieredPrices

    from .types import TokenUsage

_MILLION: Final = 1_000_000
_FROM_THE_FIRST: Final = -1  # tokens of prompt: the rate that holds below all tiers
_MOST_MODELS: Final = 4096  # remembered; a name comes from a caller, so it must be bounded

_PRICED_AS: Final = {"gemini": "google", "xai": "x-ai"}
"""Kinds of provider whose prices stand under another name."""

_BATCH: Final = {"processing": "batch"}
"""How `genai-prices` names what is asked through a vendor's batch API."""

_WITHOUT_SCHEMA: Final = re.compile(
    r"gpt-3\.5|gpt-4(?:-|$)|gpt-4o-2024-05-13|chatgpt-4o|o1-(?:mini|preview)|davinci|babbage"
    r"|claude-(?:v?[123](?:[.-]|$)|instant)|claude-(?:opus|sonnet)-4-(?:[01](?:-|$)|2025)"
)


_FOR_VECTORS: Final = re.compile(
    r"embed|sentence-|all-(?:minilm|mpnet)|paraphrase-(?:multilingual-)?(?:minilm|mpnet)|labse"
    r"|(?:^|[/_-])(?:bge|e5|gte|gtr|voyage)-(?!rerank)"
)
"""Words in the names of models for embeddings, and the families whose names have none."""


def holds_to_schema(model: str) -> bool:
    """Return whether the model's vendor holds its answers to a JSON Schema; True where nothing else is known.

    Source: https://platform.openai.com/docs/guides/structured-outputs and
    https://platform.claude.com/docs/en/build-with-claude/structured-outputs
    """
    return _WITHOUT_SCHEMA.match(model.rpartition("/")[2]) is None


def makes_vectors(model: str) -> bool:
    """Return whether a model is one for embeddings: by its name, in which nearly all say so."""
    return _FOR_VECTORS.search(model.lower()) is not None


class StatedPrice(Protocol):
    """A price of the configuration's `prices:`, in US dollars per million tokens."""

    @property
    def input(self) -> float:
        """Of the prompt."""
        ...

    @property
    def output(self) -> float:
        """Of the answer."""
        ...

    @property
    def cached_input(self) -> float | None:
        """Of the prompt's tokens that the provider had cached; None: as `input`."""
        ...


@dataclass(frozen=True, slots=True)
class Rates:
    """What a model costs, in US dollars per token.

    Attributes:
        input: A token of the prompt.
        output: A token of the answer.
        cached_input: A token of the prompt that the provider had cached.
        reasoning: A token of the answer that was a thought.
        above: Rates of long prompts, the longest first: where the prompt has more tokens than this, all cost so.
    """

    input: float
    output: float
    cached_input: float
    reasoning: float
    above: tuple[tuple[int, Rates], ...] = ()

    def cost(self, usage: TokenUsage) -> float:
        """Return the US dollars of an answer."""
        for start, rates in self.above:
            if usage.input_tokens > start:
                return rates.cost(usage)
        read, cached = usage.input_tokens, usage.cached_input_tokens
        written, thoughts = usage.output_tokens, usage.reasoning_tokens
        if cached > read or thoughts > written:  # parts are no more than the whole: no answer earns money
            cached, thoughts = min(cached, read), min(thoughts, written)
        prompt = (read - cached) * self.input + cached * self.cached_input
        return prompt + (written - thoughts) * self.output + thoughts * self.reasoning


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model.

    Attributes:
        rates: Its price; None where unknown.
        context_window: Most tokens of prompt and answer; None where unknown.
    """

    rates: Rates | None = None
    context_window: int | None = None


_UNKNOWN: Final = ModelFacts()
_FREE: Final = ModelFacts(Rates(0.0, 0.0, 0.0, 0.0))


class PriceBook:
    """Prices and context windows, by kind of provider and model.

    What it costs to write to a provider's prompt cache is not in a `TokenUsage`, so it is counted as plain input:
    Anthropic charges a quarter more for those tokens.
    """

    def __init__(
        self, overrides: Mapping[str, StatedPrice] = MappingProxyType({}), *, at: datetime | None = None
    ) -> None:
        """Make a book.

        Args:
            overrides: Prices by model that go before the known ones, with any provider.
            at: Moment whose prices apply, with a time zone; None: when a model is first looked up.
        """
        stated = {model: _stated(price) for model, price in overrides.items()}

        def look_up(provider_kind: str, model: str) -> ModelFacts:
            facts = _FREE if provider_kind == LLMProvider.LOCAL else _published(provider_kind, model, at)
            return ModelFacts(stated[model], facts.context_window) if model in stated else facts

        self._facts = lru_cache(_MOST_MODELS)(look_up)

    def facts(self, provider_kind: str, model: str) -> ModelFacts:
        """Return all that is known; the first look-up loads the data, which may be done in a thread."""
        return self._facts(provider_kind, model)

    def cost(self, provider_kind: str, model: str, usage: TokenUsage) -> float | None:
        """Return the US dollars of an answer; None where the price is unknown, 0 on the box."""
        rates = self._facts(provider_kind, model).rates
        return None if rates is None else rates.cost(usage)

    def context_window(self, provider_kind: str, model: str) -> int | None:
        """Return the most tokens of prompt and answer; None where unknown."""
        return self._facts(provider_kind, model).context_window


def batch_rates(provider_kind: str, model: str) -> Rates | None:
    """Return what a vendor publishes as the price of a model in its batch API; None where it says nothing of it."""
    from genai_prices import Usage, calc_price  # noqa: PLC0415 - a quarter of a second, for who asks for a price

    try:
        known = calc_price(
            Usage(), model, provider_id=_PRICED_AS.get(provider_kind, provider_kind), price_context=_BATCH
        )
    except LookupError:
        return None
    said = any(variant.when == _BATCH for variant in known.model.price_variants or ())
    return _rates(known.model_price) if said else None


def _stated(price: StatedPrice) -> Rates:
    cached = price.input if price.cached_input is None else price.cached_input
    return Rates(price.input / _MILLION, price.output / _MILLION, cached / _MILLION, price.output / _MILLION)


def _published(provider_kind: str, model: str, at: datetime | None) -> ModelFacts:
    from genai_prices import Usage, calc_price  # noqa: PLC0415 - a quarter of a second, for who asks for a price

    try:
        vendor = _PRICED_AS.get(provider_kind, provider_kind)
        known = calc_price(Usage(), model, provider_id=vendor, genai_request_timestamp=at)
    except LookupError:
        return _UNKNOWN
    return ModelFacts(_rates(known.model_price), known.model.context_window)


def _rates(price: ModelPrice) -> Rates | None:
    if price.input_mtok is None and price.output_mtok is None:
        free = all(amount is None for amount in vars(price).values())
        return _FREE.rates if free else None  # else charged by the hour, the page or the request
    prompt, answer = _ladder(price.input_mtok), _ladder(price.output_mtok)
    cached = prompt if price.cache_read_mtok is None else _ladder(price.cache_read_mtok)
    thought = answer if price.output_reasoning_mtok is None else _ladder(price.output_reasoning_mtok)
    ladders = (prompt, answer, cached, thought)
    starts = {start for ladder in ladders for start in ladder if start > _FROM_THE_FIRST}
    above = tuple((start, _rung(start, *ladders)) for start in sorted(starts, reverse=True))
    return replace(_rung(_FROM_THE_FIRST, *ladders), above=above)


def _ladder(price: Decimal | TieredPrices | None) -> dict[int, float]:
    """Return US dollars per token by the number of prompt tokens above which they hold, in rising order."""
    if price is None:
        return {_FROM_THE_FIRST: 0.0}
    tiered = cast("TieredPrices", price) if hasattr(price, "tiers") else None  # its class is not loaded for a check
    base = cast("Decimal", price) if tiered is None else tiered.base
    tiers = () if tiered is None else tiered.tiers
    return {_FROM_THE_FIRST: float(base) / _MILLION, **{tier.start: float(tier.price) / _MILLION for tier in tiers}}


def _rung(start: int, *ladders: dict[int, float]) -> Rates:
    prompt, answer, cached, thought = (
        [price for above, price in each.items() if above <= start][-1] for each in ladders
    )
    return Rates(prompt, answer, cached, thought)
