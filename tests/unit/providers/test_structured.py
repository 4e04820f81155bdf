"""How each dialect asks for the form of an answer, and what comes back whichever way that was."""

# ruff: noqa: ANN401 - JSON as it comes

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from llm import LLMManager
from llm.core.choices import Choice
from llm.core.exceptions import LLMInvalidRequestError, LLMServerError
from llm.core.messages import Message, MessageRole, TextPart, ToolCall
from llm.core.structured import shape_of
from llm.core.types import LLMRequest, LLMResponse, StreamChunk, ToolCallDelta, ToolDefinition
from llm.providers.anthropic import AnthropicDialect
from llm.providers.openai import OpenAIDialect
from llm.providers.structured import ANSWER_TOOL, RefusedWays, Way, Ways, shaped
from llm.providers.unwrap import UnwrappedEvents, unwrapped
from llm.testing import FakeClock, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm import LLMClient
    from llm.utils.sse import Event


class City(BaseModel):
    """A city."""

    name: str
    people: int


class Tree(BaseModel):
    branches: list[Tree] = []


class Counts(BaseModel):
    by_word: dict[str, int]


OSLO = '{"name":"Oslo","people":717710}'
REQUEST = LLMRequest("Which?", model="gpt-4o", response_model=City)
LOOK = ToolDefinition("look", "Looks.")


def asks_natively(request: LLMRequest) -> bool:
    form = request.response_format
    return form is not None and not isinstance(form, str) and form["type"] == "json_schema"


def asks_for_the_tool(request: LLMRequest) -> bool:
    return any(isinstance(tool, ToolDefinition) and tool.name == ANSWER_TOOL for tool in request.tools or ())


def in_form(request: LLMRequest) -> LLMResponse | Exception:
    """Answer as a model does that was asked so."""
    if asks_for_the_tool(request):
        return LLMResponse(tool_calls=(ToolCall("call-1", ANSWER_TOOL, OSLO),))
    return LLMResponse(content=OSLO if asks_natively(request) else f"```json\n{OSLO}\n```")


class Bench:
    """A manager in front of a vendor that notes how it was asked."""

    def __init__(self, dialect: Any, answer: Callable[[LLMRequest], Any] = in_form, keys: int = 1) -> None:
        self.clock = FakeClock()
        self.asked: list[LLMRequest] = []
        self._answer = answer
        self.upstream = MockUpstream(dialect, clock=self.clock, answer=self.note)
        section = {"base_url": self.upstream.base_url, "api_keys": [f"k{n}" for n in range(keys)]}
        self.config: dict[str, Any] = {"providers": {dialect: {**section, "models": ["*"]}}}

    def note(self, request: LLMRequest) -> Any:
        self.asked.append(request)
        return self._answer(request)

    async def __aenter__(self) -> LLMClient:
        transport = self.upstream.transport()
        self.manager = await LLMManager.open(self.config, transport=transport, clock=self.clock)
        return self.manager.get_client()

    async def __aexit__(self, *_: object) -> None:
        await self.manager.close()

    @property
    def body(self) -> dict[str, Any]:
        return dict(self.upstream.requests[-1].body)


async def ask(client: LLMClient, *, stream: bool, **options: Any) -> LLMResponse:
    if stream:
        return await client.stream_complete("Which?", **options).response()
    return await client.complete("Which?", **options)


# --- each way, whole and streamed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("dialect", "model"),
    [
        ("openai", "gpt-4o"),
        ("openai", "gpt-4"),
        ("anthropic", "claude-sonnet-4-5"),
        ("anthropic", "claude-3-5-haiku-20241022"),
    ],
)
async def test_however_it_was_asked_the_json_is_the_content(dialect: str, model: str, stream: bool) -> None:
    bench = Bench(dialect)
    async with bench as client:
        response = await ask(client, stream=stream, model=model, response_model=City)
    assert response.parsed == City(name="Oslo", people=717710)
    assert response.content == OSLO
    assert (response.tool_calls, response.finish_reason) == ((), "stop")
    assert len(bench.asked) == 1
    native = model in {"gpt-4o", "claude-sonnet-4-5"}
    assert (asks_natively(bench.asked[0]), asks_for_the_tool(bench.asked[0])) == (native, not native)


async def test_openai_gets_the_strict_schema_under_the_classs_name() -> None:
    bench = Bench("openai")
    async with bench as client:
        await client.chat("Which?", model="gpt-4o", response_model=City)
    form = {"name": "City", "strict": True, "schema": shape_of(City).strict}
    assert bench.body["response_format"] == {"type": "json_schema", "json_schema": form}
    assert bench.body["messages"] == [{"role": "user", "content": "Which?"}]


