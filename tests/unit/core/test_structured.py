"""The form of an answer: its schema, strict where that can be, and what is read back."""

# ruff: noqa: ANN401 - JSON, and types as they come

from __future__ import annotations

import datetime as dt
import gc
import json
import random
import re
import uuid
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Optional, TypeAlias, cast

import pytest
from anthropic.lib._parse._transform import transform_schema  # pyright: ignore[reportMissingTypeStubs] - not public
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel, ConfigDict, Field, RootModel, create_model, field_validator
from typing_extensions import TypedDict

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.source import Replay
from llm.core.stream import LLMStream
from llm.core.strict import strict_schema
from llm.core.structured import UnfitError, read_instance, read_partial, shape_of
from llm.core.tokens import estimate_tokens
from llm.core.types import LLMRequest, StreamChunk
from llm.providers.estimate import prompt_tokens


class Kind(Enum):
    SOFT = "soft"
    HARD = "hard"


class Price(BaseModel):
    amount: float
    currency: Literal["EUR", "USD"]


class Item(BaseModel):
    """A thing on a list."""

    name: str
    kind: Kind
    price: Price = Field(description="What it costs.")
    due: dt.date | None = None
    tags: list[str] = []


class Order(BaseModel):
    items: list[Item]
    note: str | None = None
    paid_with: Literal["card"] | int


class Tree(BaseModel):
    value: int
    branches: list[Tree] = []


class Couple(BaseModel):
    other: Couple | None = Field(default=None, description="The other one.")
    twin: Couple = Field(default=cast("Any", None), description="Itself again.")


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]


