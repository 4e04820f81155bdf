"""The model on the box behind `manifold serve` with nothing configured, asked by OpenAI's own client."""

# ruff: noqa: ANN401 - what the client gives depends on what it is asked
from __future__ import annotations

import json
from math import hypot
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest
from openai import BadRequestError, OpenAI
from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("served_alone")

MODEL = "smollm2-135m"
ASKED: Any = {"model": MODEL, "messages": [{"role": "user", "content": "How is the weather in Rome?"}]}
PLACE = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "description": "Tells it", "parameters": PLACE}}


class Weather(BaseModel):
    sunny: bool
    degrees: int


@pytest.fixture(scope="module")
def client(served_alone: str) -> Iterator[Any]:
    with OpenAI(base_url=f"{served_alone}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_it_lists_its_model_and_continues_a_text(client: Any, served_alone: str) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    body = json.dumps({"prompt": "The capital of France is", "max_length": 4, "temperature": 0}).encode()
    with urlopen(Request(f"{served_alone}/v1/generate", body, {"content-type": "application/json"})) as answer:  # noqa: S310 - our own
        assert json.load(answer)["generated_text"].startswith(" Paris")


def test_it_calls_a_tool_and_reads_the_result(client: Any) -> None:
    called = client.chat.completions.create(**ASKED, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False)
    choice = called.choices[0]
    assert choice.message.tool_calls
    (call,) = choice.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, choice.finish_reason) == ("weather", "tool_calls")
    assert json.loads(call.function.arguments)["city"] in {"Rome", "Oslo"}
    told: Any = [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "sunny, 30 degrees"}]
    turns = {**ASKED, "messages": [*ASKED["messages"], *told]}
    assert client.chat.completions.create(**turns, tools=[WEATHER], tool_choice="none", max_tokens=3).choices[0].message


def test_it_streams_a_call(client: Any) -> None:
    named: Any = {"type": "function", "function": {"name": "weather"}}
    stream = client.chat.completions.create(**ASKED, tools=[WEATHER], tool_choice=named, stream=True)
    chunks = [chunk.choices[0] for chunk in stream if chunk.choices]
    deltas = [delta for chunk in chunks for delta in chunk.delta.tool_calls or () if delta.function]
    assert len(deltas) > 2
    written = "".join((delta.function.arguments or "") for delta in deltas if delta.function)
    assert json.loads(written)["city"] in {"Rome", "Oslo"}
    assert chunks[-1].finish_reason == "tool_calls"


def test_it_keeps_to_a_form(client: Any) -> None:
    parsed = client.chat.completions.parse(**ASKED, response_format=Weather, max_tokens=40).choices[0].message.parsed
    assert isinstance(parsed, Weather)
    outputs = {"structured_outputs": {"choice": ["sunny", "rainy"]}}
    chosen = client.chat.completions.create(**ASKED, extra_body=outputs).choices[0].message.content
    assert chosen in {"sunny", "rainy"}
    odd: Any = {"type": "json_schema", "json_schema": {"name": "odd", "schema": {"not": {}}}}
    with pytest.raises(BadRequestError, match=r"json_schema.schema has what no answer can be held to"):
        client.chat.completions.create(**ASKED, response_format=odd)


def test_it_tells_logprobs_of_several_choices(client: Any) -> None:
    told = client.chat.completions.create(**ASKED, n=2, seed=1, logprobs=True, top_logprobs=2, max_tokens=3, user="ann")
    assert [choice.index for choice in told.choices] == [0, 1]
    for choice in told.choices:
        assert choice.logprobs is not None
        tokens: list[Any] = choice.logprobs.content
        assert "".join(token.token for token in tokens) == choice.message.content
        assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)
    assert told.usage is not None
    assert told.usage.completion_tokens == 6


def test_it_makes_vectors(client: Any) -> None:
    texts = ["A cat sat on the mat.", "A kitten lay on the rug.", "Quarterly earnings fell."]
    made = [item.embedding for item in client.embeddings.create(model=MODEL, input=texts).data]
    near, far = (sum(a * b for a, b in zip(made[0], other, strict=True)) for other in made[1:])
    assert near > far
    (short,) = client.embeddings.create(model=MODEL, input="one", dimensions=8).data
    assert (len(made[0]), len(short.embedding)) == (576, 8)
    assert hypot(*short.embedding) == pytest.approx(1, abs=1e-5)