async def test_anthropic_gets_the_schema_in_its_output_config() -> None:
    bench = Bench("anthropic")
    async with bench as client:
        await client.chat("Which?", model="claude-sonnet-4-5", response_model=City)
    assert bench.body["output_config"] == {"format": {"type": "json_schema", "schema": shape_of(City).unbounded}}


@pytest.mark.parametrize(
    ("dialect", "model", "choice"),
    [
        ("openai", "gpt-4", {"type": "function", "function": {"name": ANSWER_TOOL}}),
        ("anthropic", "claude-3-5-haiku-20241022", {"type": "tool", "name": ANSWER_TOOL}),
    ],
)
async def test_a_model_without_schemas_is_forced_to_call_the_answer_tool(dialect: str, model: str, choice: Any) -> None:
    bench = Bench(dialect)
    async with bench as client:
        await client.chat("Which?", model=model, response_model=City)
    assert bench.body["tool_choice"] == choice
    assert bench.asked[0].tools is not None
    (tool,) = bench.asked[0].tools
    assert isinstance(tool, ToolDefinition)
    assert (tool.parameters, tool.description) == (shape_of(City).schema, "Gives the answer: A city.")


@pytest.mark.parametrize("thinking", [{"type": "enabled", "budget_tokens": 1024}, {"type": "adaptive"}])
async def test_a_model_that_thinks_is_asked_in_words_since_no_tool_can_be_forced(thinking: Any) -> None:
    bench = Bench("anthropic")
    async with bench as client:
        response = await client.chat(
            "Which?", system="Be brief.", model="claude-3-7-sonnet-20250219", response_model=City,
            extra={"thinking": thinking},
        )  # fmt: skip
    assert "tools" not in bench.body
    assert bench.body["system"].startswith("Be brief.\n\nAnswer with one JSON object alone")
    assert shape_of(City).text in bench.body["system"]
    assert response.parsed == City(name="Oslo", people=717710)


def order(dialect: OpenAIDialect | AnthropicDialect, model: str, of: type, **options: Any) -> tuple[Way, ...]:
    request = LLMRequest("x", model=model, response_model=of, **options)
    return dialect.ways(request, shape_of(of)).order


def test_the_ways_of_each_dialect() -> None:
    gpt, claude = OpenAIDialect(), AnthropicDialect()
    rest = (Way.TOOL, Way.JSON, Way.WORDS)
    assert order(gpt, "gpt-4o", City) == order(gpt, "gpt-4o", Tree) == (Way.NATIVE, *rest)
    assert order(gpt, "gpt-4o", Counts) == order(gpt, "gpt-3.5-turbo", City) == rest
    assert order(claude, "claude-sonnet-4-5", City) == (Way.NATIVE, Way.TOOL, Way.WORDS)
    assert order(claude, "claude-sonnet-4-5", Tree) == order(claude, "claude-sonnet-4-5", Counts) == rest[::2]
    off = {"thinking": {"type": "disabled"}}
    assert order(claude, "claude-3-haiku", City, extra=off) == (Way.TOOL, Way.WORDS)


# --- beside the caller's own tools ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "sent"),
    [(None, "required"), ("auto", "required"), ("required", "required"), ("none", ANSWER_TOOL), ("look", "look")],
)
def test_beside_the_callers_tools_the_model_may_choose(given: str | None, sent: str) -> None:
    asked = shaped(replace(REQUEST, tools=(LOOK,), tool_choice=given), Way.TOOL)
    assert asked.tool_choice == sent
    assert [tool.name for tool in asked.tools or () if isinstance(tool, ToolDefinition)] == ["look", ANSWER_TOOL]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_calls_the_callers_tool_has_no_instance(stream: bool) -> None:
    calls = (ToolCall("call-1", "look", "{}"),)
    bench = Bench("openai", lambda _: LLMResponse(tool_calls=calls))
    async with bench as client:
        response = await ask(client, stream=stream, model="gpt-4", response_model=City, tools=[LOOK])
    assert (response.parsed, response.tool_calls, response.finish_reason) == (None, calls, "tool_calls")
    assert len(bench.asked) == 1


