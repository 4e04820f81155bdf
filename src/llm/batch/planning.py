"""What a row of a batch would take: tokens, dollars, a place in the cache, and what the limits will see of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from llm.core.protocols import Charging
from llm.core.tokens import CHARACTERS_PER_TOKEN, OutputEstimate, count_text
from llm.core.types import TokenUsage, request_with
from llm.limits.rehearsal import Planned
from llm.limits.rotation import Rotation
from llm.providers.openai.body import choices_of

if TYPE_CHECKING:
    from llm.core.call import Charge
    from llm.core.client import LLMClient
    from llm.core.keys import Client
    from llm.core.manager import LLMManager
    from llm.core.parts import Chain, Parts, Route
    from llm.core.types import LLMRequest

Basis: TypeAlias = Literal["learned", "max_tokens", "assumed", "none"]
"""Where the length of an answer comes from: earlier answers of the model, the row's own bound, or nowhere."""

ASSUMED_ANSWER: Final = OutputEstimate().expected("")
"""Tokens of an answer that nobody bounds and of whose model no answer was seen: what the limiter reserves for it."""

_ENOUGH: Final = 20
"""Answers of a model from which on their mean tells more than an assumption."""

ASSUMED_SECONDS: Final = 0.01
"""Until an answer of a model of which none was seen: the least that a network takes. Without any, what calls reserve
until they are answered would never be held by several at once, as it is in a run."""

_MOST_NAMES: Final = 1024
"""Names of models that are remembered; a file may hold any."""

_OPENAI: Final = "api.openai.com"


class Known(NamedTuple):
    """What the answers of a model so far tell.

    Attributes:
        tokens: Of an answer, in the mean.
        seconds: Until an answer, waiting for a key left out.
    """

    tokens: float
    seconds: float


class Plan(NamedTuple):
    """What a row takes at one of the models that may answer it.

    Attributes:
        usage: Its tokens, of the answer as many as it is to be reckoned with.
        cost: US dollars of these; None where the price is unknown.
        basis: Where the length of the answer comes from.
        key: Key of its answer in the cache; None where none is kept.
        soon: How the limits see it where the answer is as short as may be expected.
        late: The same where the answer is as long as is reckoned with.
        timed: Whether it is known how long an answer takes.
    """

    usage: TokenUsage
    cost: float | None
    basis: Basis
    key: str | None
    soon: Planned
    late: Planned
    timed: bool


