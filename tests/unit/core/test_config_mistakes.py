"""Promise 31: bad configurations are refused with file, line and field, all mistakes in one message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm.core.config import LLMConfig, load_config
from llm.core.exceptions import ConfigProblem, LLMConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

LOCAL = "providers: {local: {models: [m]}}\n"
PROVIDER = "providers:\n  p:\n    "


def problems_of(text: str | bytes, folder: Path, environ: dict[str, str] | None = None) -> tuple[ConfigProblem, ...]:
    file = folder / "llm.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LLMConfigurationError) as caught:
        load_config(file, environ=environ or {})
    problems = caught.value.problems
    assert {problem.file for problem in problems} <= {str(file), None}
    assert all(str(problem) in str(caught.value) for problem in problems)
    return problems


@pytest.mark.parametrize(
    ("text", "line", "column", "field", "message"),
    [
        # The file itself.
        ("- 1", 1, 1, "", "expected a mapping of sections at the top"),
        ("retry:\n\tmax_attempts: 1", 2, 1, "", "a tab; indent with spaces"),
        ("retry: {max_attempts: 1", 1, 24, "", "no valid YAML"),
        ("retry: 'open", 1, 13, "", "no valid YAML: found unexpected end of stream"),
        ("pool: {}\n---\nretry: {}", 2, 1, "", "a second document"),
        ("retry: *nowhere", 1, 8, "", "an alias"),
        ("retry: {}\npool: \x01", 2, 7, "", "a character that YAML does not allow"),
        (b"retry: {}\npool: \xff", 2, 7, "", "is not UTF-8 text; save it as UTF-8"),
        ("[" * 1000, 1, 1, "", "nested too deep"),
        ("aliases: &a {x: *a}", 1, 10, "aliases.x", "an alias here refers to what it stands in"),
        ("retry: !!python/object:os.system {}", 1, 8, "retry", "a YAML tag that is not allowed"),
        ("retry: {max_attempts: !mine 3}", 1, 23, "retry.max_attempts", "a YAML tag that is not allowed"),
        ("{[a]: 1}", 1, 2, "", "a field's name must be text"),
        ("retry:\n  <<: 3", 2, 7, "retry", "`<<` takes a mapping"),
        # Names.
        ("retry: {}\nretry: {}", 2, 1, "retry", "is here twice; the first is in line 1, column 1"),
        ("retri: {}", 1, 1, "retri", 'unknown field (did you mean "retry"?)'),
        ("global_: {}", 1, 1, "global_", 'unknown field (did you mean "global"?)'),
        ("cache:\n  tll: 3", 2, 3, "cache.tll", 'unknown field (did you mean "ttl"?)'),
        ("global: {timeouts: {conect: 3}}", 1, 21, "global.timeouts.conect", 'did you mean "connect"?'),
        ("limits: {users: {bob: {rpm: 3}}}", 1, 24, "limits.users.bob.rpm", "unknown field"),
        (PROVIDER + "models: [m]\n    api_key: k", 4, 5, "providers.p.api_key", 'did you mean "api_keys"?'),
        (PROVIDER + "models: [m]\n    rate_limits: [{}, {rpm: 3}]", 4, 24, "providers.p.rate_limits[1].rpm", "unknown"),
        ("providers: {a/b: {models: [m]}}", 1, 13, "providers.a/b", "a provider's name has letters"),
        # Types and ranges.
        ("retry: 3", 1, 8, "retry", "expected a mapping, found a whole number"),
        ("retry: {max_attempts: many}", 1, 23, "retry.max_attempts", "expected a whole number, found text"),
        ('retry: {max_attempts: "4"}', 1, 23, "retry.max_attempts", "expected a whole number, found text"),
        ("retry: {max_attempts: true}", 1, 23, "retry.max_attempts", "expected a whole number, found true or false"),
        ("retry: {max_attempts: 1.5}", 1, 23, "retry.max_attempts", "expected a whole number, found a number"),
        ("retry: {max_attempts: }", 1, 22, "retry.max_attempts", "expected a whole number, found nothing"),
        ("retry: {max_attempts: 0}", 1, 23, "retry.max_attempts", "expected a number of at least 1"),
        ("retry: {after_send: 1}", 1, 21, "retry.after_send", "expected true or false, found a whole number"),
        ("cache: {ttl: 0}", 1, 14, "cache.ttl", "expected a number above 0"),
        ("cache: {ttl: .nan}", 1, 14, "cache.ttl", "number"),
        ("cache: {ttl: .inf}", 1, 14, "cache.ttl", "expected a finite number"),
        ("cache: {ttl: 1" + "0" * 400 + "}", 1, 14, "cache.ttl", "expected a number of fewer digits"),
        ("cache: {max_entries: " + "9" * 5000 + "}", 1, 22, "cache.max_entries", "no such number or date"),
        ("cache: {backend: memroy}", 1, 18, "cache.backend", "or 'redis' (did you mean \"memory\"?)"),
        ("cache: {backend: redis}", 1, 8, "cache.url", "the redis backend needs its address"),
        ("cache: {url: http://x}", 1, 14, "cache.url", "expected a URL that begins with redis://"),
        ("circuit_breaker: {failure_rate: 1.1}", 1, 33, "circuit_breaker.failure_rate", "at most 1"),
        ("gateway: {port: 70000}", 1, 17, "gateway.port", "expected a number of at most 65535"),
        ("limits: {global: {cost_per_day: -1}}", 1, 33, "limits.global.cost_per_day", "expected a number above 0"),
        ("retry: {initial_delay: 60}", 1, 24, "retry.initial_delay", "60 is more than max_delay, 30"),
        ("pool: {min_size: 9, max_size: 3}", 1, 18, "pool.min_size", "9 is more than max_size, 3"),
        ("prices: {m: {input: 1}}", 1, 13, "prices.m.output", "is missing"),
        # References.
        (LOCAL + "global: {default_provider: loca}", 2, 28, "global.default_provider", 'did you mean "local"?'),
        (LOCAL + "global: {fallback: [local, x]}", 2, 28, "global.fallback[1]", 'no provider "x"; there are: local'),
        (LOCAL + "global: {fallback: [local, local]}", 2, 28, "global.fallback[1]", "in the list twice"),
        ("global: {middleware: [retry, cahce]}", 1, 30, "global.middleware[1]", 'did you mean "cache"?'),
        ("global: {middleware: [retry, retry]}", 1, 30, "global.middleware[1]", "in the chain twice"),
        (LOCAL + "aliases: {a: {targets: [local]}}", 2, 25, "aliases.a.targets[0]", "expected `provider/model`"),
        (LOCAL + "aliases: {a: {targets: loca/m}}", 2, 24, "aliases.a.targets[0]", 'did you mean "local"?'),
        (LOCAL + "aliases: {a: {targets: local/n}}", 2, 24, "aliases.a.targets[0]", 'has no model "n"'),
        (LOCAL + "aliases: {a: {targets: []}}", 2, 24, "aliases.a.targets", "no targets"),
        (LOCAL + "aliases: {a: {}}", 2, 14, "aliases.a.targets", "is missing"),
        (LOCAL + "aliases: {a/b: {targets: local/m}}", 2, 11, "aliases.a/b", "an alias has no `/`"),
        (LOCAL + "aliases: {a: {targets: local/m, weights: [1]}}", 2, 42, "aliases.a.weights", "strategy: weighted"),
        (
            LOCAL + "aliases: {a: {targets: local/m, strategy: weighted, weights: [1, 2]}}",
            *(2, 62, "aliases.a.weights", "2 weights for 1 targets"),
        ),
        # A provider's lists.
        ("providers: {p: {api_keys: k}}", 1, 16, "providers.p.models", "no models; add `models:`"),
        ("providers: {groq: {models: m}}", 1, 19, "providers.groq.api_keys", "${GROQ_API_KEY}"),
        ("providers: {openai: {models: m}}", 1, 21, "providers.openai.api_keys", "no keys; add `api_keys: ["),
        (
            PROVIDER + "api_keys: [a, b, c]\n    models: [m, n]\n    quota_groups: g",
            *(3, 15, "providers.p.api_keys", "the lists disagree: api_keys has 3, models has 2;"),
        ),
        (
            PROVIDER + "models: [m]\n    api_keys: k\n    rate_limits: [{tokens_per_day: 1}, {tokens_per_day: 2}]",
            *(5, 40, "providers.p.rate_limits[1]", "rate_limits[0] and rate_limits[1] state different tokens_per_day"),
        ),
        (
            PROVIDER + "models: [m]\n    api_keys: [k, k]\n    quota_groups: [a, b]",
            *(5, 23, "providers.p.quota_groups[1]", "slots 0 and 1 have the same key but the groups 'a', 'b'"),
        ),
        (
            PROVIDER + "models: [m]\n    model_families: {f: [mm]}",
            *(4, 26, "providers.p.model_families.f[0]", "no slot has this model"),
        ),
        (
            PROVIDER + "models: [m]\n    model_families: {f: m, g: m}",
            *(4, 31, "providers.p.model_families.g[0]", "is in the family 'f' already"),
        ),
        (PROVIDER + "models: [m]\n    base_url: localhost:1", 4, 15, "providers.p.base_url", "begins with http://"),
        (PROVIDER + "models: [m]\n    api_keys: [a, '']", 4, 19, "providers.p.api_keys[1]", "the key is empty"),
        (PROVIDER + "models: [m]\n    api_keys: [12]", 4, 16, "providers.p.api_keys[0]", "put it in quotes"),
        # The gateway's keys.
        ("gateway: {api_keys: {a: {}}}", 1, 25, "gateway.api_keys.a", "has no key; run `manifold keys create`"),
        ("gateway: {api_keys: {a: {key_hash: abc}}}", 1, 36, "gateway.api_keys.a.key_hash", "sha256:"),
        ("gateway: {api_keys: {a: {key: k, expires: soon}}}", 1, 43, "gateway.api_keys.a.expires", "a date such as"),
        ("gateway: {api_keys: {a: {key: k, expires: 2027-13-01}}}", 1, 43, "gateway.api_keys.a.expires", "no such"),
        ("gateway: {cors_origins: ['*']}", 1, 26, "gateway.cors_origins[0]", "expected an exact origin"),
        (
            "gateway: {api_keys: {a: {key: k}, b: {key: k}}}",
            *(1, 38, "gateway.api_keys.b", 'has the same key as "a"'),
        ),
        # Variables.
        (
            "gateway: {host: '${NO}'}",
            1,
            17,
            "gateway.host",
            "the variable NO is not set; set it, or write ${NO:-default}",
        ),
        ("gateway: {port: '${HOME_PORT}'}", 1, 17, "gateway.port", 'did you mean "HOMEPORT"?'),
        ("gateway: {host: '${a b}'}", 1, 17, "gateway.host", "expected ${VARIABLE}"),
        ("gateway: {host: '${NO'}", 1, 17, "gateway.host", "`${` without its `}`"),
        ("gateway: {host: '${file:~nobody-at-all/x}'}", 1, 17, "gateway.host", "cannot be read: no usable path"),
        ("gateway: {host: '${file:/no/such}'}", 1, 17, "gateway.host", "/no/such cannot be read: No such file"),
        ("gateway: {port: '${WORD}'}", 1, 17, "gateway.port", "expected a whole number, found text"),
    ],
)
def test_each_mistake_is_told_with_its_place(  # noqa: PLR0913, PLR0917 - a row of the table each
    tmp_path: Path, text: str | bytes, line: int, column: int, field: str, message: str
) -> None:
    found = problems_of(text, tmp_path, {"HOMEPORT": "1", "WORD": "word"})
    assert [(problem.line, problem.column, problem.field) for problem in found] == [(line, column, field)]
    assert message in found[0].message


def test_all_mistakes_of_all_kinds_are_in_one_error_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = problems_of(
        "global:\n"
        "  default_provider: nobody\n"
        "  log_content: 3\n"
        "retry: {max_attempts: 0, max_attempts: 4}\n"
        "cache:\n"
        "  bakend: disk\n"
        "  ttl: ${TTL}\n"
        "providers:\n"
        "  a:\n"
        "    api_keys: ['${KEY}', k2]\n"
        "    models: [m, n, o]\n"
        "  b: 7\n"
        "  c: {models: [1, m], api_keys: [a, b, c], transport: pigeon}\n"
        "aliases:\n"
        "  x: {targets: [a/m, a/z, b/m, c/m, d/m]}\n"
        "gateway:\n"
        "  api_keys: {bob: {key: '${BOB}'}}\n",
        tmp_path,
    )
    assert [(problem.line, problem.field) for problem in found] == [
        (2, "global.default_provider"),
        (3, "global.log_content"),
        (4, "retry.max_attempts"),
        (4, "retry.max_attempts"),
        (6, "cache.bakend"),
        (7, "cache.ttl"),
        (10, "providers.a.api_keys"),
        (10, "providers.a.api_keys[0]"),
        (12, "providers.b"),
        (13, "providers.c.models[0]"),
        (13, "providers.c.transport"),
        (15, "aliases.x.targets[1]"),
        (15, "aliases.x.targets[4]"),
        (17, "gateway.api_keys.bob.key"),
    ]
    assert str(found[0]) == f"{tmp_path / 'llm.yaml'}:2:21: global.default_provider: {found[0].message}"


def test_a_mistake_hides_no_other_and_makes_none_up(tmp_path: Path) -> None:
    found = problems_of("providers: {p: {modells: [m], api_keys: [a, b]}}\nglobal: {fallback: [p, q]}\n", tmp_path)
    assert [problem.field for problem in found] == ["providers.p.modells", "global.fallback[1]"]


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_an_alias_bomb_is_refused(tmp_path: Path) -> None:
    lines = ["aliases: &a0 {x: y}"] + [f"prices{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    found = problems_of("\n".join(lines), tmp_path)
    assert [problem.message for problem in found].count("too many aliases") == 1


def test_anchors_and_merges_work_where_they_are_sane(tmp_path: Path) -> None:
    file = tmp_path / "llm.yaml"
    file.write_text(
        "providers:\n"
        "  a: &a {type: openai, base_url: http://h/v1, models: [m]}\n"
        "  b: {<<: *a, models: [n]}\n"
        "  c: {<<: [{models: [o]}, *a]}\n"
    )
    providers = load_config(file, environ={}).providers
    assert [(section.type, section.models) for section in providers.values()] == [
        *(("openai", ("m",)), ("openai", ("n",)), ("openai", ("o",)))
    ]


def test_a_mapping_is_checked_the_same_way_without_a_place() -> None:
    with pytest.raises(LLMConfigurationError) as caught:
        load_config(
            {"cache": {"ttl": -1}, "providers": {"p": {"api_keys": ("a", "b"), "models": ["m"] * 3}}}, environ={}
        )
    assert [(problem.field, problem.file, problem.line) for problem in caught.value.problems] == [
        ("cache.ttl", None, None),
        ("providers.p.api_keys", None, None),
    ]
    assert str(caught.value).startswith("the configuration has 2 mistakes\n  cache.ttl: expected a number above 0\n")


def test_the_model_itself_tells_all_mistakes_at_once() -> None:
    with pytest.raises(LLMConfigurationError) as caught:
        LLMConfig.model_validate({"cache": {"ttl": -1}, "global": {"fallback": ["x"]}, "providers": {"p": {}}})
    assert [problem.field for problem in caught.value.problems] == [
        *("cache.ttl", "providers.p.models", "global.fallback[0]")
    ]
    with pytest.raises(LLMConfigurationError, match="providers: no provider"):
        LLMConfig.model_validate({})
    with pytest.raises(LLMConfigurationError, match="expected a mapping"):
        LLMConfig.model_validate([])
