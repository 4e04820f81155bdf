"""What `docs/operations.md` gives to those on duty holds: its tables, its rules for Prometheus, its dashboard."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from llm import LLMException, LLMManager, register_provider
from llm.core import exceptions
from llm.core.config import load_config
from llm.core.standing import EngineStanding
from llm.providers.local.stats import EngineStats
from llm.telemetry.prometheus import ManagerCollector
from llm.testing import FakeClock, FakeProvider, Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL = "gpt-4o-mini"
FUNCTIONS = {"rate", "increase", "sum", "max", "histogram_quantile", "label_values"}
WORDS = {"by", "and", "or", "unless", "without", "on"}
TOKEN = re.compile(r'"[^"]*"|\[[^\]]*\]|[a-zA-Z_:][\w:]*|\d+(?:\.\d+)?|[=!]~|[=!<>]=|\S')

Exposed = dict[str, list[dict[str, str]]]
"""The labels of each sample, by its name."""


@pytest.fixture(scope="module")
def exposed() -> Exposed:
    """What Prometheus reads of a manager that has met answers, hits, streams and failures."""
    return asyncio.run(_exposed())


class OnBox(FakeProvider):
    """A provider with an engine in this process."""

    def engine_standing(self) -> EngineStanding:
        return EngineStanding(asdict(EngineStats(running=1)), {})


async def _exposed() -> Exposed:
    clock = FakeClock(auto=True)
    faults = [Fault("auth", at=1), Fault("server_error", at=3), Fault("invalid", at=5)]
    up = MockUpstream("openai", clock=clock, faults=faults)
    limits = {"requests_per_minute": 100, "cost_per_day": 10.0}
    provider = {"base_url": up.base_url, "api_keys": ["k1", "k2"], "models": [MODEL], "rate_limits": limits}
    register_provider("onbox", lambda _: OnBox())
    config = {
        "providers": {"openai": provider, "onbox": {"models": ["m"]}},
        "limits": {"global": limits, "users": {"default": limits}},
        "cache": {},
        "circuit_breaker": {},
    }
    registry = CollectorRegistry()
    async with LLMManager.open(config, transport=up.transport(), clock=clock) as manager:
        client = manager.get_client(user="alice")
        for text in ("one", "one", "two", "three"):
            with suppress(LLMException):
                await client.chat(text)
        await client.stream_complete("a stream").response()
        registry.register(ManagerCollector(manager))
        told = generate_latest(registry).decode()
    found: Exposed = {}
    for family in text_string_to_metric_families(told):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


class Use(NamedTuple):
    """A metric in an expression: its matchers, as (label, operator, value)."""

    metric: str
    matchers: list[tuple[str, str, str]]


def read(expression: str) -> tuple[list[Use], set[str]]:
    """Return the metrics that an expression uses, and the labels that it groups by."""
    uses: list[Use] = []
    grouped: set[str] = set()
    tokens = TOKEN.findall(expression)
    at = 0
    while at < len(tokens):
        token, after = tokens[at], tokens[at + 1] if at + 1 < len(tokens) else ""
        at += 1
        if token in {"by", "without", "on"}:
            end = tokens.index(")", at)
            grouped |= {word for word in tokens[at:end] if word not in "(,"}
            at = end
        elif not re.match(r"[a-zA-Z_]", token) or token in WORDS:
            continue
        elif after == "(" or token in FUNCTIONS:
            assert token in FUNCTIONS, f"{token}() in {expression}"
        else:
            inside: list[str] = []
            if after == "{":
                end = tokens.index("}", at)
                inside = [word for word in tokens[at + 1 : end] if word != ","]
                at = end
            thirds = zip(inside[::3], inside[1::3], inside[2::3], strict=True)
            uses.append(Use(token, [(label, how, value.strip('"')) for label, how, value in thirds]))
    return uses, grouped


def matches(labels: dict[str, str], matcher: tuple[str, str, str]) -> bool:
    label, how, value = matcher
    if value.startswith("$"):  # a variable of the dashboard
        return label in labels
    equal = bool(re.fullmatch(value, labels[label])) if how.endswith("~") else value == labels[label]
    return label in labels and equal == how.startswith("=")


def check(expression: str, exposed: Exposed) -> None:
    """Fail where an expression uses what the exposition of a manager does not have."""
    uses, grouped = read(expression)
    assert uses, f"no metric in {expression}"
    known: set[str] = set()
    for use in uses:
        assert use.metric in exposed, f"{use.metric} in {expression}"
        labels = set(exposed[use.metric][0])
        assert {label for label, _, _ in use.matchers} <= labels, expression
        assert any(all(matches(row, m) for m in use.matchers) for row in exposed[use.metric]), f"nothing: {expression}"
        known |= labels
    assert grouped <= known, expression


@pytest.mark.parametrize(
    "wrong",
    [
        "llm_call_total > 1",
        'llm_calls_total{result="failed"}',
        'llm_calls_total{outcome="fails"}',
        "sum by (models) (rate(llm_calls_total[5m]))",
        "1 > 2",
    ],
)
def test_a_metric_a_label_or_a_value_that_is_not_told_is_seen(wrong: str, exposed: Exposed) -> None:
    with pytest.raises(AssertionError):
        check(wrong, exposed)


def test_the_alerts_use_what_is_told_and_the_page_says_what_to_do(root: Path, exposed: Exposed) -> None:
    loaded = yaml.safe_load((root / "docs" / "operations" / "alerts.yml").read_text(encoding="utf-8"))
    rules: list[dict[str, Any]] = [rule for group in loaded["groups"] for rule in group["rules"]]
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
        check(rule["expr"], exposed)
        grouped = read(rule["expr"])[1] or {label for use in read(rule["expr"])[0] for label in exposed[use.metric][0]}
        assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= grouped
    names = [rule["alert"] for rule in rules]
    assert len(set(names)) == len(names)
    assert set(names) == set(table(root, "alert"))


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def test_the_dashboard_uses_what_is_told(root: Path, exposed: Exposed) -> None:
    dashboard = json.loads((root / "docs" / "operations" / "dashboard.json").read_text(encoding="utf-8"))
    every = list(panels(dashboard))
    ids = [panel["id"] for panel in every]
    assert len(set(ids)) == len(ids)
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    source = {"type": "prometheus", "uid": "${datasource}"}
    used: set[str] = set()
    for panel in every:
        for target in panel.get("targets", []):
            assert target["datasource"] == panel["datasource"] == source
            check(target["expr"], exposed)
            used |= {use.metric for use in read(target["expr"])[0]}
            labels = {label for use in read(target["expr"])[0] for label in exposed[use.metric][0]}
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= (read(target["expr"])[1] or labels)
            assert set(re.findall(r'"\$(\w+)"', target["expr"])) <= set(variables)
    for name in ("provider", "model"):
        query = variables[name]["query"]["query"]
        asked = re.fullmatch(r"label_values\((\w+)(?:{.*})?, (\w+)\)", query)
        assert asked is not None
        assert asked[2] in exposed[asked[1]][0]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in every]
    assert len(set(places)) == len(places)
    assert {"llm_limit_saturation_ratio", "llm_calls_total", "llm_cost_dollars_total", "llm_breaker_state"} <= used


def table(root: Path, head: str) -> list[str]:
    """Return the names in the first column of the page's table whose first column is headed so."""
    page = (root / "docs" / "operations.md").read_text(encoding="utf-8")
    found = re.search(rf"^\| {head} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert found is not None
    cells = [row.split("|")[1] for row in found[1].splitlines()]
    return [name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)]


