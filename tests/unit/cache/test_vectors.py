from __future__ import annotations

import math
import random
from dataclasses import dataclass

import orjson
import pytest
from tests.steps import counted

from llm.cache import vectors
from llm.cache.vectors import Question, VectorIndex, decode, encode, signs_of, unit_of


def question(key: str, *numbers: float, text: str = "text") -> Question:
    unit = unit_of(numbers)
    assert unit is not None
    return Question(key, text, unit, signs_of(unit), 60.0, 5.0)


def keys(index: VectorIndex, group: str, *numbers: float, threshold: float = 0.5) -> list[str]:
    unit = unit_of(numbers)
    assert unit is not None
    return [each.key for _, each in index.nearest(group, unit, threshold)]


def test_the_most_alike_come_first_with_their_cosines() -> None:
    index = VectorIndex(10)
    for key, numbers in {"near": (1.0, 0.1), "same": (2.0, 0.0), "far": (0.0, 1.0), "against": (-1.0, 0.0)}.items():
        index.add("g", question(key, *numbers))
    unit = unit_of([1.0, 0.0])
    assert unit is not None
    (one, first), (two, second) = index.nearest("g", unit, 0.5)
    assert (first.key, second.key) == ("same", "near")
    assert one == pytest.approx(1.0)
    assert two == pytest.approx(1 / math.hypot(1.0, 0.1))
    assert keys(index, "g", 1.0, 0.0, threshold=1.0) == ["same"]
    assert keys(index, "other", 1.0, 0.0) == []


def test_vectors_of_another_length_are_not_compared() -> None:
    index = VectorIndex(10)
    index.add("g", question("a", 1.0, 0.0, 0.0))
    assert keys(index, "g", 1.0, 0.0) == []


@pytest.mark.parametrize("numbers", [[], [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_what_has_no_direction_is_no_vector(numbers: list[float]) -> None:
    assert unit_of(numbers) is None


def test_the_least_recently_used_leave_first_and_empty_groups_with_them() -> None:
    index = VectorIndex(2)
    index.add("g", question("a", 1.0))
    index.add("h", question("b", 1.0))
    index.used("g", "a")
    index.add("h", question("c", 1.0))
    assert len(index) == 2
    assert keys(index, "h", 1.0) == ["c"]
    index.resize(1)
    assert ("g" in index, "h" in index) == (False, True)
    index.drop("h", "c")
    index.drop("h", "c")
    assert ("h" in index, len(index)) == (False, 0)


def test_one_answer_has_one_question() -> None:
    index = VectorIndex(5)
    index.add("g", question("a", 1.0, text="before"))
    index.add("g", question("a", 1.0, text="after"))
    assert len(index) == 1
    assert len(keys(index, "g", 1.0)) == 1


@dataclass
class Kind:
    positive: bool
    dimensions: int

    def vector(self, dice: random.Random) -> list[float]:
        numbers = [dice.gauss(0.0, 1.0) for _ in range(self.dimensions)]
        return [abs(number) for number in numbers] if self.positive else numbers


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@pytest.mark.parametrize(
    "kind", [Kind(positive=False, dimensions=1536), Kind(positive=True, dimensions=384)], ids=["mixed", "positive"]
)
def test_what_is_alike_is_found_among_a_thousand_for_far_less_than_comparing_all(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    def product(one: float, other: float) -> float:
        return one * other

    monkeypatch.setattr(vectors, "mul", product)  # so that each is a step at least
    dice = random.Random(7)  # noqa: S311 - not for secrets
    index = VectorIndex(2000)
    known = [kind.vector(dice) for _ in range(1000)]
    for number, vector in enumerate(known):
        index.add("g", question(str(number), *vector))
    found = 0
    for number in range(0, 1000, 50):
        unit = unit_of([value * (1.0 + dice.gauss(0.0, 0.25)) for value in known[number]])
        assert unit is not None
        with counted() as steps:
            nearest = index.nearest("g", unit, 0.9)
        assert steps.count < 1000 * kind.dimensions / 10
        found += bool(nearest) and nearest[0][1].key == str(number)
    assert found == 20


def test_a_question_comes_back_as_it_was_kept() -> None:
    kept = question("a", 0.3, -0.2, 0.9, text="Wer „war“ das?")
    assert decode(encode(kept), at=5.0) == kept


@pytest.mark.parametrize(
    "damage",
    [
        b"", b"\x80\x04K\x01.", b"[]", b"{}", b'{"v": 1}',
        *(orjson.dumps({"v": 1, "key": "k", "text": "t", "ttl": 1, "unit": "AACAPw==", **other}) for other in (
            {"v": 2}, {"key": 3}, {"text": None}, {"ttl": "1"}, {"ttl": True}, {"unit": 4}, {"unit": "AAAA"},
            {"unit": ""}, {"unit": "AADAfw=="}, {"unit": "!"},
        )),
    ],
)  # fmt: skip
def test_what_is_damaged_foreign_or_of_another_version_is_no_question(damage: bytes) -> None:
    assert decode(damage, at=0.0) is None
