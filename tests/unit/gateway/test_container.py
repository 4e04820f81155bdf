"""The bare names of a container's environment."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from llm.core.exceptions import LLMConfigurationError
from llm.gateway.container import Container, read_container

if TYPE_CHECKING:
    from pathlib import Path

OPENAI = "providers: {openai: {api_keys: [k], models: [gpt-4o-mini]}}\n"
BOTH = "providers: {openai: {api_keys: [k], models: [gpt-4o-mini]}, here: {type: local, models: [smollm2-135m]}}\n"


def read(folder: Path, text: str = OPENAI, **environ: str) -> tuple[Any, Container, dict[str, str]]:
    path = folder / "llm.yaml"
    path.write_text(text, encoding="utf-8")
    return *read_container(environ, path), environ


def test_without_any_the_configuration_stands(tmp_path: Path) -> None:
    config, container, environ = read(tmp_path)
    assert (config.gateway.host, config.gateway.port) == ("127.0.0.1", 8000)
    assert container == Container(level=logging.INFO)
    assert environ == {}


def test_host_and_port_go_before_the_file_and_behind_the_fields_own_variables(tmp_path: Path) -> None:
    text = OPENAI + "gateway: {host: 127.0.0.2, port: 1}\n"
    config, _, _ = read(tmp_path, text, HOST="127.0.0.3", PORT="2")
    assert (config.gateway.host, config.gateway.port) == ("127.0.0.3", 2)
    config, _, _ = read(tmp_path, text, HOST="127.0.0.3", PORT="2", LLM__GATEWAY__PORT="3")
    assert (config.gateway.host, config.gateway.port) == ("127.0.0.3", 3)


def test_they_hold_for_every_reading_after_the_first(tmp_path: Path) -> None:
    _, _, environ = read(tmp_path, HOST="127.0.0.3", PORT="2")
    del environ["HOST"], environ["PORT"]
    config, _ = read_container(environ, tmp_path / "llm.yaml")
    assert (config.gateway.host, config.gateway.port) == ("127.0.0.3", 2)


def test_model_and_device_are_those_of_the_model_on_this_machine(tmp_path: Path) -> None:
    config, container, _ = read(tmp_path, "{}", MODEL_NAME="me/my-model", DEVICE="cpu")
    assert config.providers["local"].models == ("me/my-model",)
    assert config.providers["local"].device == "cpu"
    assert container.model is None


def test_where_another_provider_is_the_default_it_is_the_model_of_who_names_none(tmp_path: Path) -> None:
    config, container, _ = read(tmp_path, BOTH, MODEL_NAME="here/smollm2-135m", DEVICE="cuda:1")
    assert config.providers["openai"].models == ("gpt-4o-mini",)
    assert config.providers["here"].device == "cuda:1"
    assert container.model == "here/smollm2-135m"


def test_the_rest_is_read(tmp_path: Path) -> None:
    words = {"MAX_LENGTH": "64", "TEMPERATURE": "0.5", "METRICS_ENABLED": "False", "LOG_LEVEL": "warning"}
    _, container, _ = read(tmp_path, **words)
    assert container == Container(None, 64, 0.5, metrics=False, level=logging.WARNING)
    _, container, _ = read(tmp_path, **dict.fromkeys(words, " "))
    assert container == Container()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_LENGTH", "0"),
        ("MAX_LENGTH", "many"),
        ("TEMPERATURE", "3"),
        ("TEMPERATURE", "nan"),
        ("METRICS_ENABLED", "maybe"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_one_is_named_with_what_was_expected(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(LLMConfigurationError, match=f"{name}: expected "):
        read(tmp_path, **{name: value})


def test_a_wrong_port_is_named_with_its_field(tmp_path: Path) -> None:
    with pytest.raises(LLMConfigurationError, match=r"gateway\.port"):
        read(tmp_path, PORT="high")