def test_the_page_lists_every_metric(root: Path, exposed: Exposed) -> None:
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in exposed}
    assert sorted(table(root, "metric")) == sorted(families)


def test_the_page_says_what_to_do_for_every_exception(root: Path) -> None:
    kinds = [kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, LLMException)]
    assert table(root, "exception") == [kind.__name__ for kind in sorted(kinds, key=lambda kind: _line(root, kind))]


def _line(root: Path, kind: type) -> int:
    tree = (root / "src" / "llm" / "core" / "exceptions.py").read_text(encoding="utf-8")
    return tree.index(kind.__name__)


def test_the_page_lists_every_logger(root: Path) -> None:
    written: set[str] = set()
    for path in (root / "src" / "llm").rglob("*.py"):
        written |= set(re.findall(r'getLogger\("(llm\.\w+)"\)', path.read_text(encoding="utf-8")))
    assert set(table(root, "logger")) == written


def test_the_page_lists_every_word_of_the_decision_log(root: Path) -> None:
    noted = re.compile(r'(?:\.note\([^"]+|_move\(now, [^"]+|decisions\.append\(\(now, )"(\w+)"')
    words: set[str] = set()
    for path in (root / "src" / "llm").rglob("*.py"):
        words |= set(noted.findall(path.read_text(encoding="utf-8")))
    assert {"queued", "failed", "ended", "unfit"} <= words
    assert words <= set(table(root, "event"))


async def test_the_settings_of_the_page_are_read(root: Path, tmp_path: Path) -> None:
    page = (root / "docs" / "operations.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "llm.yaml").write_text(block, encoding="utf-8")
    config = await asyncio.to_thread(load_config, tmp_path / "llm.yaml", environ={})
    assert config.circuit_breaker is not None
    async with LLMManager.open(config) as manager:
        assert list(manager.get_status()["providers"]) == ["openai"]
