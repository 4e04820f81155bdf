from __future__ import annotations

import copy
import json
import pickle
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.utils.redact import MASK, Secret, redact

KEY = "hunter2-hunter2-hunter2"


def test_a_secret_shows_ten_asterisks_however_it_is_shown() -> None:
    secret = Secret(KEY)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>3}", "%s %r" % (secret, secret), repr([secret])]  # noqa: UP031 - one way more
    assert MASK == "*" * 10
    assert not [text for text in shown if KEY in text]
    assert str(secret) == repr(secret) == f"{secret}" == MASK
    assert f"{secret:>12}" == f"  {MASK}"


def test_a_secret_is_its_text_where_it_is_used() -> None:
    assert Secret(KEY).reveal() == KEY
    assert Secret(KEY) == Secret(KEY) != Secret("other")
    assert Secret(KEY) != KEY
    assert len({Secret(KEY), Secret(KEY), Secret("other")}) == 2


def test_a_fingerprint_is_short_stable_and_one_way() -> None:
    assert Secret("k1").fingerprint == "key-6ab9f1eb"
    assert Secret("k1").fingerprint != Secret("k2").fingerprint


def test_a_secret_is_copied_as_itself_and_neither_pickled_nor_changed() -> None:
    secret = Secret(KEY)
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps(secret)
    with pytest.raises(AttributeError, match="cannot change"):
        secret.note = "other"  # pyright: ignore[reportAttributeAccessIssue] # the point
    assert not hasattr(secret, "__dict__")


def test_a_traceback_with_locals_shows_no_secret() -> None:
    def fail(secret: Secret) -> None:
        message = f"cannot send {secret}"
        raise ValueError(message)

    with pytest.raises(ValueError, match="cannot send") as caught:
        fail(Secret(KEY))
    told = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "secret = **********" in told
    assert KEY not in told.replace(f"KEY = {KEY!r}", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Incorrect API key provided: sk-proj-abc_123", f"Incorrect API key provided: {MASK}"),
        ("sk-ant-api03-x-y_z!", f"{MASK}!"),
        ("key sk-or-v1-0123456789, next", f"key {MASK}, next"),
        ("partly masked sk-ab***yz", f"partly masked {MASK}"),
        ("Authorization: Bearer abcdefgh.12345", f"Authorization: Bearer {MASK}"),
        ("authorization: bearer abcdefgh.12345", f"authorization: bearer {MASK}"),
        ("{'x-api-key': 'abc'}", f"{{'x-api-key': '{MASK}'}}"),
        ("https://host/?api_key=abc&x=1", f"https://host/?api_key={MASK}&x=1"),
        ("redis://user:word@host:6379/0", f"redis://user:{MASK}@host:6379/0"),
        ("a task-management plan, not risk-free", "a task-management plan, not risk-free"),
        ("http://127.0.0.1:9000/v1", "http://127.0.0.1:9000/v1"),
        ("redis://h:1/0?db=1&password=hunter2&x=1", "redis://h:1/0?db=1&password=**********&x=1"),
    ],
)
def test_what_looks_like_a_key_is_masked(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_named_secrets_are_masked_quoted_ones_too() -> None:
    secrets = [Secret("p/q r"), Secret("long-enough")]
    assert redact("xlong-enoughx, p%2Fq%20r and p/q r", secrets) == f"x{MASK}x, {MASK} and {MASK}"


def test_a_short_secret_is_masked_as_a_word_and_leaves_other_words_whole() -> None:
    assert redact("k1 k12 ok1 (k1)", [Secret("k1")]) == f"{MASK} k12 ok1 ({MASK})"


def test_of_two_secrets_the_longer_goes_first() -> None:
    assert redact("password-and-more", [Secret("password"), Secret("password-and-more")]) == MASK


@given(text=st.text(), secrets=st.lists(st.text(min_size=1).map(Secret), max_size=3))
def test_redacting_twice_changes_nothing(text: str, secrets: list[Secret]) -> None:
    once = redact(text, secrets)
    assert redact(once, secrets) == once


@given(before=st.text(), after=st.text(), value=st.text(min_size=8).filter(lambda value: bool(value.strip("*"))))
def test_a_long_secret_never_stays(before: str, after: str, value: str) -> None:
    assert value not in redact(before + value + after, [Secret(value)]).replace(MASK, "\0")
