"""What `docs/operations.md` gives to those on duty holds: its tables, its rules for Prometheus, its dashboard."""

from __future__ import annotations

import asyncio
import json
import re
import runpy
import shutil
import subprocess
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from llm import LLMException, LLMManager, register_provider
from llm.core import exceptions
from llm.core.config import load_config
from llm.core.standing import EngineStanding
from llm.providers.local.stats import EngineStats
from llm.testing import FakeProvider, Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MODEL = "gpt-4o-mini"
OF_PROMETHEUS = {"up": {"job", "instance"}}
ADDED = {"job", "instance"}  # by Prometheus, to whatever it reads
COUNTED = ("_total", "_bucket", "_count", "_sum")
OVER_TIME = {"rate", "increase"}

Exposed = dict[str, list[dict[str, str]]]
"""The labels of each sample, by its name."""


@pytest.fixture(scope="module")
def exposed(gateway: Callable[..., Any], redis_server: Callable[..., Any]) -> Exposed:
    """What Prometheus reads of a gateway that has met answers, hits, streams, failures and refusals."""
    with redis_server() as redis:
        return asyncio.run(_exposed(gateway, redis.url))


class OnBox(FakeProvider):
    """A provider with an engine in this process."""

    def engine_standing(self) -> EngineStanding:
        return EngineStanding(asdict(EngineStats(running=1)), {})


