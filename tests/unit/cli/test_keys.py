"""`manifold keys`: a key made is shown once, and the file is changed in place."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from llm.cli.writing import Turn
from llm.core.config import load_config
from llm.utils.gateway_key import hash_of

if TYPE_CHECKING:
    from collections.abc import Callable

    Manifold = Callable[..., Any]
    Configure = Callable[..., None]

KEY = re.compile(r"sk-manifold-\w{49}\n")
PLAIN = """# ours
gateway:
  port: 8001   # not the usual one
  api_keys:
    # the first of all
    carol: {key: carols-own-secret, models: [a, b], expires: 2020-01-31}   # over
cache: {ttl: 60}   # the end
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "llm.yaml"


def test_a_new_key_alone_is_on_stdout_and_its_entry_on_stderr(manifold: Manifold, file: Path) -> None:
    done = manifold("keys", "create", "alice")
    assert done.status == 0
    assert KEY.fullmatch(done.out)
    assert "it is not shown again" in done.err
    assert done.out.strip() not in done.err
    entry = yaml.safe_load(done.err.partition("\n\n")[2].partition("\n\n")[0])
    assert entry["gateway"]["api_keys"] == {
        "alice": {"key_hash": hash_of(done.out.strip()), "user": "alice", "models": ["*"]}
    }
    assert not file.exists()


def test_the_entry_says_what_the_key_may(manifold: Manifold) -> None:
    done = manifold(
        *("keys", "create", "ci", "--user", "acme", "--models", "gpt-4o, fast", "--models", "local/smollm2-135m"),
        *("--expires", "2999-12-31", "--operator", "--json"),
    )
    assert done.err == ""
    key = done.json["key"]
    assert done.json == {
        "name": "ci",
        "key": key,
        "entry": {
            "key_hash": hash_of(key),
            "user": "acme",
            "models": ["gpt-4o", "fast", "local/smollm2-135m"],
            "expires": "2999-12-31",
            "operator": True,
        },
        "file": None,
    }


def test_quiet_prints_the_key_and_not_a_word(manifold: Manifold) -> None:
    done = manifold("keys", "create", "alice", "-q")
    assert KEY.fullmatch(done.out)
    assert done.err == ""


def test_write_puts_the_hash_into_the_file_and_nothing_else_changes(manifold: Manifold, file: Path) -> None:
    file.write_text(PLAIN, encoding="utf-8")
    file.chmod(0o640)
    done = manifold("keys", "create", "alice", "--write", "--expires", "30d", "--operator")
    key = done.out.strip()
    text = file.read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if "alice" not in line] == PLAIN.splitlines()
    assert file.stat().st_mode & 0o777 == 0o640
    assert key not in text
    found = load_config(file).gateway.api_keys["alice"]
    assert (found.key_hash, found.user, found.models) == (hash_of(key), "alice", ("*",))
    assert found.expires is not None
    assert found.operator
    assert "gateway.api_keys.alice" in done.err
    assert "SIGHUP" in done.err


def test_write_makes_a_file_where_there_is_none_for_the_owner_alone(manifold: Manifold, file: Path) -> None:
    assert manifold("keys", "create", "alice", "--write").status == 0
    assert list(load_config(file).gateway.api_keys) == ["alice"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_write_changes_the_file_that_is_named_and_keeps_its_byte_order_mark(manifold: Manifold, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_bytes(b"\xef\xbb\xbfgateway: {}\r\n")
    done = manifold("keys", "create", "alice", "--write", "--config", str(other), "--json")
    assert done.json["file"] == str(other)
    written = other.read_bytes()
    assert written.startswith(b"\xef\xbb\xbfgateway:\r\n  api_keys:\r\n    alice: {")
    assert written.endswith(b"}\r\n")


def test_a_file_of_another_form_is_left_as_it_is(manifold: Manifold, file: Path) -> None:
    file.write_text("gateway: {port: 8001}\n", encoding="utf-8")
    done = manifold("keys", "create", "alice", "--write")
    assert (done.status, done.out) == (2, "")
    assert "when you leave --write out" in done.err
    assert file.read_text(encoding="utf-8") == "gateway: {port: 8001}\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["carol"], "'carol' has a key; choose another name"),
        (["  "], "write a name that can be read"),
        (["a\nb"], "write a name that can be read"),
        (["alice", "--expires", "2020-01-01"], "2020-01-01 is over already"),
        (["alice", "--models", ""], "'--models': names no model; leave it out to allow all"),
        (["alice", "--models", " , "], "'--models': names no model; leave it out to allow all"),
        (["alice", "--expires", "tomorrow"], "'tomorrow' is no day"),
        (["alice", "--expires", "99999d", "--expires", "2026-02-30"], "'2026-02-30' is no day"),
    ],
)
def test_what_makes_no_sense_is_refused(manifold: Manifold, file: Path, words: list[str], why: str) -> None:
    file.write_text(PLAIN, encoding="utf-8")
    done = manifold("keys", "create", *words)
    assert (done.status, done.out) == (2, "")
    assert why in done.err


def test_list_tells_of_every_key_but_never_one(manifold: Manifold, file: Path) -> None:
    file.write_text(PLAIN, encoding="utf-8")
    manifold("keys", "create", "alice", "--write", "--user", "acme")
    rows = [line.split("\t") for line in manifold("keys", "list").out.splitlines()]
    assert [row[:4] for row in rows] == [
        ["carol", "carol", "a, b", "2020-01-31 (expired)"],
        ["alice", "acme", "*", "never"],
    ]
    listed = manifold("keys", "list", "--json")
    assert listed.json[0] == {
        "name": "carol",
        "user": "carol",
        "models": ["a", "b"],
        "expires": "2020-01-31",
        "expired": True,
        "operator": False,
        "hash": hash_of("carols-own-secret").removeprefix("sha256:")[:12],
    }
    assert "carols-own-secret" not in listed.out


