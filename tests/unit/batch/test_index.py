"""Names in a few bytes each."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.batch.index import IdIndex
from llm.batch.slots import Slots, digester

MANY = 12_000
MOST_BYTES = 32  # a name

names = st.one_of(
    st.text(max_size=3), st.integers(min_value=0, max_value=99), st.integers(min_value=0, max_value=99).map(str)
)


@given(st.lists(st.tuples(names, st.sampled_from([1, 2]))))
def test_it_knows_what_a_dictionary_knows(steps: list[tuple[str | int, int]]) -> None:
    index = IdIndex()
    known: dict[str | int, int] = {}
    for name, marks in steps:
        assert (name in index) is (name in known)
        assert index.mark(name, marks) == known.get(name, 0)
        known[name] = known.get(name, 0) | marks
        assert len(index) == len(known)
    assert all(name in index for name in known)


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_many_names_are_each_found_again_and_no_other_is() -> None:
    index = IdIndex()
    assert all(index.add(f"request-{n}") for n in range(MANY))
    assert not any(index.add(f"request-{n}") for n in range(MANY))
    assert not any(f"other-{n}" in index or n in index for n in range(MANY))
    assert len(index) == MANY
    assert {index.mark(f"request-{n}", 2) for n in range(MANY)} == {1}
    assert {index.mark(f"request-{n}", 2) for n in range(MANY)} == {3}


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_a_name_costs_at_most_32_bytes_also_while_it_grows() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        index = IdIndex()
        worst = 0.0
        for n in range(2 * MANY):
            index.add(f"request-{n}")
            if n % 256 == 0 and n > 1.5 * MANY:  # before, what one split takes for a moment is too much of all
                held, peak = tracemalloc.get_traced_memory()
                tracemalloc.reset_peak()
                worst = max(worst, (max(held, peak) - before) / n)
    finally:
        tracemalloc.stop()
    assert 12 < worst < MOST_BYTES


def test_half_of_a_surrogate_pair_is_a_name_like_any_other() -> None:
    index = IdIndex()
    assert index.add("\ud800")
    assert not index.add("\ud800")
    assert index.add("\ud801")


def test_numbers_and_texts_that_look_alike_are_different_names() -> None:
    index = IdIndex()
    assert index.add("17")
    assert index.add(17)
    assert index.add("ÿ17")


def test_nobody_can_choose_names_that_collide() -> None:
    assert digester(11)("a") != digester(11)("a")


def test_a_table_whose_last_slots_are_taken_gets_more() -> None:
    slots = Slots(4, 12)
    last = 0xFFFFFFFF  # a home at the end
    for n in range(100):
        at = slots.find(b"name%07d" % n, last)
        slots.table[at : at + 12] = b"name%07d\x01" % n
    assert all(slots.table[slots.find(b"name%07d" % n, last)] for n in range(100))


def test_names_that_fill_the_end_of_a_table_survive_its_split() -> None:
    def at_the_end(name: str | int) -> bytes:
        return b"\xff" * 4 + int(name).to_bytes(4) + b"..."

    index = IdIndex(at_the_end)
    assert all(index.add(n) for n in range(10_000))
    assert not any(index.add(n) for n in range(10_000))