def test_of_several_calls_only_the_answer_tools_becomes_text() -> None:
    look, answer = ToolCall("a", "look", "{}"), ToolCall("b", ANSWER_TOOL, OSLO)
    both = unwrapped(LLMResponse(tool_calls=(look, answer), finish_reason="tool_calls"))
    assert (both.content, both.tool_calls, both.finish_reason) == (OSLO, (look,), "tool_calls")
    plain = LLMResponse(content="x", tool_calls=(look,))
    assert unwrapped(plain) is plain
    assert unwrapped(LLMResponse(tool_calls=(answer,), finish_reason="length")).finish_reason == "length"


@dataclass
class Told:
    """An `EventReader` of chunks that are there already."""

    chunks: list[StreamChunk | tuple[StreamChunk, ...] | None]
    id: str = "id-1"
    model: str = "gpt-4"
    raw: None = None

    @property
    def done(self) -> bool:
        return not self.chunks

    def feed(self, event: Event) -> StreamChunk | tuple[StreamChunk, ...] | None:
        del event
        return self.chunks.pop(0)


def unwrap(*told: StreamChunk | tuple[StreamChunk, ...] | None) -> list[tuple[StreamChunk, ...]]:
    reader = UnwrappedEvents(Told(list(told)))
    read = [reader.feed(("", b"")) for _ in told]
    assert (reader.id, reader.model, reader.done, reader.raw) == ("id-1", "gpt-4", True, None)
    return [chunks if isinstance(chunks, tuple) else () for chunks in read]


def deltas(*pieces: ToolCallDelta, index: int = 0) -> StreamChunk:
    return StreamChunk(tool_calls=pieces, index=index)


END = StreamChunk(finish_reason="tool_calls")


def test_in_a_stream_the_pieces_come_as_text_and_those_of_other_tools_as_they_are() -> None:
    read = unwrap(
        StreamChunk("Well: "),
        None,
        deltas(ToolCallDelta(1, "b", ANSWER_TOOL)),
        deltas(ToolCallDelta(0, "a", "look", "{"), ToolCallDelta(1, arguments='{"a":')),
        deltas(ToolCallDelta(1, arguments="1}"), ToolCallDelta(0, arguments="}")),
        StreamChunk("That is all."),
        deltas(ToolCallDelta(2, "c", ANSWER_TOOL, "{}")),
        END,
    )
    assert [[chunk.content for chunk in chunks] for chunks in read] == [[], [], [""], ['{"a":'], ["1}"], [], [""], [""]]
    others = [delta for chunks in read for chunk in chunks for delta in chunk.tool_calls]
    assert others == [ToolCallDelta(0, "a", "look", "{"), ToolCallDelta(0, arguments="}")]
    assert read[-1] == (END,)


def test_in_a_stream_words_are_the_answer_where_no_answer_tool_is_called() -> None:
    words, more, look = StreamChunk("Well: "), StreamChunk("{}"), deltas(ToolCallDelta(0, "a", "look", "{}"))
    assert unwrap(words, more, StreamChunk(".", finish_reason="stop"), StreamChunk()) == [
        (), (), (words, more, StreamChunk(".", finish_reason="stop")), (StreamChunk(),)
    ]  # fmt: skip
    assert unwrap(words, look, END) == [(), (look,), (words, END)]
    assert unwrap(words, None) == [(), (words,)]  # no end was told


def test_each_choice_of_a_stream_is_unwrapped_by_itself() -> None:
    own = (deltas(ToolCallDelta(0, "a", ANSWER_TOOL, "1")), deltas(ToolCallDelta(0, "b", ANSWER_TOOL, "2"), index=1))
    ends = (END, replace(END, index=1))
    read = unwrap((StreamChunk("x"), StreamChunk("y", index=1), StreamChunk("z", index=2)), own, ends, None)
    assert [[(chunk.index, chunk.content, chunk.finish_reason) for chunk in chunks] for chunks in read] == [
        [], [(0, "1", None), (1, "2", None)], [(0, "", "stop"), (1, "", "stop")], [(2, "z", None)]
    ]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
async def test_of_several_choices_by_a_forced_tool_each_one_is_its_json(stream: bool) -> None:
    rome = '{"name":"Rome","people":2746984}'
    other = Choice("Or: ", "tool_calls", (ToolCall("b", ANSWER_TOOL, rome),))
    told = LLMResponse(tool_calls=(ToolCall("a", ANSWER_TOOL, OSLO),), alternatives=(other,))
    async with Bench("openai", lambda _: told) as client:
        response = await ask(client, stream=stream, model="gpt-4", response_model=City, extra={"n": 2})
    assert response.choices == (Choice(OSLO, "stop"), Choice(rome, "stop"))
    assert response.parsed == City(name="Oslo", people=717710)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("dialect", "model"), [("openai", "gpt-4"), ("anthropic", "claude-3-5-haiku-20241022")])