async def _exposed(gateway: Callable[..., Any], store: str) -> Exposed:
    register_provider("onbox", lambda _: OnBox())
    limits = {"requests_per_minute": 100, "cost_per_day": 10.0}
    faults = [Fault("auth", at=1), Fault("server_error", at=3), Fault("invalid", at=5)]
    async with MockUpstream("openai", faults=faults) as up:
        section = {"base_url": up.base_url, "api_keys": ["k1", "k2"], "models": [MODEL], "rate_limits": limits}
        config: dict[str, Any] = {
            "providers": {
                "openai": section,
                "gone": {
                    "type": "openai",
                    "base_url": "http://127.0.0.1:9/v1",
                    "api_keys": ["k"],
                    "models": ["gone"],
                },  # nobody listens
                "onbox": {"models": ["m"]},
            },
            "retry": {"max_attempts": 2, "initial_delay": 0.001},
            "limits": {"store": "redis", "url": store, "global": limits, "users": {"default": limits}},
            "cache": {},
            "circuit_breaker": {},
            "prices": {"gone": {"input": 1, "output": 1}},
            "gateway": {"api_keys": {"alice": {"key": "key-of-alice"}}},
        }
        async with gateway(config) as it:
            key = {"x-api-key": "key-of-alice"}
            for model, text in [(MODEL, "one"), (MODEL, "one"), (MODEL, "two"), (MODEL, "three"), ("gone", "four")]:
                await it.ask("POST", "/v1/chat/completions", _chat(model, text), headers=key)
            await it.events("/v1/chat/completions", _chat(MODEL, "five", stream=True), headers=key)
            await it.ask("GET", "/v1/models")
            status, told, _ = await it.ask("GET", "/v1/metrics", headers=key)
    assert status == 200
    found: Exposed = {}
    for family in text_string_to_metric_families(told):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def _chat(model: str, text: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - what a body holds
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


@dataclass
class Read:
    """What an expression asks for.

    Attributes:
        used: Metrics, each with its matchers: label, whether it is to match, pattern, whether that is an expression.
        grouped: Labels that it groups by, or leaves out.
        over_time: Metrics whose growth it asks for.
    """

    used: list[tuple[str, list[tuple[str, bool, str, bool]]]] = field(default_factory=list[Any])
    grouped: set[str] = field(default_factory=set[str])
    over_time: set[str] = field(default_factory=set[str])


def read(expression: str) -> Read:
    """Return what an expression asks for; Grafana's own times stand for five minutes."""
    found = Read()
    _walk(promql.parse(re.sub(r"\$__\w+", "5m", expression)), found)
    return found


def _walk(node: Any, found: Read) -> None:  # noqa: ANN401 - any kind of expression
    match node:
        case promql.VectorSelector():
            matchers = [
                (m.name, m.op in (promql.MatchOp.Equal, promql.MatchOp.Re), m.value, m.op in _PATTERNS)
                for m in node.matchers.matchers
            ]
            found.used.append((str(node.name), matchers))
        case promql.MatrixSelector():
            _walk(node.vector_selector, found)
        case promql.Call():
            if node.func.name in OVER_TIME:
                found.over_time |= {arg.vector_selector.name for arg in node.args}
            for arg in node.args:
                _walk(arg, found)
        case promql.AggregateExpr():
            found.grouped |= set(node.modifier.labels) if node.modifier else set()
            _walk(node.expr, found)
        case promql.BinaryExpr():
            if node.modifier is not None and node.modifier.matching is not None:
                found.grouped |= set(node.modifier.matching.labels)
            _walk(node.lhs, found)
            _walk(node.rhs, found)
        case promql.ParenExpr():
            _walk(node.expr, found)
        case _:
            assert isinstance(node, promql.NumberLiteral), node


_PATTERNS = (promql.MatchOp.Re, promql.MatchOp.NotRe)


def matches(labels: dict[str, str], matcher: tuple[str, bool, str, bool]) -> bool:
    label, wanted, value, is_pattern = matcher
    if label in ADDED or value.startswith("$"):  # Prometheus' own; a variable of the dashboard
        return True
    equal = bool(re.fullmatch(value, labels[label])) if is_pattern else value == labels[label]
    return equal == wanted


def check(expression: str, exposed: Exposed) -> set[str]:
    """Fail where an expression uses what the exposition does not have; return the labels that its result may have."""
    found = read(expression)
    assert found.used, f"no metric in {expression}"
    known = set(ADDED)
    for metric, matchers in found.used:
        if metric in OF_PROMETHEUS:
            continue
        assert metric in exposed, f"{metric} in {expression}"
        labels = set(exposed[metric][0])
        assert {matcher[0] for matcher in matchers} <= labels | ADDED, expression
        assert any(all(matches(row, m) for m in matchers) for row in exposed[metric]), f"nothing: {expression}"
        assert (metric in found.over_time) == metric.endswith(COUNTED), f"a counter grows, a gauge is: {expression}"
        known |= labels
    assert found.grouped <= known, expression
    return found.grouped or known


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("rate(llm_call_total[5m]) > 1", "llm_call_total in"),
        ('rate(llm_calls_total{result="failed"}[5m])', "result"),
        ('rate(llm_calls_total{outcome="fails"}[5m])', "nothing"),
        ("sum by (models) (rate(llm_calls_total[5m]))", "models"),
        ("llm_calls_total > 2", "a counter grows"),
        ("rate(llm_waiting_calls[5m])", "a counter grows"),
        ("1 + 2", "no metric"),
    ],
)
def test_a_metric_a_label_or_a_value_that_is_not_told_is_seen(wrong: str, why: str, exposed: Exposed) -> None:
    with pytest.raises(AssertionError, match=why):
        check(wrong, exposed)


def test_an_expression_that_is_none_is_seen(exposed: Exposed) -> None:
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        check("sum(rate(llm_calls_total[5m])", exposed)


