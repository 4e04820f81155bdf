"""An entry put into a YAML file and taken out again, with all else as it stands."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from llm.cli.editing import FormError, line_of, with_entry, without_entry

if TYPE_CHECKING:
    from pathlib import Path

PATH = ("gateway", "api_keys")
BOB = {"key_hash": "sha256:b", "models": ["*"]}
LINE = 'bob: {key_hash: "sha256:b", models: ["*"]}'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"gateway:\n  api_keys:\n    {LINE}\n"),
        ("# nothing yet\n", f"# nothing yet\n\ngateway:\n  api_keys:\n    {LINE}\n"),
        ("retry: {}", f"retry: {{}}\n\ngateway:\n  api_keys:\n    {LINE}\n"),
        ("gateway:\nretry: {}\n", f"gateway:\n  api_keys:\n    {LINE}\nretry: {{}}\n"),
        ("gateway:   # none\n", f"gateway:   # none\n  api_keys:\n    {LINE}\n"),
        ("gateway: {}\n", f"gateway:\n  api_keys:\n    {LINE}\n"),
        (
            "gateway:\n    port: 1  # ours\n# end\nretry: {}\n",
            f"gateway:\n    port: 1  # ours\n    api_keys:\n      {LINE}\n# end\nretry: {{}}\n",
        ),
        (
            "gateway:\n  api_keys: {}   # who may call\n  # alice: {}\n  port: 1\n",
            f"gateway:\n  api_keys:   # who may call\n    {LINE}\n  # alice: {{}}\n  port: 1\n",
        ),
        (
            "gateway:\n  api_keys:\n    # the first\n    alice: {key: a}  # hers\n\n  port: 1\n",
            f"gateway:\n  api_keys:\n    # the first\n    alice: {{key: a}}  # hers\n    {LINE}\n\n  port: 1\n",
        ),
        (
            "gateway:\n  api_keys:\n      alice:\n        models:\n        - m\n\n# end\n",
            f"gateway:\n  api_keys:\n      alice:\n        models:\n        - m\n      {LINE}\n\n# end\n",
        ),
        (
            "gateway:\r\n  api_keys:\r\n    alice: {key: a}\r\n",
            f"gateway:\r\n  api_keys:\r\n    alice: {{key: a}}\r\n    {LINE}\r\n",
        ),
        ("gateway:\n  api_keys:\n    alice: {key: a}", f"gateway:\n  api_keys:\n    alice: {{key: a}}\n    {LINE}"),
    ],
)
def test_an_entry_is_added_where_it_belongs_and_nothing_else_changes(before: str, after: str) -> None:
    assert with_entry(before, PATH, "bob", BOB) == after
    assert yaml.safe_load(without_entry(after, PATH, "bob"))["gateway"]["api_keys"] in ({}, _keys(before))


def _keys(text: str) -> object:
    read: Any = yaml.safe_load(text) or {}
    gateway: Any = read.get("gateway") or {}
    return gateway.get("api_keys") or {}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            f"gateway:\n  api_keys:   # who\n    {LINE}  # his\n  port: 1\n",
            "gateway:\n  api_keys: {}   # who\n  port: 1\n",
        ),
        (
            f"gateway:\n  api_keys:\n    alice: {{}}\n    # of bob\n    {LINE}\n    carol: {{}}\n",
            "gateway:\n  api_keys:\n    alice: {}\n    # of bob\n    carol: {}\n",
        ),
        (
            "gateway:\n  api_keys:\n    bob:\n      models:\n        - m\n      user: bob\n    carol: {}\n",
            "gateway:\n  api_keys:\n    carol: {}\n",
        ),
        ("gateway:\n  api_keys:\n    a: {}\n    'bob': {}", "gateway:\n  api_keys:\n    a: {}\n"),
    ],
)
def test_an_entry_is_taken_out_whole_and_nothing_else_changes(before: str, after: str) -> None:
    assert without_entry(before, PATH, "bob") == after


@pytest.mark.parametrize(
    "text",
    [
        "gateway: {port: 1}\n",
        "gateway:\n  api_keys: {alice: {key: a}}\n",
        "{}\n",
        "[1]\n",
        "gateway: 5\n",
        "gateway: [\n",
        "retry: {}\n...\n",
        "gateway:\n  api_keys:\n    bob: {}\ngateway:\n  api_keys:\n    bob: {}\n    eve: {}\n",
        "a: 1\n---\nb: 2\n",
    ],
)
def test_what_is_not_understood_is_not_edited(text: str) -> None:
    with pytest.raises(FormError):
        with_entry(text, PATH, "bob", BOB)
    with pytest.raises(FormError):
        without_entry(text, PATH, "bob")


@pytest.mark.parametrize("text", ["", "gateway: {}\n", "gateway:\n  api_keys:\n    alice: {key: a}\n"])
def test_what_is_not_there_is_not_taken_out(text: str) -> None:
    with pytest.raises(FormError):
        without_entry(text, PATH, "bob")


@pytest.mark.parametrize("name", ["bob", "no", "7", "a b", "ä: #", '"', "acme/ci", "null"])
def test_any_name_is_written_so_that_it_is_read_again(name: str) -> None:
    entry = {"user": name, "models": [name, "*"], "expires": date(2027, 12, 31)}
    assert yaml.safe_load(line_of(name, entry)) == {name: entry}


def test_the_shipped_configuration_takes_an_entry_and_gives_it_back(root: Path) -> None:
    shipped = (root / "config" / "llm.yaml").read_text(encoding="utf-8")
    edited = with_entry(shipped, PATH, "bob", BOB)
    lines = edited.splitlines()
    assert f"    {LINE}" in lines
    assert len(lines) == len(shipped.splitlines()) + 1
    again = without_entry(edited, PATH, "bob")
    assert [line.split() for line in again.splitlines()] == [line.split() for line in shipped.splitlines()]
