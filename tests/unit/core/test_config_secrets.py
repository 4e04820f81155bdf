"""Promises 29 and 30: a planted key is searched for wherever a configuration, or an error about one, is shown."""

from __future__ import annotations

import json
import logging
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import pydantic.main
import pytest
from pydantic import BaseModel, ValidationError

from llm.core.config import GatewayKey, LLMConfig, ProviderConfig, load_config
from llm.core.exceptions import LLMConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

PLANTED = "plantedplanted"
KEY = f"{PLANTED}-0123456789"


def everything(error: BaseException) -> str:
    """Return all that a log or a crash report can show of an exception."""
    shown = [repr(error), str(error), repr(error.args), repr(vars(error))]
    here: BaseException | None = error
    while here is not None:
        frames = traceback.TracebackException.from_exception(here, capture_locals=True)
        # The first frame is this file's own, which has to know the key; `model_validate` keeps what it was given.
        not_ours = (__file__, pydantic.main.__file__)
        frames.stack = traceback.StackSummary.from_list(
            [frame for frame in frames.stack if frame.filename not in not_ours]
        )
        shown += ["".join(frames.format(chain=False)), repr(here)]
        here = here.__cause__ or here.__context__
    return "\n".join(shown)


def whole() -> dict[str, Any]:
    return {
        "providers": {"openai": {"api_keys": [KEY, f"{KEY}2"], "models": "m"}},
        "gateway": {"api_keys": {"bob": {"key": f"{KEY}3"}}},
        "cache": {"backend": "redis", "url": f"redis://user:{KEY}@h:1/0"},
        "limits": {"store": "redis", "url": f"rediss://:{KEY}@h:1/0"},
    }


def test_a_configuration_shows_no_key() -> None:
    config = load_config(whole(), environ={})
    provider = config.providers["openai"]
    assert provider.slots[0].key is not None
    assert provider.slots[0].key.reveal() == KEY
    shown = [
        *(repr(config), str(config), f"{config}", repr(provider), repr(provider.slots), repr(config.gateway)),
        *(repr(config.model_dump()["providers"]), repr(provider.model_dump()), provider.model_dump_json()),
        *(json.dumps(config.masked()), config.model_dump_json(include={"providers", "gateway"})),
        *(repr(vars(config)), repr(list(config)), logging.Formatter().format(logging.makeLogRecord({"msg": config}))),
    ]
    assert [text for text in shown if PLANTED in text] == []
    masked = config.masked()
    assert masked["providers"]["openai"]["api_keys"] == ["**********"] * 2
    assert masked["cache"]["url"] == "redis://user:**********@h:1/0"
    assert masked["limits"]["url"] == "rediss://:**********@h:1/0"


def test_a_gateway_key_is_hashed_as_it_is_read_and_forgotten() -> None:
    entry = load_config(whole(), environ={}).gateway.api_keys["bob"]
    assert entry.key is None
    assert entry.key_hash is not None
    assert entry.key_hash.startswith("sha256:")
    assert len(entry.key_hash) == 71
    assert (entry.user, entry.models, entry.expires) == ("bob", ("*",), None)
    with pytest.raises(ValidationError, match="keep key_hash"):
        GatewayKey.model_validate({"key": "k", "key_hash": "sha256:" + "0" * 64})


def test_the_configuration_cannot_be_pickled() -> None:
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(load_config(whole(), environ={}))


def wrong(change: dict[str, Any]) -> dict[str, Any]:
    return whole() | change


