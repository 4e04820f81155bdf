"""Writes `dashboard.json`, the dashboard for Grafana: what is seen, in the order in which somebody on duty asks.

`python docs/operations/dashboard.py` does; a test holds the file, and each metric in it to what a gateway tells.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_suffix(".json")

HERE: Final = 'instance=~"$instance"'
OF: Final = f'{HERE},provider=~"$provider"'
MODEL: Final = f'{OF},model=~"$model"'
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
WIDTH: Final = 24  # of a dashboard, in Grafana's units

SHARE: Final = ((None, "green"), (0.7, "yellow"), (0.9, "red"))
FAILURES: Final = ((None, "green"), (0.01, "yellow"), (0.05, "red"))
BREAKER: Final = {0: ("closed", "green"), 1: ("half open", "yellow"), 2: ("open", "red")}
HEALTH: Final = {0: ("down", "red"), 1: ("healthy", "green")}
LOST: Final = {0: ("there", "green"), 1: ("lost", "red")}


@dataclass(frozen=True)
class Panel:
    """What one question is answered by.

    Attributes:
        title: The question, as a name.
        about: What to read out of it.
        unit: Grafana's word for it.
        asked: Expressions, each with its legend.
        kind: Grafana's word for how it is drawn.
        width: In Grafana's units, of 24.
        thresholds: From which value on which colour.
        words: For values that stand for something: the word and its colour.
        stacked: Whether lines add up.
    """

    title: str
    about: str
    unit: str
    asked: dict[str, str]
    kind: str = "timeseries"
    width: int = 8
    thresholds: tuple[tuple[float | None, str], ...] = ()
    words: dict[int, tuple[str, str]] = field(default_factory=dict[int, tuple[str, str]])
    stacked: bool = False

    @property
    def height(self) -> int:
        """In Grafana's units."""
        return 4 if self.kind == "stat" else 8


def per_second(metric: str, labels: str, *by: str) -> str:
    """Return how fast a counter grows."""
    return f"sum{_by(*by)} (rate({metric}{{{labels}}}[$__rate_interval]))"


def share(metric: str, labels: str, part: str, *by: str) -> str:
    """Return which part of a counter's growth has more labels; 0 where none has them."""
    of_all = per_second(metric, labels, *by)
    return f"({per_second(metric, f'{labels},{part}', *by)} or 0 * {of_all}) / {of_all}"


def quantile(number: float, metric: str, labels: str, *by: str) -> str:
    """Return a quantile of a histogram."""
    return f"histogram_quantile({number}, {per_second(f'{metric}_bucket', labels, 'le', *by)})"


def quantiles(metric: str, labels: str, by: str = "", numbers: tuple[float, ...] = (0.5, 0.95)) -> dict[str, str]:
    """Return several, by legend."""
    names = by.split()
    legend = "".join(f" {{{{{name}}}}}" for name in names)
    return {quantile(number, metric, labels, *names): f"p{number * 100:.0f}{legend}" for number in numbers}


def fullest(metric: str, labels: str, *by: str) -> str:
    """Return a gauge; of several processes the highest."""
    return f"max{_by(*by)} ({metric}{{{labels}}})"


def together(metric: str, labels: str, *by: str) -> str:
    """Return a gauge of all processes."""
    return f"sum{_by(*by)} ({metric}{{{labels}}})"


def _by(*names: str) -> str:
    return f" by ({', '.join(names)})" if names else ""