def rules(root: Path) -> list[dict[str, Any]]:
    loaded = yaml.safe_load((root / "docs" / "operations" / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def test_the_alerts_use_what_is_told(root: Path, exposed: Exposed) -> None:
    found = rules(root)
    for rule in found:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"] in ({"severity": "page"}, {"severity": "ticket"})
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
        labels = check(rule["expr"], exposed)
        assert set(rule["annotations"]) == {"summary", "runbook"}
        assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= labels, rule["alert"]
    names = [rule["alert"] for rule in found]
    assert len(set(names)) == len(names)


def test_the_page_says_what_to_do_for_every_alert(root: Path) -> None:
    told = sections(root, "When an alert fires")
    assert list(told) == [rule["alert"] for rule in rules(root)]
    for rule in rules(root):
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
    assert all(len(text.split()) > 8 for text in told.values())


def test_every_alert_fires_on_what_it_is_for_and_on_nothing_else(root: Path) -> None:
    """By Prometheus' own program, over the series of `alerts.test.yml`."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not there; it comes with Prometheus")
    folder = root / "docs" / "operations"
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]):
        done = subprocess.run([promtool, *command], cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - ours
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_of_its_own(root: Path) -> None:
    loaded = yaml.safe_load((root / "docs" / "operations" / "alerts.test.yml").read_text(encoding="utf-8"))
    tried = [each for test in loaded["tests"] for each in test["alert_rule_test"]]
    fires = {each["alertname"] for each in tried if each.get("exp_alerts")}
    rests = {each["alertname"] for each in tried if not each.get("exp_alerts")}
    assert fires == rests == {rule["alert"] for rule in rules(root)}


@pytest.fixture(scope="module")
def dashboard(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "docs" / "operations" / "dashboard.json").read_text(encoding="utf-8"))
    return found


def test_the_dashboard_is_what_its_program_writes(root: Path) -> None:
    folder = root / "docs" / "operations"
    program = runpy.run_path(str(folder / "dashboard.py"))
    assert program["written"]() == (folder / "dashboard.json").read_text(encoding="utf-8")


def targets(dashboard: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel, target


def test_the_dashboard_asks_for_what_is_told_and_for_all_of_it(dashboard: dict[str, Any], exposed: Exposed) -> None:
    used: set[str] = set()
    for _, target in targets(dashboard):
        labels = check(target["expr"], exposed)
        used |= {metric for metric, _ in read(target["expr"]).used}
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels, target["expr"]
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed if name.startswith("llm_")}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    assert families - shown == {"llm_gateway_model_info", "llm_gateway_tokens_generated_total"}


def test_every_panel_says_what_it_shows_in_its_unit_from_the_chosen_source(dashboard: dict[str, Any]) -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    for panel in panels:
        assert panel["targets"]
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == source
        assert len({target["legendFormat"] for target in panel["targets"]}) == len(panel["targets"])
    for _, target in targets(dashboard):
        assert target["datasource"] == source
        for part in re.findall(r"\[(.+?)\]", target["expr"]):
            assert part in {"$__rate_interval", "1h", "24h"}
        assert target["expr"].count('instance=~"$instance"') == len(read(target["expr"]).used)


def test_what_one_may_choose_is_told(dashboard: dict[str, Any], exposed: Exposed) -> None:
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    chosen = {name for _, target in targets(dashboard) for name in re.findall(r'"\$(\w+)"', target["expr"])}
    assert set(variables) == {"datasource"} | chosen
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    for name in chosen:
        asked = re.fullmatch(r"label_values\((\w+)(?:{.*})?, (\w+)\)", variables[name]["query"]["query"])
        assert asked is not None
        assert asked[2] in ADDED | set(exposed[asked[1]][0])


def test_panels_stand_beside_each_other_and_have_numbers_of_their_own(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def sections(root: Path, heading: str) -> dict[str, str]:
    """Return the sections below one of the page's, by their headings."""
    page = (root / "docs" / "operations.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    return dict(re.findall(r"^### (\w+)\n\n(.*?)(?=^### |\Z)", found[1], re.MULTILINE | re.DOTALL))


def table(root: Path, head: str) -> list[str]:
    """Return the names in the first column of the page's table whose first column is headed so."""
    page = (root / "docs" / "operations.md").read_text(encoding="utf-8")
    found = re.search(rf"^\| {head} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert found is not None
    cells = [row.split("|")[1] for row in found[1].splitlines()]
    return [name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)]


def test_the_page_lists_every_metric(root: Path, exposed: Exposed) -> None:
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in exposed}
    ours = {name for name in families if not name.startswith("process_")}
    assert sorted(table(root, "metric")) == sorted(ours)


def test_the_page_says_what_to_do_for_every_exception(root: Path) -> None:
    kinds = [kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, LLMException)]
    told = sections(root, "What to do for each exception")
    assert list(told) == [kind.__name__ for kind in sorted(kinds, key=lambda kind: _line(root, kind))]


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
