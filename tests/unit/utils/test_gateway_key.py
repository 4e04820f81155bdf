"""Keys of the gateway: what they look like."""

from __future__ import annotations

import re
from zlib import crc32

from llm.utils.gateway_key import hash_of, new_key
from llm.utils.redact import MASK, redact

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_no_two_keys_are_alike_and_each_is_known_by_its_look_and_its_check() -> None:
    keys = [new_key() for _ in range(1000)]
    assert len(set(keys)) == 1000
    for key in keys:
        found = re.fullmatch(r"sk-manifold-([0-9A-Za-z]{43})([0-9A-Za-z]{6})", key)
        assert found is not None
        check = 0
        for digit in found[2]:
            check = check * 62 + DIGITS.index(digit)
        assert check == crc32(found[1].encode())


def test_a_key_is_hidden_wherever_keys_are_hidden() -> None:
    key = new_key()
    assert redact(f"x {key}, 'y'") == f"x {MASK}, 'y'"


def test_of_a_key_its_hash_is_kept() -> None:
    assert hash_of("abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