class Planner:
    """Plans rows for one manager, as its calls would be made now; nothing is sent and nothing taken."""

    def __init__(self, manager: LLMManager, provider: str | None = None) -> None:
        """Take what is known of the models' answers; `provider` is asked, or the default one."""
        self._parts = manager.parts
        self._provider = provider or manager.parts.default_provider
        self._client: LLMClient = manager.get_client(provider)
        self._known = _known(manager)
        self._exact: dict[str, bool] = {}
        self._routes: dict[str, tuple[Route, str]] = {}
        self._answers = OutputEstimate()

    @property
    def parts(self) -> Parts:
        """What the manager's configuration was built into."""
        return self._parts

    def plans(self, request: LLMRequest) -> list[Plan]:
        """Return what a request takes, for each of the models that it may be given.

        Raises:
            LLMException: It can be sent to none.
        """
        if request.model is not None:
            return [self._plan(request)]
        provider = self._provider
        queue = self._parts.chains[provider].pool.queue
        models = queue.models_for(vectors=request.embed is not None) if isinstance(queue, Rotation) else ()
        return [self._plan(replace(request, model=f"{provider}/{model}")) for model in models] or [self._plan(request)]

    def _plan(self, request: LLMRequest) -> Plan:
        route, prepared = self._prepared(request)
        chain, provider, model = route.chain, route.provider, prepared.model or ""
        charge = chain.ticket(prepared, model).charge
        known = self._known.get((provider, model))
        basis, soon, late = self._answer(prepared, model, known)
        client = chain.pool.queue.slots[0].key.client
        usage = TokenUsage(self._prompt_tokens(prepared, provider, charge), late)
        cost = self._parts.cost(provider, model, usage)
        seconds = ASSUMED_SECONDS if known is None else known.seconds
        reserved = self._reserved(prepared, model, chain, charge) if basis == "assumed" else charge

        def planned(taken: Charge, output: int) -> Planned:
            of = TokenUsage(usage.input_tokens, output)
            dollars = self._parts.cost(provider, model, of) if charge.cost else None
            return Planned(provider, model, taken, _used(client, of, taken, dollars), seconds)

        return Plan(
            usage,
            cost,
            basis,
            None if chain.key is None else chain.key(prepared),
            planned(reserved, soon),
            planned(charge, late),
            timed=known is not None,
        )

    def _prepared(self, request: LLMRequest) -> tuple[Route, LLMRequest]:
        """Return the way of a request, and it as it is sent there; a name that has one target is looked up once."""
        name = request.model or ""
        known = self._routes.get(name)
        if known is not None:
            return known[0], request_with(request, model=known[1])
        route, prepared, others = self._client.prepare(request)
        if not others and len(self._routes) < _MOST_NAMES:
            self._routes[name] = route, prepared.model or ""
        return route, prepared

    def _answer(self, request: LLMRequest, model: str, known: Known | None) -> tuple[Basis, int, int]:
        """Return where the length of the answer comes from, how long it may be at best, and what to reckon with."""
        most = request.max_tokens
        if request.embed is not None:
            return "none", 0, 0
        if known is not None:
            usual = round(known.tokens)
            usual = usual if most is None else min(usual, most)
            return "learned", usual, usual
        length = -(-len(request.messages[-1].text) // CHARACTERS_PER_TOKEN)
        soon = max(1, length if most is None else min(length, most))
        self._answers.observe(model, soon)
        choices = choices_of(request.extra or {})
        if most is not None:
            return "max_tokens", soon * choices, most * choices
        return "assumed", soon * choices, max(soon, ASSUMED_ANSWER) * choices

    def _reserved(self, request: LLMRequest, model: str, chain: Chain, charge: Charge) -> Charge:
        """Return what a request without a bound reserves, after the run has seen the answers before it."""
        provider = chain.pool.queue.slots[0].key.client.provider
        if not isinstance(provider, Charging):
            return charge
        stated = provider.charge(request, self._answers.expected(model))
        return charge._replace(output_tokens=stated.output_tokens, total_tokens=stated.total_tokens)

    def _prompt_tokens(self, request: LLMRequest, provider: str, charge: Charge) -> int:
        exact = self._exact.get(provider)
        if exact is None:
            exact = self._exact[provider] = self._is_openai(provider)
        if not exact:
            return charge.input_tokens
        if request.embed is None:
            return self._parts.estimate_tokens(provider, request)
        counts = [count_text(text, request.model or "") for text in request.embed.texts]
        known = [tokens for tokens in counts if tokens is not None]
        return sum(known) if len(known) == len(counts) else charge.input_tokens

    def _is_openai(self, provider: str) -> bool:
        """Return whether OpenAI's own tokenizers count there; what another server counts by nobody knows."""
        section = self._parts.config.providers[provider]
        if section.type != "openai":
            return False
        azure = section.sdk is not None and section.sdk.client == "azure"
        return azure or section.base_url is None or urlsplit(str(section.base_url)).hostname == _OPENAI


def _used(client: Client, usage: TokenUsage, reserved: Charge, cost: float | None) -> Charge:
    used = client.used(usage) or reserved
    return used if cost is None else used._replace(cost=cost)


def _known(manager: LLMManager) -> dict[tuple[str, str], Known]:
    known: dict[tuple[str, str], Known] = {}
    for model in manager.measured().models:
        answers = model.calls.get("answered", 0)
        if answers >= _ENOUGH:
            busy = model.durations["answered"].seconds - model.queue_wait.seconds
            known[model.provider, model.model] = Known(model.usage.output_tokens / answers, max(0.0, busy / answers))
    return known