def test_list_says_what_no_keys_mean(manifold: Manifold, configure: Configure) -> None:
    configure()
    done = manifold("keys", "list")
    assert (done.status, done.out) == (0, "")
    assert "listens on loopback alone" in done.err
    assert manifold("keys", "list", "--json").json == []


def test_revoke_says_what_to_take_out_and_with_write_takes_it_out(manifold: Manifold, file: Path) -> None:
    file.write_text(PLAIN, encoding="utf-8")
    manifold("keys", "create", "alice", "--write")
    told = manifold("keys", "revoke", "alice")
    assert (told.status, told.err) == (0, "")
    assert told.out.startswith("take gateway.api_keys.alice out of llm.yaml")
    assert manifold("keys", "revoke", "alice", "--json").json == {"name": "alice", "revoked": False, "file": None}
    done = manifold("keys", "revoke", "alice", "--write")
    assert "no longer has gateway.api_keys.alice" in done.err
    assert "the last one" not in done.err
    assert file.read_text(encoding="utf-8") == PLAIN


def test_revoke_says_when_it_was_the_last_key(manifold: Manifold, file: Path) -> None:
    file.write_text(PLAIN, encoding="utf-8")
    done = manifold("keys", "revoke", "carol", "--write")
    assert "the last one" in done.err
    assert load_config(file).gateway.api_keys == {}


def test_revoking_what_is_not_there_exits_with_1(manifold: Manifold, file: Path) -> None:
    file.write_text(PLAIN, encoding="utf-8")
    done = manifold("keys", "revoke", "bob", "--write")
    assert (done.status, done.out) == (1, "")
    assert "there is no key 'bob'; there are: carol" in done.err


def test_a_key_that_the_environment_names_is_not_in_the_file(
    manifold: Manifold, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM__GATEWAY__API_KEYS", '{"eve": {"key": "of-eve"}}')
    assert "out of the environment" in manifold("keys", "revoke", "eve").out
    assert manifold("keys", "revoke", "eve", "--write").status == 2
    assert not file.exists()


# --- the first key of a container ---------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [None, "", "gateway: {}\n", "gateway:\n  port: 8001   # ours\n"])
def test_where_there_are_no_keys_a_first_one_is_made_once(
    manifold: Manifold, asked: list[Any], file: Path, before: str | None
) -> None:
    if before is not None:
        file.write_text(before, encoding="utf-8")
    first = manifold("serve", "--first-key", "admin")
    assert KEY.fullmatch(first.out)
    assert "gateway.api_keys.admin" in first.err
    text = file.read_text(encoding="utf-8")
    assert first.out.strip() not in text
    found = load_config(file).gateway.api_keys
    assert (list(found), found["admin"].key_hash) == (["admin"], hash_of(first.out.strip()))
    assert found["admin"].operator
    again = manifold("serve", "--first-key", "admin", "--quiet")
    assert (again.out, again.err) == ("", "")
    assert file.read_text(encoding="utf-8") == text
    assert len(asked) == 2
    assert sorted(path.name for path in file.parent.iterdir()) == ["llm.yaml"]


def test_a_configuration_that_has_a_key_needs_no_first_one_be_it_read_only(
    manifold: Manifold, asked: list[Any], tmp_path: Path
) -> None:
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    (sealed / "llm.yaml").write_text(PLAIN, encoding="utf-8")
    sealed.chmod(0o500)
    done = manifold("serve", "--first-key", "admin", "--config", str(sealed / "llm.yaml"))
    assert (done.out, len(asked)) == ("", 1)
    assert (sealed / "llm.yaml").read_text(encoding="utf-8") == PLAIN


def opened(path: Path) -> int:
    """Return how often this process has a file open."""
    names: list[Path] = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            names.append(descriptor.readlink())
    return names.count(path)


def test_what_others_wrote_meanwhile_counts(manifold: Manifold, asked: list[Any], file: Path) -> None:
    turn = Turn(file)

    def write() -> None:
        while opened(file.with_name(".llm.yaml.lock")) < 2:  # until the program waits for its turn
            threading.Event().wait(0.005)
        file.write_text(PLAIN, encoding="utf-8")
        turn.close()

    other = threading.Thread(target=write)
    other.start()
    done = manifold("serve", "--first-key", "admin")
    other.join()
    assert (done.out, len(asked)) == ("", 1)
    assert file.read_text(encoding="utf-8") == PLAIN


@pytest.mark.parametrize(
    ("text", "name", "why"),
    [
        ("gateway: {port: 8001}\n", "admin", "not changed in place"),
        ("", " ", "a name that can be read"),
        ("nonsense: 1\n", "admin", "nonsense"),
    ],
)
def test_a_first_key_that_cannot_be_made_is_a_2(manifold: Manifold, file: Path, text: str, name: str, why: str) -> None:
    file.write_text(text, encoding="utf-8")
    done = manifold("serve", "--first-key", name)
    assert (done.status, done.out) == (2, "")
    assert why in done.err
    assert "listening" not in done.err
    assert file.read_text(encoding="utf-8") == text


def test_a_folder_that_nothing_can_be_put_into_is_named_with_what_to_do(manifold: Manifold, tmp_path: Path) -> None:
    (tmp_path / "llm.yaml").write_text("", encoding="utf-8")
    (tmp_path / ".llm.yaml.lock").mkdir()  # stands for a read-only file system, which root may write to
    done = manifold("keys", "create", "alice", "--write")
    assert (done.status, done.out) == (2, "")
    assert "llm.yaml cannot be changed: Is a directory; change it yourself" in done.err
