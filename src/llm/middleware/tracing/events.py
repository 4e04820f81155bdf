"""Calls as events, which are OpenTelemetry's log records with a name: for who keeps what was said apart from traces.

Source: https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-events.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry._logs import SeverityNumber, get_logger

from llm.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry._logs import LoggerProvider
    from opentelemetry.context import Context

_NANOSECONDS: Final = 1_000_000_000


class Events:
    """Where one chain's events go."""

    def __init__(self, provider: LoggerProvider | None = None) -> None:
        """Have them go to `provider`; None for the program's own."""
        self._logger = get_logger(names.SCOPE, "", provider, names.SCHEMA_URL)
        self._asked = getattr(self._logger, "enabled", None)  # older releases have neither that nor names of events

    def wanted(self, context: Context | None) -> bool:
        """Return whether anybody takes the event of a call in this context."""
        return self._asked is not None and self._asked(context=context, event_name=names.EVENT_DETAILS)

    def tell(self, details: Mapping[str, Any], wall: float, context: Context | None) -> None:
        """Send a call's event as of `wall`, in seconds since 1970; its attributes may be structured."""
        self._logger.emit(
            timestamp=int(wall * _NANOSECONDS),
            context=context,
            severity_number=SeverityNumber.INFO,
            attributes=details,
            event_name=names.EVENT_DETAILS,
        )