ROWS: Final[dict[str, list[Panel]]] = {
    "Now": [
        Panel(
            "Requests",
            "Requests to the gateway that ended, per second.",
            "reqps",
            {per_second("llm_gateway_requests_total", HERE): "requests"},
            "stat",
            4,
        ),
        Panel(
            "Requests that fail",
            "Share of them that the gateway answered with a 5xx.",
            "percentunit",
            {share("llm_gateway_requests_total", HERE, 'status=~"5.."'): "fail"},
            "stat",
            4,
            FAILURES,
        ),
        Panel(
            "First token",
            "Of twenty streams nineteen begin sooner, the wait for a key left out.",
            "s",
            {quantile(0.95, "llm_time_to_first_token_seconds", MODEL): "p95"},
            "stat",
            4,
        ),
        Panel(
            "Calls that wait",
            "For a key that can pay.",
            "short",
            {together("llm_waiting_calls", OF): "waiting"},
            "stat",
            4,
        ),
        Panel(
            "Fullest limit",
            "Of all keys, users and budgets.",
            "percentunit",
            {fullest("llm_limit_saturation_ratio", HERE): "fullest"},
            "stat",
            4,
            SHARE,
        ),
        Panel(
            "Cost of 24 hours",
            "US dollars, where prices are known.",
            "currencyUSD",
            {f"sum(increase(llm_cost_dollars_total{{{MODEL}}}[24h]))": "cost"},
            "stat",
            4,
        ),
    ],
    "Traffic": [
        Panel(
            "Requests by status",
            "Of the gateway. 401: keys that it does not know; 429: users over their limits.",
            "reqps",
            {per_second("llm_gateway_requests_total", HERE, "status"): "{{status}}"},
            stacked=True,
        ),
        Panel(
            "Requests by endpoint",
            "Of the gateway.",
            "reqps",
            {per_second("llm_gateway_request_duration_seconds_count", HERE, "endpoint"): "{{endpoint}}"},
            stacked=True,
        ),
        Panel(
            "Calls by outcome",
            "Calls that ended, by how; cached: no provider was asked.",
            "reqps",
            {per_second("llm_calls_total", MODEL, "outcome"): "{{outcome}}"},
            stacked=True,
        ),
        Panel(
            "Calls by model",
            "Calls that ended.",
            "reqps",
            {per_second("llm_calls_total", MODEL, "provider", "model"): "{{provider}}/{{model}}"},
            stacked=True,
        ),
        Panel(
            "Tokens per second",
            "Of all calls; those that the provider had cached are among the input.",
            "short",
            {
                per_second("llm_input_tokens_total", MODEL): "input",
                per_second("llm_cached_input_tokens_total", MODEL): "of these cached by the provider",
                per_second("llm_output_tokens_total", MODEL): "output",
            },
        ),
        Panel(
            "At work",
            "Requests that are answered, and calls that run, those that wait included.",
            "short",
            {
                together("llm_gateway_active_requests", HERE): "requests",
                together("llm_running_calls", HERE): "calls",
            },
        ),
    ],
    "Errors": [
        Panel(
            "Share of calls that fail",
            "After all retries and fallbacks.",
            "percentunit",
            {share("llm_calls_total", MODEL, 'outcome="failed"', "provider"): "{{provider}}"},
        ),
        Panel(
            "Calls that fail, by exception",
            "docs/operations.md says what to do for each.",
            "reqps",
            {per_second("llm_call_errors_total", MODEL, "error"): "{{error}}"},
            stacked=True,
        ),
        Panel(
            "Attempts that fail, by key",
            "Most are repeated: the caller hears of none of these.",
            "reqps",
            {per_second("llm_attempt_errors_total", OF, "key", "error"): "{{key}} {{error}}"},
            stacked=True,
        ),
        Panel(
            "Retries",
            "Sends after a call's first, and those that retry.budget refused.",
            "reqps",
            {
                per_second("llm_retries_total", MODEL, "provider"): "{{provider}}",
                per_second("llm_retries_refused_total", OF, "provider"): "{{provider}}, refused",
            },
        ),
    ],
    "Latency": [
        Panel(
            "Requests",
            "Whole, as clients see them: waiting, retries and streaming included.",
            "s",
            quantiles("llm_gateway_request_duration_seconds", HERE, "endpoint", (0.95,)),
        ),
        Panel(
            "Answered calls",
            "Whole, waiting and retries included.",
            "s",
            quantiles("llm_call_duration_seconds", f'{MODEL},outcome="answered"', "provider", (0.5, 0.95, 0.99)),
        ),
        Panel(
            "Time to first token",
            "From a stream's sending to its first chunk: the provider's part alone.",
            "s",
            quantiles("llm_time_to_first_token_seconds", MODEL, "provider model"),
        ),
        Panel(
            "Tokens per second of a stream",
            "From its first chunk on.",
            "short",
            {
                f"{per_second('llm_streamed_tokens_total', MODEL, 'provider', 'model')} / "
                f"{per_second('llm_streaming_seconds_total', MODEL, 'provider', 'model')}": "{{provider}}/{{model}}",
            },
        ),
        Panel(
            "Answers that no cache gave",
            "Of the gateway, from the call to its end.",
            "s",
            quantiles("llm_gateway_generation_duration_seconds", HERE),
        ),
    ],
    "Queue": [
        Panel(
            "Calls that wait",
            "For a key that can pay.",
            "short",
            {together("llm_waiting_calls", OF, "provider"): "{{provider}}"},
        ),
        Panel(
            "Wait for a key",
            "Of all calls; one that has a key at once waits 0 seconds.",
            "s",
            quantiles("llm_queue_wait_seconds", MODEL, "provider", (0.5, 0.95, 0.99)),
        ),
    ],
    "Keys and limits": [
        Panel(
            "Saturation of keys",
            "How full each limit of each key is; full ones are what calls wait for.",
            "percentunit",
            {
                fullest(
                    "llm_limit_saturation_ratio", f'{OF},level="key"', "provider", "key", "model", "limit"
                ): "{{key}} {{model}} {{limit}}",
            },
            width=12,
            thresholds=SHARE,
        ),
        Panel(
            "Shared limits and budgets",
            "Of all calls together, and of the fullest user.",
            "percentunit",
            {
                fullest(
                    "llm_limit_saturation_ratio", f'{HERE},level=~"global|user"', "level", "limit"
                ): "{{level}} {{limit}}",
            },
            width=12,
            thresholds=SHARE,
        ),
        Panel(
            "Keys by state",
            "cooling: the provider said 429; out_of_credit, rejected: out of the rotation.",
            "short",
            {
                f"sum by (provider, state) ({fullest('llm_key_state', OF, 'provider', 'key', 'state')})": (
                    "{{provider}} {{state}}"
                )
            },
            stacked=True,
        ),
        Panel(
            "Attempts by key",
            "Also those that were repeated.",
            "reqps",
            {per_second("llm_attempts_total", OF, "key", "outcome"): "{{key}} {{outcome}}"},
            stacked=True,
        ),
        Panel("Calls on each key", "In flight.", "short", {together("llm_key_calls", OF, "key"): "{{key}}"}),
        Panel(
            "Rest of keys",
            "Until the whole key may be used again.",
            "s",
            {fullest("llm_key_cooling_seconds", OF, "key"): "{{key}}"},
        ),
    ],
    "Cost": [
        Panel(
            "US dollars per hour",
            "Where prices are known.",
            "currencyUSD",
            {
                f"3600 * {per_second('llm_cost_dollars_total', MODEL, 'provider', 'model')}": "{{provider}}/{{model}}",
            },
            stacked=True,
        ),
        Panel(
            "Budgets",
            "How much of each is spent.",
            "percentunit",
            {
                fullest(
                    "llm_limit_saturation_ratio", f'{HERE},limit=~"cost_per_.*|.*_per_day"', "level", "key", "limit"
                ): "{{level}} {{key}} {{limit}}",
            },
            thresholds=SHARE,
        ),
        Panel(
            "Saved by the cache",
            "What its answers would have cost, per hour.",
            "currencyUSD",
            {f"3600 * {per_second('llm_cache_saved_dollars_total', HERE)}": "saved"},
        ),
    ],
    "Cache": [
        Panel(
            "Lookups",
            "follower: an identical call was on its way; similar: one like it was answered.",
            "reqps",
            {per_second("llm_cache_lookups_total", HERE, "outcome"): "{{outcome}}"},
            stacked=True,
        ),
        Panel(
            "Share that it answers",
            "Of what it was asked.",
            "percentunit",
            {share("llm_cache_lookups_total", HERE, 'outcome!="miss"'): "answered"},
        ),
        Panel(
            "Tokens and seconds saved",
            "Per second.",
            "short",
            {
                per_second("llm_cache_saved_tokens_total", HERE): "tokens",
                per_second("llm_cache_saved_seconds_total", HERE): "seconds",
            },
        ),
        Panel(
            "Kept, stale, failed",
            "failed: its backend; skipped: questions that were not compared.",
            "short",
            {
                per_second("llm_cache_stored_total", HERE): "kept",
                per_second("llm_cache_stale_total", HERE): "given stale",
                per_second("llm_cache_errors_total", HERE): "failed",
                per_second("llm_cache_semantic_skipped_total", HERE): "skipped",
            },
        ),
    ],
    "Breakers and store": [
        Panel(
            "Circuit breakers",
            "open: the provider fails so often that it is not asked.",
            "short",
            {
                f'max by (provider, model) (2 * llm_breaker_state{{{MODEL},state="open"}} + ignoring (state) '
                f'llm_breaker_state{{{MODEL},state="half_open"}})': "{{provider}}/{{model}}",
            },
            "state-timeline",
            words=BREAKER,
        ),
        Panel(
            "Providers",
            "down: none of their keys may be used.",
            "short",
            {f"min by (provider) (llm_provider_healthy{{{OF}}})": "{{provider}}"},
            "state-timeline",
            words=HEALTH,
        ),
        Panel(
            "Store of the limits",
            "With limits.store: redis.",
            "short",
            {fullest("llm_limit_store_lost", HERE, "instance"): "{{instance}}"},
            "state-timeline",
            words=LOST,
        ),
        Panel(
            "Store: losses and calls without it",
            "Calls let go while it was lost, as on_store_loss says.",
            "short",
            {
                per_second("llm_limit_store_losses_total", HERE): "losses",
                per_second("llm_limit_store_calls_without_total", HERE): "calls without it",
            },
        ),
    ],
    "Models on the box": [
        Panel(
            "Requests",
            "That run, wait, and were in the latest pass.",
            "short",
            {
                together("llm_engine_running_requests", OF, "provider"): "{{provider}} running",
                together("llm_engine_waiting_requests", OF, "provider"): "{{provider}} waiting",
                together("llm_engine_batch_requests", OF, "provider"): "{{provider}} in a pass",
            },
        ),
        Panel(
            "Memory for them",
            "Blocks of 32 tokens.",
            "short",
            {
                together("llm_engine_blocks_used", OF, "provider"): "{{provider}} used",
                together("llm_engine_prefix_blocks", OF, "provider"): "{{provider}} kept for beginnings",
                together("llm_engine_blocks", OF, "provider"): "{{provider}} there are",
            },
        ),
        Panel(
            "Tokens per second",
            "made: over all time; at work: while the network ran.",
            "short",
            {
                per_second("llm_engine_generated_tokens_total", OF, "provider"): "{{provider}} made",
                together("llm_engine_tokens_per_second", OF, "provider"): "{{provider}} at work",
                per_second("llm_engine_cached_tokens_total", OF, "provider"): "{{provider}} not read again",
            },
        ),
        Panel(
            "Wait for a place",
            "Of one request.",
            "s",
            {
                f"{per_second('llm_engine_queue_wait_seconds_total', OF, 'provider')} / "
                f"{per_second('llm_engine_requests_total', OF, 'provider')}": "{{provider}}",
            },
        ),
        Panel(
            "Passes and moves",
            "put back: requests that gave their memory to others.",
            "short",
            {
                per_second("llm_engine_passes_total", OF, "provider"): "{{provider}} passes",
                per_second("llm_engine_put_back_total", OF, "provider"): "{{provider}} put back",
            },
        ),
    ],
    "Processes": [
        Panel(
            "Up",
            "Whether Prometheus could read it.",
            "short",
            {f"up{{{HERE}}}": "{{instance}}"},
            "state-timeline",
            12,
            words=HEALTH,
        ),
        Panel(
            "Began anew",
            "Starts of the last hour.",
            "short",
            {f"changes(process_start_time_seconds{{{HERE}}}[1h])": "{{instance}}"},
            width=12,
        ),
        Panel("CPU", "Cores.", "short", {per_second("process_cpu_seconds_total", HERE, "instance"): "{{instance}}"}),
        Panel(
            "Memory", "Resident.", "bytes", {fullest("process_resident_memory_bytes", HERE, "instance"): "{{instance}}"}
        ),
        Panel(
            "Open files",
            "Connections are among them; from most on there are 503s.",
            "percentunit",
            {f"process_open_fds{{{HERE}}} / process_max_fds{{{HERE}}}": "{{instance}}"},
            thresholds=SHARE,
        ),
    ],
}


