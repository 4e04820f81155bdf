"""Answers held to a form: by a model without sense, which ends none by itself, and a handful by the real one."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any, Literal

import pytest
from pydantic import BaseModel, Field

from llm.core.exceptions import LLMInvalidRequestError, LLMServerError
from llm.providers.local import InferenceEngine
from llm.providers.local.constraint import Grammars
from llm.providers.local.grammar import (
    Grammar,
    choice_grammar,
    model_grammar,
    object_grammar,
    regex_grammar,
    schema_grammar,
)

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Unpack

    from llm.providers.local.engine import Options
    from llm.providers.local.model import LoadedModel
    from llm.providers.local.request import GenerationResult


class Person(BaseModel):
    name: str
    age: int
    tags: list[str]
    kind: Literal["a", "b"] | None
    zip: str = Field(pattern=r"^\d{5}$")
    others: list[Person] = []


SCHEMA = Person.model_json_schema()
NUMBERS = {"type": "array", "items": {"type": "integer"}, "minItems": 3}
FORM = schema_grammar(SCHEMA, field="it")


async def ask(engine: InferenceEngine, *, model: str | None = None, **options: Unpack[Options]) -> GenerationResult:
    whole: Options = {"temperature": 1.0, "max_tokens": 90, **options}
    return await engine.generate("Tell:", model=model, **whole)


async def test_every_answer_of_a_full_batch_fits_its_schema_and_is_what_it_is_alone(crowd: InferenceEngine) -> None:
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(crowd, seed=seed, grammar=FORM)) for seed in range(16)]
    for seed, task in enumerate(asked):
        answer = task.result()
        Person.model_validate_json(answer.text)
        if seed == 7:
            assert (await ask(crowd, seed=seed, grammar=FORM)).text == answer.text


async def test_who_is_held_to_nothing_writes_beside_others_what_it_writes_alone(crowd: InferenceEngine) -> None:
    alone = await ask(crowd, seed=3)
    async with asyncio.TaskGroup() as group:
        free = group.create_task(ask(crowd, seed=3))
        held = [group.create_task(ask(crowd, seed=seed, grammar=FORM)) for seed in range(2)]
    assert free.result().text == alone.text
    assert all(Person.model_validate_json(task.result().text) for task in held)


async def test_an_answer_that_would_be_cut_is_led_to_its_end_and_says_that_it_was(crowd: InferenceEngine) -> None:
    for most in (70, 110):
        answer = await ask(crowd, seed=most, grammar=FORM, max_tokens=most)
        Person.model_validate_json(answer.text)
        assert answer.finish_reason == "length"
        assert answer.output_tokens <= most


async def test_where_no_way_leads_to_an_end_in_time_the_answer_is_cut(crowd: InferenceEngine) -> None:
    answer = await ask(crowd, grammar=FORM, max_tokens=20)
    assert (answer.finish_reason, answer.output_tokens) == ("length", 20)
    with pytest.raises(ValueError, match="Invalid JSON"):
        Person.model_validate_json(answer.text)


@pytest.mark.parametrize(
    ("grammar", "wanted"),
    [
        (regex_grammar(r"[a-z]{3}-\d{2}\w", field="it"), r"[a-z]{3}-[0-9]{2}[A-Za-z0-9_]"),
        (regex_grammar(r"[^\d]\.\\d", field="it"), r"[^0-9]\.\\d"),
        (choice_grammar(["yes", 'n"o', "yes"], field="it"), 'yes|n"o'),
        (object_grammar(field="it"), r"\{.*\}"),
        (schema_grammar({"type": "object", "properties": {}}, field="it"), r"\{\}"),
        (schema_grammar(NUMBERS, field="it"), r"\[-?\d+(, -?\d+){2,}\]"),
    ],
)  # fmt: skip
async def test_an_answer_is_in_its_form_whatever_the_form(
    crowd: InferenceEngine, grammar: Grammar, wanted: str
) -> None:
    for seed in range(2):
        answer = await ask(crowd, seed=seed, grammar=grammar)
        assert re.fullmatch(wanted, answer.text, re.DOTALL), answer.text


async def test_temperature_seed_top_p_and_stop_work_under_a_form(crowd: InferenceEngine) -> None:
    word = regex_grammar("[a-z]{12}", field="it")
    first, again, other = [(await ask(crowd, seed=seed, grammar=word, top_p=0.9)).text for seed in (1, 1, 2)]
    assert first == again != other
    greedy = [(await ask(crowd, temperature=0, grammar=word, seed=seed)).text for seed in (1, 2)]
    assert greedy[0] == greedy[1]
    stopped = await ask(crowd, grammar=FORM, stop=('"age',))
    assert stopped.finish_reason == "stop"
    assert stopped.text.endswith('", ')


async def test_a_stream_under_a_form_is_the_whole_answer_and_can_be_left(crowd: InferenceEngine) -> None:
    word = regex_grammar("[a-z]{20}", field="it")
    whole = await ask(crowd, seed=5, grammar=word)
    stream = crowd.generate_stream("Tell:", seed=5, temperature=1.0, max_tokens=90, grammar=word)
    assert "".join([piece async for piece in stream]) == whole.text
    left = crowd.generate_stream("Tell:", grammar=regex_grammar("a{400}", field="it"))
    assert await anext(left) == "a"
    left.close()


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "array", "uniqueItems": True}, 'uniqueItems"'),
        ({"type": "string", "format": "poem"}, "Unknown format: poem"),
        ({"type": "string", "pattern": "(?=a)b"}, "regex parse error"),
        ({"type": "wat"}, "wat"),
        ({"$ref": "http://example.com/x"}, "not present"),
    ],
)
async def test_a_form_that_cannot_be_held_is_refused_with_its_field_and_what_in_it(
    crowd: InferenceEngine, schema: dict[str, Any], reason: str
) -> None:
    with pytest.raises(LLMInvalidRequestError, match=f"^response_format.x has .*{reason}.*; take it out"):
        await ask(crowd, grammar=schema_grammar(schema, field="response_format.x"))


async def test_what_has_no_json_is_refused() -> None:
    with pytest.raises(LLMInvalidRequestError, match="has no JSON"):
        schema_grammar({"const": object()}, field="it")


async def test_of_a_model_what_cannot_be_held_is_left_to_be_checked(crowd: InferenceEngine) -> None:
    loose = model_grammar({"type": "array", "uniqueItems": True, "items": {"type": "boolean"}}, field="it")
    assert set(json.loads((await ask(crowd, grammar=loose)).text)) <= {True, False}
    anything = model_grammar({"type": "string", "pattern": "(?=a)b"}, field="it")
    assert isinstance(json.loads((await ask(crowd, grammar=anything)).text), dict)


def test_objects_have_the_properties_that_are_named_unless_the_schema_says_otherwise() -> None:
    inner = {"type": "object", "properties": {"a": {"type": "string"}}}
    schema = {
        "type": "object",
        "properties": {
            "items": inner,
            "list": {"type": "array", "items": inner},
            "open": {**inner, "additionalProperties": True},
        },
        "$defs": {
            "one": {**inner, "patternProperties": {"^b": {"pattern": r"\d"}}},
            "both": {"allOf": [inner, inner], **inner},
        },
        "anyOf": [inner, True],
    }
    closed = json.loads(schema_grammar(schema, field="it").source.removeprefix("start: %json "))
    shut = {**inner, "additionalProperties": False}
    assert closed["additionalProperties"] is False
    assert closed["properties"]["items"] == closed["properties"]["list"]["items"] == closed["anyOf"][0] == shut
    assert closed["properties"]["open"]["additionalProperties"] is True
    assert closed["$defs"]["one"]["additionalProperties"] is True
    assert closed["$defs"]["one"]["patternProperties"] == {"^b": {"pattern": "[0-9]"}}
    assert "additionalProperties" not in closed["$defs"]["both"]


def test_the_latest_forms_are_kept_and_a_slow_vocabulary_is_read_once(letters: LoadedModel) -> None:
    grammars = Grammars(letters)
    forms = [regex_grammar(f"a{{{count}}}", field="it") for count in range(1, 67)]
    assert grammars.find(forms[0]) is None
    for form in forms:
        grammars.make(form)
    assert grammars.find(forms[0]) is None
    assert grammars.find(forms[-1]) is not None
    assert grammars.make(forms[-1]) is grammars.make(forms[-1])


def test_a_token_that_the_form_does_not_have_is_a_failure_of_this_answer(letters: LoadedModel) -> None:
    held = Grammars(letters).make(regex_grammar("aaa", field="it")).start(9)
    with pytest.raises(LLMServerError, match="cannot be followed"):
        held.accept(letters.encode("b")[0])


def test_a_tokenizer_of_another_kind_holds_no_answer_to_a_form(letters: LoadedModel) -> None:
    odd = type(letters)("odd", letters.network, letters.tokenizer, letters.window, frozenset())
    with pytest.raises(LLMInvalidRequestError, match=r"the tokenizer of odd .* leave response_format"):
        Grammars(odd).make(FORM)


async def test_unloading_waits_for_those_whose_form_is_being_made(small_folder: Path) -> None:
    engine = InferenceEngine(device="cpu", threads=1)
    await engine.load_model(str(small_folder))
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(ask(engine, grammar=FORM, seed=1))
        group.create_task(engine.unload_model(str(small_folder)))
    Person.model_validate_json(asked.result().text)
    await engine.close()


async def test_two_models_under_a_limit_that_holds_one_take_turns_without_a_lost_call(
    small_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "b").symlink_to(small_folder)
    names = [str(small_folder), str(tmp_path / "b")]
    engine = InferenceEngine(device="cpu", threads=1, memory_limit=400_000, max_batch=2)
    for name in names:
        await engine.load_model(name)
    assert engine.models == (names[1],)
    held = regex_grammar("a{6}", field="it")
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(
                ask(engine, model=names[at % 2], max_tokens=6, temperature=0, grammar=held if at % 3 else None)
            )
            for at in range(6)
        ]
        vectors = [group.create_task(engine.embed(["x"], model=name)) for name in names]
    assert [task.result().output_tokens for task in asked] == [6] * 6
    assert [asked[at].result().text for at in (1, 2, 4, 5)] == ["aaaaaa"] * 4
    assert vectors[0].result() == vectors[1].result()
    assert len(engine.models) == 1
    await engine.close()