async def test_words_before_a_forced_tool_are_no_part_of_the_answer(dialect: str, model: str, stream: bool) -> None:
    told = LLMResponse(content="Let me see. ", tool_calls=(ToolCall("a", ANSWER_TOOL, OSLO),))
    async with Bench(dialect, lambda _: told) as client:
        response = await ask(client, stream=stream, model=model, response_model=City)
    assert (response.content, response.parsed) == (OSLO, City(name="Oslo", people=717710))


async def test_an_answer_that_is_given_twice_at_once_is_one() -> None:
    twice = tuple(ToolCall(f"call-{n}", ANSWER_TOOL, OSLO) for n in range(2))
    async with Bench("openai", lambda _: LLMResponse(tool_calls=twice)) as client:
        for stream in (False, True):
            answer = await ask(client, stream=stream, model="gpt-4", response_model=City, cache=False)
            assert answer.parsed == City(name="Oslo", people=717710)
            assert (answer.content, answer.tool_calls, answer.finish_reason) == (OSLO, (), "stop")


# --- what a server refuses --------------------------------------------------------------------------------------------

NO_SCHEMAS = "This response_format type is unavailable now"
NO_TOOLS = "deepseek-reasoner does not support this tool_choice"


def like_deepseek(request: LLMRequest) -> Any:
    if asks_natively(request):
        return LLMInvalidRequestError(NO_SCHEMAS, status=422)
    return LLMInvalidRequestError(NO_TOOLS, status=400) if asks_for_the_tool(request) else in_form(request)


def in_words_only(request: LLMRequest) -> Any:
    if request.response_format == "json_object":
        return LLMInvalidRequestError("'response_format.type': value is not one of the allowed values", status=400)
    return like_deepseek(request)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("server", "attempts"), [(like_deepseek, 3), (in_words_only, 4)])
async def test_a_server_that_refuses_a_way_is_asked_the_next_one_and_that_is_remembered(
    server: Callable[[LLMRequest], Any], attempts: int, stream: bool
) -> None:
    bench = Bench("openai", server, keys=2)
    async with bench as client:
        before = bench.clock.now()
        first = await ask(client, stream=stream, model="deep", response_model=City)
        assert bench.clock.now() == before
        second = await ask(client, stream=stream, model="deep", response_model=City)
        other = await ask(client, stream=stream, model="another", response_model=City)
        counted = bench.manager.get_status()["metrics"]
    assert first.parsed == second.parsed == other.parsed == City(name="Oslo", people=717710)
    assert (first.attempts, second.attempts, other.attempts) == (attempts, 1, attempts)
    assert (counted["total_requests"], counted["failed_requests"]) == (3, 0)
    assert "JSON" in bench.asked[-1].messages[0].text
    assert bench.asked[-1].response_format == ("json_object" if server is like_deepseek else None)


@pytest.mark.parametrize(
    "error",
    [
        LLMInvalidRequestError("temperature must be 1", status=400),
        LLMInvalidRequestError("response_format is too large", status=413),
    ],
)
async def test_a_failure_for_another_reason_changes_nothing(error: Exception) -> None:
    bench = Bench("openai", lambda _: error)
    async with bench as client:
        for attempts in (1, 2):
            with pytest.raises(LLMInvalidRequestError):
                await client.complete("x", model="m", response_model=City)
            assert len(bench.asked) == attempts
    assert all(map(asks_natively, bench.asked))