class Owner(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


class Bounded(BaseModel):
    stars: int = Field(ge=1, le=5, description="How good.")
    names: list[str] = Field(min_length=1, max_length=3)
    code: str = Field(pattern="^a", max_length=4)
    file: Annotated[bytes, Field(json_schema_extra={"format": "binary"})] = b""


class Aliased(BaseModel):
    first_name: str = Field(alias="firstName")


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


class Empty(BaseModel):
    pass


@dataclass
class Point:
    x: float
    y: float


class Place(TypedDict):
    city: str


class Anything(BaseModel):
    value: Any


class Counts(BaseModel):
    by_word: dict[str, int]


class Pair(BaseModel):
    both: tuple[int, str]


class Pets(BaseModel):
    mine: Owner
    yours: Owner
    first: Cat


class Bag(BaseModel):
    things: list  # type: ignore[type-arg]  # pyright: ignore[reportMissingTypeArgument, reportUnknownVariableType] - of whatever


STRICT: list[type[BaseModel]] = [Price, Item, Order, Tree, Cat, Dog, Empty, Aliased]


# --- the schema -------------------------------------------------------------------------------------------------------


def told(schema: Any) -> Any:
    """Leave out what decides nothing: defaults, titles, and the type beside an enumeration."""
    if isinstance(schema, list):
        return [told(part) for part in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    parts = cast("dict[str, Any]", schema)
    out = {"default", "title"} | ({"type"} if parts.keys() & {"enum", "const"} else set[str]())
    return {name: told(part) for name, part in parts.items() if name not in out}


@pytest.mark.parametrize("model", STRICT)
def test_the_strict_schema_is_the_one_that_openais_own_client_makes(model: type[BaseModel]) -> None:
    own = to_strict_json_schema(model)
    if "$ref" in own:
        own |= own["$defs"][own.pop("$ref").rpartition("/")[2]]
    assert told(shape_of(model).strict) == told(own)


@pytest.mark.parametrize("model", [Price, Cat, Dog, Aliased])
def test_the_unbounded_schema_is_the_one_that_anthropics_own_client_makes(model: type[BaseModel]) -> None:
    assert told(shape_of(model).unbounded) == told(transform_schema(model))


def objects(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [found for part in cast("list[object]", schema) for found in objects(part)]
    if not isinstance(schema, dict):
        return []
    parts = cast("dict[str, Any]", schema)
    own = [parts] if parts.get("type") == "object" else []
    return own + [found for part in parts.values() for found in objects(part)]


@pytest.mark.parametrize("model", [*STRICT, Owner, Bounded, Loose, Couple, Point, Place])
def test_every_object_is_closed_and_all_of_it_required(model: type) -> None:
    shape = shape_of(model)
    for schema in (shape.strict, shape.unbounded):
        assert schema is not None
        assert schema["type"] == "object"
        for part in objects(schema):
            assert part["additionalProperties"] is False
            assert part["required"] == list(part["properties"])


@pytest.mark.parametrize("model", [Anything, Counts, Pair, Bag])
def test_what_no_strict_schema_can_say_has_none(model: type) -> None:
    assert shape_of(model).strict is None
    assert shape_of(model).unbounded is None


@pytest.mark.parametrize(
    "odd", [{"allOf": [{"type": "string"}, {"type": "integer"}]}, {"not": {}}, {"type": "array"}, True, {}]
)
def test_odd_schemas_have_no_strict_form(odd: Any) -> None:
    schema = {"type": "object", "properties": {"a": odd}}
    assert strict_schema(schema, bounds=True) is None


def test_a_lone_all_of_is_what_it_holds() -> None:
    schema = {"type": "object", "properties": {"a": {"allOf": [{"type": "string"}], "description": "A."}}}
    assert (strict_schema(schema, bounds=True) or {})["properties"] == {"a": {"type": "string", "description": "A."}}


def test_limits_stay_in_the_schema_or_in_the_description() -> None:
    shape = shape_of(Bounded)
    assert shape.strict is not None
    assert shape.unbounded is not None
    kept, moved = shape.strict["properties"], shape.unbounded["properties"]
    assert (kept["stars"]["minimum"], kept["stars"]["maximum"], kept["stars"]["description"]) == (1, 5, "How good.")
    assert (kept["names"]["minItems"], kept["names"]["maxItems"]) == (1, 3)
    assert moved["stars"] == {
        "type": "integer", "title": "Stars", "description": "How good. (maximum: 5, minimum: 1)",
    }  # fmt: skip
    for field in (kept["code"], moved["code"]):
        assert field["description"] == "(maxLength: 4, pattern: ^a)"
    assert kept["file"]["description"] == "(format: binary)"


def test_only_what_refers_to_itself_is_recursive() -> None:
    assert [shape_of(model).recursive for model in (Tree, Couple, Pets, Price)] == [True, True, False, False]


def test_a_schema_is_made_once_and_goes_with_its_class() -> None:
    made: type[BaseModel] | None = create_model("Made", name=(str, ...))
    assert made is not None
    assert shape_of(made) is shape_of(made)
    gone = weakref.ref(made)
    made = None
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("name", "sent"), [("Box[int]", "Box_int"), ("Größe", "Gr_e"), ("日本", "answer"), ("x" * 70, "x" * 64)]
)
def test_a_schemas_name_is_one_that_vendors_take(name: str, sent: str) -> None:
    shape = shape_of(create_model(name, a=(int, ...)))
    assert shape.name == sent
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", shape.name)


class Opaque:
    pass


class Unfinished(BaseModel):
    later: Nowhere  # type: ignore[name-defined]  # noqa: F821 - it is nowhere


@pytest.mark.parametrize(
    "model", [int, Kind, Opaque, BaseModel, Unfinished, RootModel[list[int]], RootModel[Cat | Dog]]
)
def test_a_class_without_an_objects_schema_is_refused_with_the_remedy(model: type) -> None:
    with pytest.raises(LLMInvalidRequestError, match=r"response_model is .*; pass a pydantic model, a dataclass"):
        shape_of(model)


def test_the_schema_counts_as_prompt() -> None:
    bare, asked = LLMRequest("Hi", model="m"), LLMRequest("Hi", model="m", response_model=Order)
    size = len(shape_of(Order).text) // 4
    for count in (prompt_tokens, estimate_tokens):
        assert size <= count(asked) - count(bare) <= size + 1


# --- reading ----------------------------------------------------------------------------------------------------------

ORDER = Order(
    items=[
        Item(name="Ähre 🌾", kind=Kind.SOFT, price=Price(amount=1.5, currency="EUR"), due=dt.date(2026, 5, 1)),
        Item(name="Stein", kind=Kind.HARD, price=Price(amount=2, currency="USD"), tags=["grau", "schwer"]),
    ],
    paid_with="card",
)


@pytest.mark.parametrize(
    "instance",
    [ORDER, Tree(value=1, branches=[Tree(value=2, branches=[Tree(value=3)])]), Owner(pet=Dog(kind="dog", tricks=[]))],
)
def test_an_instance_comes_back_from_its_json(instance: BaseModel) -> None:
    assert read_instance(type(instance), instance.model_dump_json()) == instance


def test_names_on_the_wire_are_the_aliases() -> None:
    assert read_instance(Aliased, '{"firstName": "Zoë"}').first_name == "Zoë"
    assert list(shape_of(Aliased).schema["properties"]) == ["firstName"]


def test_dataclasses_and_typed_dicts_are_classes_too() -> None:
    assert read_instance(Point, '{"x": 1, "y": 2.5}') == Point(1, 2.5)
    assert read_instance(Place, '{"city": "Oslo"}') == {"city": "Oslo"}


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"city": "Oslo"}\n```',
        'Here it is, as {asked}:\n\n{"city": "Oslo"}\n\nAnything else?',
        '{"city": "Oslo"} {"city": "Rome"}',
        '\n  {"city": "Oslo"}\n',
    ],
)
def test_words_and_fences_around_the_json_are_passed_over(text: str) -> None:
    assert read_instance(Place, text) == {"city": "Oslo"}


@pytest.mark.parametrize("text", ["", "no JSON at all", "{" * 40, '{"city": "Os', "null", "[]", "{}", '{"city": 5}'])
def test_what_holds_no_instance_is_unfit(text: str) -> None:
    with pytest.raises(UnfitError) as unfit:
        read_instance(Place, text)
    assert unfit.value.problems
    assert unfit.value.told


class Branch(BaseModel):
    label: str
    children: list[Branch] = []


def test_a_whole_part_of_an_answer_that_was_cut_is_not_the_answer() -> None:
    with pytest.raises(UnfitError, match="it is no JSON"):
        read_instance(Branch, 'Here: {"label": "a", "children": [{"label": "b"}, {"lab')
    assert read_instance(Branch, 'With { and {"label": "a"}, done').label == "a"


def test_json_among_words_that_does_not_fit_is_told_by_field() -> None:
    with pytest.raises(UnfitError, match="city: Input should be a valid string"):
        read_instance(Place, 'Look: {"city": 5}')


class Careful(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    counts: dict[str, int] = {}
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None

    @field_validator("name")
    @classmethod
    def no_secret(cls, name: str) -> str:
        if "secret" in name:
            raise ValueError(f"{name} is not to be said")
        return name


def test_what_is_wrong_is_told_by_field_without_what_was_written() -> None:
    text = '{"name": "secret-1", "secret-2": 1, "counts": {"secret-3": "secret-4"}, "pet": {"kind": "secret-5"}}'
    with pytest.raises(UnfitError) as unfit:
        read_instance(Careful, text)
    assert unfit.value.problems == (
        "name: its own validation refuses it",
        "counts.…: Input should be a valid integer, unable to parse string as an integer",
        "pet: its own validation refuses it",
        "…: Extra inputs are not permitted",
    )
    assert "secret" not in str(unfit.value)
    assert "name: Value error, secret-1 is not to be said" in unfit.value.told
    assert any(line.startswith("counts.secret-3:") for line in unfit.value.told)


def test_a_long_list_of_problems_is_cut() -> None:
    with pytest.raises(UnfitError) as unfit:
        read_instance(Counts, '{"by_word": {' + ", ".join(f'"w{n}": "x"' for n in range(30)) + "}}")
    assert len(unfit.value.problems) == 21
    assert unfit.value.problems[-1] == "and 10 more"


# --- while it grows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("Sure: ", None),
        ("{", {}),
        ('{"na', {}),
        ('{"name": "Os', {"name": "Os"}),
        ('```json\n{"name": "Oslo", "tags": ["a", "b', {"name": "Oslo", "tags": ["a", "b"]}),
        ('{"name": "Oslo"}\n```', {"name": "Oslo"}),
        ("{asked}", None),
        ('{"n": 1', {}),
        ('{"n": 1.', {}),
        ('{"n": 12,', {"n": 12}),
        ('{"n": 12\n', {"n": 12}),
        ('{"a": {"n": 1}, "b": [x', None),
        ('As {asked}: {"name": "Oslo', {"name": "Oslo"}),
    ],
)
def test_of_json_that_grows_only_what_came_is_there(text: str, value: object) -> None:
    assert read_partial(text) == value


def test_every_beginning_of_an_answer_is_a_part_of_it() -> None:
    text = ORDER.model_dump_json()
    sizes = [len(str(read_partial(text[:end]) or "")) for end in range(len(text) + 1)]
    assert sizes == sorted(sizes)
    assert read_partial(text) == ORDER.model_dump(mode="json")


def chunks_of(text: str, size: int) -> LLMStream:
    pieces = [StreamChunk(text[start : start + size]) for start in range(0, len(text), size)]
    return LLMStream(Replay(pieces))


async def test_a_short_answer_is_read_with_each_chunk() -> None:
    text = ORDER.model_dump_json()
    beginnings = [read_partial(text[:end]) for end in range(1, len(text) + 1)]
    changes = [value for value, before in zip(beginnings, [None, *beginnings], strict=False) if value != before]
    assert [value async for value in chunks_of(text, 1).partials()] == changes


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_the_time_for_a_long_answers_parts_grows_with_its_length_alone() -> None:
    long = {"rows": [{"name": f"city {number}", "people": number} for number in range(5600)]}
    text = json.dumps(long)
    parts = [value async for value in chunks_of(text, 10).partials()]
    assert parts[-1] == long
    assert 500 < len(parts) < 1500  # of 20,000 chunks
    few = [value async for value in chunks_of(text, len(text) // 4).partials()]
    assert len(few) == 4


async def test_of_several_choices_the_first_is_the_one_that_grows() -> None:
    pieces = [StreamChunk(text, index=choice) for text, choice in (('{"n":', 0), ('{"m":', 1), ("1 }", 0), ("2 }", 1))]
    assert [value async for value in LLMStream(Replay(pieces)).partials()] == [{}, {"n": 1}]


# --- any model --------------------------------------------------------------------------------------------------------

Make: TypeAlias = Callable[[random.Random], Any]


def leaves() -> list[tuple[Any, Make]]:
    return [
        (str, lambda dice: "".join(dice.choices('aä🌾"\\{}\n', k=dice.randint(0, 6)))),
        (int, lambda dice: dice.randint(-(10**9), 10**9)),
        (float, lambda dice: dice.uniform(-1e6, 1e6)),
        (bool, lambda dice: dice.random() < 0.5),
        (dt.date, lambda dice: dt.date.fromordinal(dice.randint(1, 3_000_000))),
        (dt.datetime, lambda dice: dt.datetime.fromtimestamp(dice.randint(0, 2**31), dt.UTC)),
        (dt.timedelta, lambda dice: dt.timedelta(seconds=dice.randint(0, 10**6))),
        (uuid.UUID, lambda dice: uuid.UUID(int=dice.getrandbits(128))),
        (Decimal, lambda dice: Decimal(dice.randint(0, 10**6)) / 100),
        (Kind, lambda dice: dice.choice(list(Kind))),
        (Literal["a", 3], lambda dice: dice.choice(["a", 3])),
    ]


def any_type(dice: random.Random, depth: int) -> tuple[Any, Make]:
    """Return a type and what makes a value of it."""
    if depth == 0 or dice.random() < 0.4:
        return dice.choice(leaves())
    inner, make = any_type(dice, depth - 1)

    def several(d: random.Random) -> list[Any]:
        return [make(d) for _ in range(d.randint(0, 3))]

    match dice.randrange(5):
        case 0:
            return cast("Any", list)[inner], several
        case 1:
            return Optional[inner], lambda d: None if d.random() < 0.3 else make(d)  # noqa: UP045 - a type of its own
        case 2:
            return cast("Any", dict)[str, inner], lambda d: {f"k{n}": value for n, value in enumerate(several(d))}
        case 3:
            return Annotated[inner, Field(description="What it is.")], make
        case _:
            return any_model(dice, depth - 1)


def any_model(dice: random.Random, depth: int) -> tuple[Any, Make]:
    fields = {f"field_{n}": any_type(dice, depth) for n in range(dice.randint(0, 4))}
    model: Any = cast("Any", create_model)(f"Model{depth}", **{name: (kind, ...) for name, (kind, _) in fields.items()})
    return model, lambda d: model(**{name: make(d) for name, (_, make) in fields.items()})


@pytest.mark.parametrize("seed", range(200))
def test_any_model_comes_back_and_its_strict_schema_names_all_of_it(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - dice
    model, make = any_model(dice, 3)
    instance = make(dice)
    assert read_instance(model, instance.model_dump_json()) == instance
    shape = shape_of(model)
    loose = any("additionalProperties" in part for part in objects(shape.schema))
    assert (shape.strict is None) == (shape.unbounded is None) == loose
    for part in objects(shape.strict):
        assert part["required"] == list(part["properties"])