def variable(name: str, label: str, query: str) -> dict[str, Any]:
    """Return what one may choose several values of."""
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
        "sort": 1,
    }


def drawn(panel: Panel) -> dict[str, Any]:
    """Return how a panel's values look."""
    look: dict[str, Any] = {"unit": panel.unit}
    if panel.unit == "percentunit":
        look |= {"min": 0, "max": 1} if panel.thresholds is SHARE else {"min": 0}
    if panel.kind == "timeseries":
        look["custom"] = {"lineWidth": 1, "fillOpacity": 20 if panel.stacked else 0, "showPoints": "never"}
        look["custom"] |= {"stacking": {"mode": "normal"}} if panel.stacked else {}
        look["custom"] |= {"thresholdsStyle": {"mode": "dashed"}} if panel.thresholds else {}
    if panel.thresholds:
        steps = [{"value": value, "color": color} for value, color in panel.thresholds]
        look["thresholds"] = {"mode": "absolute", "steps": steps}
    if panel.words:
        options = {str(value): {"text": text, "color": color} for value, (text, color) in panel.words.items()}
        look["mappings"] = [{"type": "value", "options": options}]
    return look


def options(panel: Panel) -> dict[str, Any]:
    """Return what a kind of panel has beside."""
    if panel.kind == "stat":
        color = "value" if panel.thresholds else "none"
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": color, "graphMode": "area"}
    if panel.kind == "state-timeline":
        return {"showValue": "never", "mergeValues": True, "legend": {"displayMode": "list", "placement": "bottom"}}
    legend = {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}
    return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def placed() -> list[dict[str, Any]]:
    """Return all panels where they stand: rows one below the other, panels from left to right."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        grid = {"h": 1, "w": WIDTH, "x": 0, "y": y}
        panels.append({"type": "row", "title": title, "collapsed": False, "gridPos": grid, "panels": []})
        y += 1
        x = height = 0
        for panel in row:
            if x + panel.width > WIDTH:
                x, y = 0, y + height
            height = panel.height
            panels.append(
                {
                    "type": panel.kind,
                    "title": panel.title,
                    "description": panel.about,
                    "datasource": SOURCE,
                    "gridPos": {"h": height, "w": panel.width, "x": x, "y": y},
                    "fieldConfig": {"defaults": drawn(panel), "overrides": []},
                    "options": options(panel),
                    "targets": [
                        {"refId": chr(ord("A") + n), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
                        for n, (expression, legend) in enumerate(panel.asked.items())
                    ],
                }
            )
            x += panel.width
        y += height
    return [{"id": number, **panel} for number, panel in enumerate(panels, start=1)]


def dashboard() -> dict[str, Any]:
    """Return all of it, as Grafana imports it."""
    return {
        "uid": "llm-manifold",
        "title": "llm-manifold",
        "description": "The gateway and its calls: traffic, errors, latency, keys and limits, money, cache, processes.",
        "tags": ["llm"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {
            "list": [
                {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
                variable("instance", "Process", "label_values(llm_running_calls, instance)"),
                variable("provider", "Provider", f"label_values(llm_provider_healthy{{{HERE}}}, provider)"),
                variable("model", "Model", f"label_values(llm_calls_total{{{OF}}}, model)"),
            ]
        },
        "panels": placed(),
    }


def written() -> str:
    """Return the file's text."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(written(), encoding="utf-8")