MISTAKES: dict[str, dict[str, Any]] = {
    "another field": wrong({"retry": {"max_attempts": "x"}}),
    "lists that disagree": wrong({"providers": {"p": {"api_keys": [KEY, KEY], "models": ["a", "b", "c"]}}}),
    "groups that disagree": wrong(
        {"providers": {"p": {"api_keys": [KEY, KEY], "models": "m", "quota_groups": ["a", "b"]}}}
    ),
    "limits that disagree": wrong(
        {
            "providers": {
                "p": {"api_keys": [KEY, KEY], "models": "m", "rate_limits": [{"cost_per_day": 1}, {"cost_per_day": 2}]}
            }
        }
    ),
    "no models": wrong({"providers": {"p": {"api_keys": KEY}}}),
    "misspelt name": wrong({"providers": {"openai": {"api_key": KEY, "models": "m"}}}),
    "key with a line break": wrong({"providers": {"p": {"api_keys": f"{KEY}\n", "models": "m"}}}),
    "keys as a mapping": wrong({"providers": {"p": {"api_keys": {"a": KEY}, "models": "m"}}}),
    "keys in lists of lists": wrong({"providers": {"p": {"api_keys": [[KEY]], "models": "m"}}}),
    "key as bytes": wrong({"providers": {"p": {"api_keys": [KEY.encode()], "models": "m"}}}),
    "key for a hash": wrong({"gateway": {"api_keys": {"bob": {"key_hash": KEY}}}}),
    "key and hash": wrong({"gateway": {"api_keys": {"bob": {"key": KEY, "key_hash": "sha256:" + "0" * 64}}}}),
    "key where a section should be": wrong({"gateway": KEY, "providers": KEY}),
    "key for a number": wrong({"gateway": {"port": KEY}, "retry": {"after_send": KEY}, "cache": {"backend": KEY}}),
    "key for an address": wrong({"cache": {"url": KEY}, "limits": {"url": f"http://{KEY}"}}),
    "key in a reference": wrong({"gateway": {"host": f"${{{KEY}}}"}}),
    "key for a date": wrong({"gateway": {"api_keys": {"bob": {"key": KEY, "expires": KEY}}}}),
}


READERS = ("mapping", "file", "environment", "model")
ONLY_FOR = {"key as bytes": ("mapping", "model"), "key in a reference": ("mapping", "file")}


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@pytest.mark.parametrize(
    ("mistake", "reader"), [(mistake, reader) for mistake in MISTAKES for reader in ONLY_FOR.get(mistake, READERS)]
)
def test_no_error_shows_a_key(tmp_path: Path, mistake: str, reader: str) -> None:
    with pytest.raises(LLMConfigurationError) as caught:
        read(MISTAKES[mistake], reader, tmp_path / "llm.yaml")
    assert PLANTED not in everything(caught.value)


def read(content: dict[str, Any], reader: str, file: Path) -> None:
    match reader:
        case "mapping":
            load_config(content, environ={"SOMETHING": KEY})
        case "file":
            file.write_text(json.dumps(content))
            load_config(file, environ={"SOMETHING": KEY})
        case "environment":
            sections = {f"LLM__{name.upper()}": json.dumps(value) for name, value in content.items()}
            load_config({}, environ=sections | {"OPENAI_API_KEY": KEY})
        case _:
            LLMConfig.model_validate(content)


@pytest.mark.parametrize(
    "text",
    [
        f"providers: {{p: {{api_keys: [{KEY}",
        f"providers:\n  p:\n    api_keys: {KEY}\n  models: [x\n",
        f"api_keys: *{KEY}",
        f"api_keys: &{KEY} a\nb: &{KEY} c",
        f"api_keys: !{KEY} a",
        f"api_keys: !{KEY}!x a",
        f"%{KEY} 3\n--- 4",
        f'api_keys: "{KEY}\\q"',
        f"{KEY}",
        f"- {KEY}",
        f"api_keys: {KEY}: x",
        f"api_keys: '{KEY}' {KEY}",
        f"a: {{[{KEY}]: 3}}",
        f"api_keys: {KEY}\x01",
    ],
)
def test_no_syntax_error_shows_a_key(tmp_path: Path, text: str) -> None:
    (tmp_path / "llm.yaml").write_text(text)
    with pytest.raises(LLMConfigurationError) as caught:
        load_config(tmp_path / "llm.yaml", environ={"OPENAI_API_KEY": KEY})
    assert PLANTED not in everything(caught.value)


def test_a_key_of_a_known_form_is_masked_where_a_name_should_be() -> None:
    with pytest.raises(LLMConfigurationError) as caught:
        load_config({"providers": {"openai": {"sk-proj-0123456789": "", "models": "m", "api_keys": "k"}}}, environ={})
    assert "sk-proj" not in everything(caught.value)
    assert caught.value.field == "providers.openai.**********"


def test_pydantics_own_errors_show_no_input() -> None:
    for model, content in (
        (ProviderConfig, {"api_keys": [f"{KEY} x"], "models": 3, "x": KEY}),
        (GatewayKey, {"x": KEY}),
    ):
        reader: type[BaseModel] = model
        with pytest.raises(ValidationError) as caught:
            reader.model_validate(content)
        assert PLANTED not in str(caught.value) + repr(caught.value)
