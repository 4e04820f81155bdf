"""Where a configuration comes from, and what the environment adds to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.core.config import LLMConfig, load_config, locate
from llm.core.exceptions import LLMConfigurationError

FILE = "providers: {%s: {type: local, models: [m]}}\n"
CHECKOUT = Path(__file__).parents[3]


def first_provider(source: str | Path | None = None, **environ: str) -> str:
    return load_config(source, environ=environ).default_provider


def test_the_first_that_exists_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert first_provider() == "local"
    assert locate({}) is None
    (tmp_path / "llm.yaml").write_text(FILE % "in_folder")
    assert first_provider() == "in_folder"
    (tmp_path / "config").mkdir()
    (tmp_path / "config/llm.yaml").write_text(FILE % "in_config")
    assert first_provider() == "in_config"
    (tmp_path / "other.yaml").write_text(FILE % "named")
    assert first_provider(LLM_CONFIG="other.yaml") == "named"
    assert first_provider(LLM_CONFIG="") == "in_config"
    (tmp_path / "argument.yaml").write_text(FILE % "argument")
    assert first_provider("argument.yaml", LLM_CONFIG="other.yaml") == "argument"
    assert first_provider(tmp_path / "argument.yaml") == "argument"


def test_the_process_environment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM_CONFIG", "other.yaml")
    (tmp_path / "other.yaml").write_text(FILE % "${NOT_IN_NAMES}")
    with pytest.raises(LLMConfigurationError, match=r"other\.yaml"):
        load_config()
    (tmp_path / "other.yaml").write_text(FILE % "named")
    assert load_config().default_provider == "named"


def test_a_configuration_is_returned_as_it_is() -> None:
    config = load_config({}, environ={})
    assert load_config(config) is config
    assert LLMConfig.model_validate(config) is config


@pytest.mark.parametrize(
    ("name", "message"),
    [("no.yaml", "there is no such file; correct the path"), ("", "Is a directory"), ("a\0b", "cannot be read")],
)
def test_a_named_file_that_cannot_be_read_says_which_and_what_to_do(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(LLMConfigurationError) as caught:
        load_config(f"{tmp_path}/{name}", environ={})
    assert message in str(caught.value)
    assert caught.value.file == str(tmp_path / name)
    with pytest.raises(LLMConfigurationError, match=r"named by LLM_CONFIG"):
        load_config(environ={"LLM_CONFIG": f"{tmp_path}/no.yaml"})


def test_what_is_no_source_is_refused_by_its_type() -> None:
    with pytest.raises(LLMConfigurationError, match="expected a path, a mapping, an LLMConfig or None, found a whole"):
        load_config(3, environ={})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] # the point
    with pytest.raises(LLMConfigurationError, match="there is no such file"):
        load_config("~nobody-of-this-name/llm.yaml", environ={})


def test_without_anything_there_is_the_local_provider() -> None:
    sources: list[dict[str, object]] = [{}, {"providers": None}, {"providers": {}}]
    for source in sources:
        config = load_config(source, environ={"OPENAI_API_KEY": " , "})
        assert list(config.providers) == ["local"]
        assert config.providers["local"].type == "local"
        assert [slot.model for slot in config.providers["local"].slots] == ["smollm2-135m"]
        assert config.providers["local"].slots[0].key is None


def test_keys_in_the_environment_make_providers() -> None:
    environ = {
        "OPENROUTER_API_KEY": "r",
        "ANTHROPIC_API_KEY": "a",
        "OPENAI_API_KEY": "o1, o2,",
        "OPENAI_BASE_URL": "http://127.0.0.1:9000/v1",
    }
    config = load_config({"retry": {"max_attempts": 1}}, environ=environ)
    assert list(config.providers) == ["openai", "anthropic", "openrouter"]
    assert config.default_provider == "openai"
    assert config.retry.max_attempts == 1
    openai = config.providers["openai"]
    assert openai.base_url == "http://127.0.0.1:9000/v1"
    assert config.providers["anthropic"].base_url is None
    slots = [(slot.key.reveal() if slot.key else None, slot.model) for slot in openai.slots]
    assert slots == [("o1", "gpt-4o-mini"), ("o1", "*"), ("o2", "gpt-4o-mini"), ("o2", "*")]
    assert len({slot.account for slot in openai.slots}) == 2


def test_providers_of_the_file_leave_the_environment_alone() -> None:
    config = load_config({"providers": {"local": {"models": "m"}}}, environ={"OPENAI_API_KEY": "k"})
    assert list(config.providers) == ["local"]


def test_mistakes_in_the_environment_name_the_variable() -> None:
    environ = {
        "OPENAI_API_KEY": "two words",
        "OPENAI_BASE_URL": "nowhere",
        "LLM__CACHE__TTL": "soon",
        "LLM__CACH__TTL": "3",
        "LLM__RETRY": "3",
        "LLM__": "3",
        "LLM__GLOBAL__FALLBACK__1": "openai",
    }
    with pytest.raises(LLMConfigurationError) as caught:
        load_config({"global": {"fallback": ["openai"]}}, environ=environ)
    text = str(caught.value)
    assert all(f"(set by {name})" in text for name in list(environ)[:5])
    assert "LLM__: expected LLM__SECTION__FIELD" in text
    assert "LLM__GLOBAL__FALLBACK__1: names a part of something that has no parts" in text


def test_any_field_is_set_by_a_variable() -> None:
    environ = {
        "LLM__RETRY__MAX_ATTEMPTS": "2",
        "LLM__RETRY__AFTER_SEND": "false",
        "LLM__CACHE": "null",
        "LLM__CIRCUIT_BREAKER__WINDOW": "1.5",
        "LLM__GLOBAL__MIDDLEWARE": "[retry, cache]",
        "LLM__GLOBAL__TIMEOUT": "null",
        "LLM__LIMITS__GLOBAL__REQUESTS_PER_MINUTE": "7",
        "LLM__PROVIDERS__MINE__API_KEYS": "0123",
        "LLM__PROVIDERS__MINE__MODELS__1": "123",
        "LLM__GATEWAY__API_KEYS__BOB__KEY": "[bob",
        "LLM__ALIASES": "{fast: {targets: [Mine/a]}}",
        "llm__retry__max_attempts": "9",
    }
    source = {"cache": {"ttl": 3}, "global": {"timeout": 3}, "providers": {"Mine": {"type": "x", "models": ["a", "b"]}}}
    config = load_config(source, environ=environ)
    assert config.retry.max_attempts == 2
    assert config.retry.after_send is False
    assert config.cache is None
    assert config.circuit_breaker is not None
    assert config.circuit_breaker.window == 1.5
    assert config.global_.middleware == ("retry", "cache")
    assert config.global_.timeout is None
    assert config.limits.global_.requests_per_minute == 7
    assert config.providers["Mine"].models == ("a", "123")
    assert [key.reveal() for key in config.providers["Mine"].api_keys] == ["0123"]
    assert config.aliases["fast"].targets == ("Mine/a",)
    assert source["providers"] == {"Mine": {"type": "x", "models": ["a", "b"]}}


def test_a_variable_changes_what_the_environment_made_and_only_once() -> None:
    assert load_config({}, environ={"LLM__PROVIDERS__LOCAL__DEVICE": "cpu"}).providers["local"].device == "cpu"
    assert load_config({}, environ={}).providers["local"].device == "auto"


def test_references_are_replaced_inside_values(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xef\xbb\xbfsk-from-file\r\n")
    (tmp_path / "llm.yaml").write_text(
        "gateway: {host: 'a-${A}-${B:-b}-${C:-}-$${A}-$A', port: '${PORT}'}\n"
        "cache: {streams: '${OFF}', ttl: '${TTL:-9}'}\n"
        "providers: {p: {api_keys: ['${file:key}', 'x${A}', '$${A}'], models: '${MODEL}', base_url: 'http://${A}/'}}\n"
    )
    environ = {"A": "1", "C": "", "PORT": "81", "OFF": "false", "MODEL": "12", "B": ""}
    config = load_config(tmp_path / "llm.yaml", environ=environ)
    assert config.gateway.host == "a-1-b--${A}-$A"
    assert config.gateway.port == 81
    assert config.cache is not None
    assert (config.cache.streams, config.cache.ttl) == (False, 9.0)
    provider = config.providers["p"]
    assert [key.reveal() for key in provider.api_keys] == ["sk-from-file", "x1", "${A}"]
    assert provider.models == ("12",)
    assert provider.base_url == "http://1/"


def test_a_mapping_has_references_too() -> None:
    config = load_config({"gateway": {"host": "${HOST_NAME}"}}, environ={"HOST_NAME": "h"})
    assert config.gateway.host == "h"


@given(text=st.text(min_size=1).filter(str.strip))
def test_what_a_variable_holds_never_becomes_structure(text: str) -> None:
    config = load_config({"gateway": {"host": "${HOST_NAME}"}, "global": {"timeout": 3}}, environ={"HOST_NAME": text})
    assert config.gateway.host == text


@pytest.mark.parametrize("content", [b"x" * 70_000, b"\xff\xfe"])
def test_a_file_that_is_no_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(LLMConfigurationError, match=r"the file .*key is (larger than|not UTF-8)"):
        load_config({"gateway": {"host": f"${{file:{tmp_path}/key}}"}}, environ={})


def test_a_pipe_is_a_file() -> None:
    reader, writer = os.pipe()
    os.write(writer, (FILE % "piped").encode())
    os.close(writer)
    try:
        assert first_provider(f"/dev/fd/{reader}") == "piped"
    finally:
        os.close(reader)


def test_the_shipped_file_is_valid_under_every_environment_and_says_the_defaults() -> None:
    file = CHECKOUT / "config/llm.yaml"
    defaults = load_config({"cache": {}, "circuit_breaker": {}}, environ={})
    assert load_config(file, environ={}) == defaults
    assert list(load_config(file, environ={"ANTHROPIC_API_KEY": "k"}).providers) == ["anthropic"]


def test_the_shipped_file_is_valid_with_its_comments_taken_away(tmp_path: Path) -> None:
    text = (CHECKOUT / "config/llm.yaml").read_text(encoding="utf-8")
    before, _, after = text.partition("# providers:\n")
    section, gap, rest = after.partition("\n\n")
    uncommented = "\n".join(line.removeprefix("#") for line in section.splitlines())
    (tmp_path / "llm.yaml").write_text(f"{before}providers:\n{uncommented}{gap}{rest}", encoding="utf-8")
    environ = {"ANTHROPIC_KEY_1": "a", "ANTHROPIC_KEY_2": "b", "OPENAI_API_KEY": "c", "OPENROUTER_API_KEY": "d"}
    with pytest.raises(LLMConfigurationError) as caught:
        load_config(tmp_path / "llm.yaml", environ=environ)
    assert [problem.field for problem in caught.value.problems] == ["providers.anthropic.api_keys[2]"]


def test_a_key_in_a_variable_is_text_whatever_it_looks_like() -> None:
    config = load_config({"providers": {"p": {"models": "m"}}}, environ={"LLM__PROVIDERS__P__API_KEYS": "null"})
    assert [key.reveal() for key in config.providers["p"].api_keys] == ["null"]


def test_mistakes_of_the_file_come_before_those_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "llm.yaml").write_text("retry: {max_attempts: 0}\n")
    with pytest.raises(LLMConfigurationError) as caught:
        load_config(tmp_path / "llm.yaml", environ={"LLM__CACHE__TTL": "0"})
    assert [problem.field for problem in caught.value.problems] == ["retry.max_attempts", "cache.ttl"]
