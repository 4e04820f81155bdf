"""From a caller's request to its answer: what it may ask for, in whose name, and which provider is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.types import request_with

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from llm.core.client import LLMClient
    from llm.core.config import LLMConfig
    from llm.core.manager import LLMManager
    from llm.core.stream import LLMStream
    from llm.core.types import LLMRequest, LLMResponse

    from .caller import Caller

_ANY: Final = "*"
_LONGEST: Final = 256
"""Characters of a model's name."""

_NAMED: Final = 20
"""How many models an error lists."""


class Asking:
    """The one way from a caller's request to a manager's answer.

    The call counts for the caller's user, whatever the request says. A model goes to the provider that lists it, the
    default one first; an alias and `provider/model` go where they go everywhere.

    Attributes:
        default: Model of a request that names none; None: one of the default provider's.
    """

    def __init__(
        self, manager: LLMManager, client: Callable[[str | None, str | None], LLMClient] | None = None
    ) -> None:
        """Ask `manager`, which may be reloaded; `client` makes a client for a provider and a user."""
        self.default: str | None = None
        self._manager = manager
        self._client = client or self._plain_client
        self._clients: dict[tuple[str | None, str | None], LLMClient] = {}
        self._config = manager.config
        self._ways = dict(_ways(self._config))

    def answer(self, caller: Caller, request: LLMRequest) -> Awaitable[LLMResponse]:
        """Return the whole answer, to be awaited; `request` is given away, and has the call's record from then on.

        Raises:
            LLMException: The caller may not ask for that, or, when awaited, the call failed.
        """
        asked = self._asked(caller, request)
        return self.client_for(caller, asked.model).request(asked, _mine=True)

    def stream(self, caller: Caller, request: LLMRequest) -> LLMStream:
        """Return the answer as a stream, which opens on first use; `request` is given away as in `answer`.

        Raises:
            LLMException: The caller may not ask for that.
        """
        asked = self._asked(caller, request)
        return self.client_for(caller, asked.model).stream_request(asked, _mine=True)

    def count(self, caller: Caller, request: LLMRequest) -> Awaitable[int]:
        """Return the tokens that a request takes as a prompt, to be awaited.

        Raises:
            LLMException: The caller may not ask for that, or, when awaited, the count failed.
        """
        asked = self._asked(caller, request)
        return self.client_for(caller, asked.model).count_tokens(asked)

    def continuing(self, caller: Caller, request: LLMRequest) -> LLMRequest:
        """Return a request whose one text is to be continued: as it stands, where models on the box alone may answer.

        Others answer conversations: of them it is asked as a turn.

        Raises:
            LLMInvalidRequestError: No provider has its model.
        """
        asked = self._asked(caller, request)
        if all(self._config.providers[name].type == "local" for name in self._providers_of(caller, asked.model)):
            return request_with(asked, extra={"raw": True, **(asked.extra or {})})
        return asked

    def _providers_of(self, caller: Caller, model: str | None) -> set[str]:
        """Return all that may be asked for a model, also where the first cannot serve."""
        provider = self.provider_of(caller, model) or self._config.default_provider
        if model in self._config.aliases:
            return {target.partition("/")[0] for target in self._config.aliases[model].targets}
        name = None if model is None else model.removeprefix(f"{provider}/")
        fallback = self._config.global_.fallback
        return {
            provider,
            *(other for other in fallback if name is None or name in self._config.providers[other].models),
        }

    def client_for(self, caller: Caller, model: str | None) -> LLMClient:
        """Return the client that asks for a model in the caller's name; None: for one of the default provider's.

        Raises:
            LLMAuthenticationError: The caller may not use the model.
            LLMInvalidRequestError: No provider has it.
        """
        if model is not None:
            caller.check_model(model)
            _check_length(model)
        name = (self.provider_of(caller, model), caller.user)
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self._client(*name)
        return client

    def provider_of(self, caller: Caller, model: str | None) -> str | None:
        """Return the provider that a model goes to; None for the default one, which is asked for no certain model.

        Raises:
            LLMInvalidRequestError: None has it; names some of those that the caller may ask for.
        """
        self._follow()
        if model is None:
            return None
        way = self._ways.get(model)
        if way is not None:
            return way
        prefix, _, name = model.partition("/")
        for open_ in (f"{prefix}/{_ANY}" if name else _ANY, _ANY):
            if open_ in self._ways:
                return self._ways[open_]
        raise LLMInvalidRequestError(
            f"there is no model {model[:100]!r} here; ask for one of {', '.join(self.models(caller)[:_NAMED])}",
            status=404,
            model=model,
        )

    def models(self, caller: Caller) -> list[str]:
        """Return what a caller may ask for by name: aliases and models."""
        self._follow()
        return [name for name in self._ways if "*" not in name and self._is_short(name) and caller.may_use(name)]

    def _plain_client(self, provider: str | None, user: str | None) -> LLMClient:
        return self._manager.get_client(provider, user=user)

    def _follow(self) -> None:
        """Know what the manager's configuration of now says."""
        if self._manager.config is not self._config:  # it was reloaded
            self._config = self._manager.config
            self._ways = dict(_ways(self._config))
            self._clients.clear()

    def _is_short(self, name: str) -> bool:
        """Return whether a name is not one of those that carry the provider of a model which has a shorter one."""
        prefix, _, rest = name.partition("/")
        return not (rest in self._ways and prefix == self._ways.get(rest) == self._ways[name])

    def _asked(self, caller: Caller, request: LLMRequest) -> LLMRequest:
        """Hold a request to what its caller may ask for."""
        if request.model is None and self.default is not None:
            request = request_with(request, model=self.default)
        if _ANY in caller.models:
            return request
        if request.extra is not None and request.extra.get("models"):
            raise LLMInvalidRequestError("models: expected none, for this key may use certain models alone", status=400)
        # One of a provider's own choice could be any.
        return request if request.model is not None else request_with(request, model=caller.models[0])


def _check_length(model: str) -> None:
    """Refuse what is no name: counts and the log keep one for long, and a provider of any model has none too long.

    Raises:
        LLMInvalidRequestError: It is none.
    """
    if len(model) > _LONGEST:
        raise LLMInvalidRequestError(f"model: expected a name of at most {_LONGEST} characters", status=400)


def _ways(config: LLMConfig) -> Iterator[tuple[str, str]]:
    """Yield what may be asked for by name, and which provider that goes to; of a name's several ways the last counts.

    A provider that takes any model is listed as `*`, and under its own name as `provider/*`.
    """
    default = config.default_provider
    sections = sorted(config.providers, key=lambda name: name == default)  # the default one last, which counts
    sections = [*reversed(sections[:-1]), *sections[-1:]]
    for name in sections:
        for model in config.providers[name].models:
            yield model, name
    for name in sections:
        for model in config.providers[name].models:
            yield f"{name}/{model}", name
    for alias in config.aliases:
        yield alias, default
