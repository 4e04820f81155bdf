from __future__ import annotations

import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, replace
from typing import NamedTuple

import pytest

from llm.utils.frozen import completer, copier, filler, maker, packer, quick


@dataclass(frozen=True, slots=True)
class Slow:
    name: str
    size: int = 3
    more: tuple[str, ...] = ()


@quick
@dataclass(frozen=True, slots=True)
class Quick:
    name: str
    size: int = 3
    more: tuple[str, ...] = ()


@quick
@dataclass(frozen=True, slots=True)
class Checked:
    name: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name.upper())


def test_a_quick_value_is_made_as_any_other() -> None:
    assert inspect.signature(Quick) == inspect.signature(Slow)
    made = Quick("a", more=("b",))
    assert (made.name, made.size, made.more) == ("a", 3, ("b",))
    assert replace(made, size=4) == Quick("a", 4, ("b",))
    assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301 - it was made a line ago
    with pytest.raises(TypeError, match=r"Quick.__init__\(\) missing 1 required"):
        Quick()  # type: ignore[call-arg]  # the point of the test


def test_a_made_value_is_what_its_class_would_make() -> None:
    make = maker(Quick)
    assert make("a", 4, ("b",)) == Quick("a", 4, ("b",))
    assert make("a") == Quick("a")
    made = maker(Checked)("a")
    assert made == Checked("a")
    assert made.name == "A"  # as after `__init__`
    with pytest.raises(FrozenInstanceError):
        made.name = "b"  # type: ignore[misc]  # the point of the test


class Wider(Quick):
    """A subclass that has more than slots."""


def test_a_quick_values_subclass_is_made_as_any_other() -> None:
    made = Wider("a", more=("b",))
    assert type(made) is Wider
    assert (made.name, made.size, made.more) == ("a", 3, ("b",))
    with pytest.raises(FrozenInstanceError):
        made.size = 4  # type: ignore[misc]  # the point of the test


def test_a_copy_is_of_the_same_kind_and_stays_frozen() -> None:
    made = copier(Quick)(Quick("a", more=("b",)), size=4)
    assert made == Quick("a", 4, ("b",))
    assert type(made) is Quick
    with pytest.raises(FrozenInstanceError):
        made.size = 5  # type: ignore[misc]  # the point of the test


def test_a_completed_value_is_a_copy_with_just_these_fields_changed() -> None:
    whole = Quick("a", more=("b",))
    made = completer(Quick, "size", "more")(whole, 4, ())
    assert made == Quick("a", 4)
    assert whole == Quick("a", more=("b",))
    assert type(made) is Quick
    with pytest.raises(FrozenInstanceError):
        made.size = 5  # type: ignore[misc]  # the point of the test


def test_a_quick_value_stays_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Quick("a").size = 4  # type: ignore[misc]  # the point of the test


def test_what_was_checked_before_is_not_checked_again() -> None:
    made = maker(Checked, reads={})("a")
    assert (type(made), made.name) == (Checked, "a")


def test_a_value_that_nobody_holds_yet_is_completed_in_place() -> None:
    made = Quick("a", 4, ("b",))
    filler(Quick, "size", "more")(made, 5, made.more)
    assert made == Quick("a", 5, ("b",))
    with pytest.raises(FrozenInstanceError):
        made.size = 6  # type: ignore[misc]  # the point of the test


class Pair(NamedTuple):
    """Two values."""

    left: int
    right: str = "none"


def test_a_packed_tuple_is_what_its_class_would_make() -> None:
    made = packer(Pair)((1, "two"))
    assert (type(made), made, made.right) == (Pair, Pair(1, "two"), "two")