def test_what_was_sent_before_a_refusal_was_known_is_asked_again_and_counts_once() -> None:
    refused, ways = RefusedWays(), Ways((Way.NATIVE, Way.TOOL, Way.JSON, Way.WORDS))
    for _ in range(2):
        error = LLMInvalidRequestError(NO_SCHEMAS, status=400)
        refused.learn(REQUEST, ways, error)
        assert (error.retryable, error.retry_after) == (True, 0.0)
    assert refused.choose(REQUEST, ways) is Way.TOOL
    last = Ways((Way.WORDS,))
    error = LLMInvalidRequestError(NO_SCHEMAS, status=400)
    refused.learn(REQUEST, last, error)
    assert not error.retryable
    assert refused.choose(REQUEST, Ways((Way.NATIVE,))) is Way.NATIVE


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param({"extra": {"tools": [{"type": "function", "function": {"name": "mine"}}]}}, id="extra"),
        pytest.param({"tools": (LOOK,)}, id="tools"),
        pytest.param({"reasoning_effort": "high"}, id="reasoning"),
    ],
)
async def test_a_way_that_an_odd_call_was_refused_stays_open_to_plain_calls(odd: dict[str, Any]) -> None:
    def odd_one(request: LLMRequest) -> Any:
        body = bench.upstream.requests[-1].body
        odd = "reasoning_effort" in body or any(name in str(body.get("tools")) for name in ("mine", "look"))
        if odd and "tool_choice" in body:
            return LLMInvalidRequestError(f"tool_choice: {ANSWER_TOOL} does not go with that", status=400)
        return in_form(request)

    bench = Bench("openai", odd_one)
    async with bench as client:
        attempts = [
            (await client.complete("Which?", model="gpt-4", response_model=City, **options)).attempts
            for options in ({}, odd, odd, {})
        ]
    assert attempts == [1, 2, 1, 1]
    assert asks_for_the_tool(bench.asked[-1])


async def test_a_schema_that_is_refused_closes_the_way_to_that_class_alone() -> None:
    def picky(request: LLMRequest) -> Any:
        if asks_natively(request) and "branches" in str(request.response_format):
            return LLMInvalidRequestError("Invalid schema for response_format 'Tree': too deep", status=400)
        return in_form(request) if "City" in str(request) else LLMResponse(tool_calls=(tree,))

    tree = ToolCall("call-1", ANSWER_TOOL, '{"branches":[]}')
    bench = Bench("openai", picky)
    async with bench as client:
        attempts = [
            (await client.complete("Which?", model="gpt-4o", response_model=form)).attempts
            for form in (Tree, Tree, City)
        ]
    assert attempts == [2, 1, 1]
    assert asks_natively(bench.asked[-1])


async def test_a_refused_way_takes_no_attempt_from_the_retries() -> None:
    faults = iter([LLMServerError("down")])

    def down_at_last(request: LLMRequest) -> Any:
        answer = in_words_only(request)
        return answer if isinstance(answer, Exception) else next(faults, answer)

    bench = Bench("openai", down_at_last)
    bench.config["retry"] = {"max_attempts": 2, "initial_delay": 0}
    async with bench as client:
        response = await client.complete("Which?", model="deep", response_model=City)
    assert (response.parsed, response.attempts) == (City(name="Oslo", people=717710), 5)


async def test_a_server_that_refuses_whatever_it_is_asked_is_left_alone_in_the_end() -> None:
    bench = Bench("openai", lambda _: LLMInvalidRequestError("response_format and tool_choice are bad", status=400))
    async with bench as client:
        with pytest.raises(LLMInvalidRequestError):
            await client.complete("Which?", model="gpt-4o", response_model=City)
    assert len(bench.asked) == 4


def test_what_is_remembered_is_bounded() -> None:
    refused, ways = RefusedWays(), Ways((Way.NATIVE, Way.WORDS))
    for number in range(1025):
        refused.learn(replace(REQUEST, model=f"m{number}"), ways, LLMInvalidRequestError(NO_SCHEMAS, status=400))
    assert refused.choose(replace(REQUEST, model="m1024"), ways) is Way.WORDS
    assert refused.choose(replace(REQUEST, model="m0"), ways) is Way.NATIVE


# --- in words ---------------------------------------------------------------------------------------------------------


def test_words_go_into_the_first_system_turn_or_before_all() -> None:
    words = (
        f"Answer with one JSON object alone, without any other text, that fits this JSON Schema:\n{shape_of(City).text}"
    )
    asked = shaped(REQUEST, Way.WORDS)
    assert asked.messages == (Message(MessageRole.SYSTEM, words), *REQUEST.messages)
    assert asked.response_model is None
    for role in (MessageRole.SYSTEM, MessageRole.DEVELOPER):
        texts = (Message(role, "Be brief."), *REQUEST.messages)
        assert shaped(replace(REQUEST, messages=texts), Way.WORDS).messages[0] == Message(role, f"Be brief.\n\n{words}")
        parts = (Message(role, (TextPart("Be brief."),)), *REQUEST.messages)
        asked = shaped(replace(REQUEST, messages=parts), Way.JSON)
        assert asked.messages[0].text == f"Be brief.\n\n{words}"
        assert asked.response_format == "json_object"


def test_a_request_without_a_model_stays_as_it_is() -> None:
    plain = LLMRequest("x")
    assert shaped(plain, Way.WORDS) is plain
