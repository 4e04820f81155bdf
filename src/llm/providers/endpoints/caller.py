"""Who calls: what a gateway key stands for, once it was found good."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from llm.core.exceptions import LLMAuthenticationError


@dataclass(frozen=True, slots=True)
class Caller:
    """What the key of a request allows.

    Attributes:
        name: The key's name in `gateway.api_keys`; None where no keys are configured.
        user: The user that its calls count for, whatever the request says.
        models: Models that it may name; `*`: all.
        operator: Whether the dashboard shows it the calls of all users, and costs.
    """

    name: str | None = None
    user: str | None = None
    models: tuple[str, ...] = ("*",)
    operator: bool = False

    def may_use(self, model: str) -> bool:
        """Return whether the key allows a model, as the request names it."""
        return "*" in self.models or model in self.models

    def check_model(self, model: str) -> None:
        """Refuse a model that the key does not allow.

        Raises:
            LLMAuthenticationError: With `model_only`; names the model.
        """
        if not self.may_use(model):
            remedy = f"ask for one of {', '.join(self.models)}" if self.models else "it may use none"
            raise LLMAuthenticationError(
                f"this key may not use the model {model[:100]!r}; {remedy}", model_only=True, model=model
            )


ANYONE: Final = Caller(operator=True)
"""Who calls a gateway without keys, which listens on loopback alone."""
