"""Two hundred answers of the real model, each to a form, alone and in full batches: all of them fit."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Literal

import pytest
from pydantic import BaseModel, Field

from llm.core.structured import shape_of
from llm.providers.local.grammar import model_grammar

if TYPE_CHECKING:
    from llm.providers.local import InferenceEngine


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class City(BaseModel):
    name: str
    country: str
    sunny: bool


class Review(BaseModel):
    stars: int = Field(ge=1, le=5)
    mood: Mood
    words: list[str]
    price: float | None = None


class Leaf(BaseModel):
    label: str
    kind: Literal["leaf"] = "leaf"


class Tree(BaseModel):
    label: str
    children: list[Tree | Leaf]


class Person(BaseModel):
    name: str = Field(min_length=1, max_length=40)
    age: int
    phone: str = Field(pattern=r"^\d{3}-\d{4}$")
    likes: dict[str, int]
    cities: list[City]


MODELS: list[type[BaseModel]] = [City, Review, Tree, Person]


async def ask(engine: InferenceEngine, at: int) -> tuple[type[BaseModel], str]:
    model = MODELS[at % len(MODELS)]
    shape = shape_of(model)
    prompt = [
        {"role": "system", "content": f"Answer with JSON that fits this schema: {shape.text}"},
        {"role": "user", "content": f"Invent number {at}."},
    ]
    grammar = model_grammar(shape.schema, field="it")
    result = await engine.generate(prompt, grammar=grammar, seed=at, temperature=0.7, max_tokens=120)
    return model, result.text


@pytest.mark.soak
async def test_two_hundred_answers_of_two_hundred_fit_alone_and_in_full_batches(engine: InferenceEngine) -> None:
    alone = [await ask(engine, at) for at in range(40)]
    async with asyncio.TaskGroup() as group:
        together = [group.create_task(ask(engine, at)) for at in range(40, 200)]
    answers = [*alone, *(task.result() for task in together)]
    fit = [model.model_validate_json(text) for model, text in answers]
    assert len(fit) == 200
