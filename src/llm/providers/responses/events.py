"""The events of a streamed response as chunks.

Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from llm.core.messages import ThinkingPart
from llm.core.types import StreamChunk, ToolCallDelta
from llm.providers.errors import error_for
from llm.providers.failure import read_failure
from llm.providers.openai.logprobs import read_token
from llm.providers.wire import read_object, senseless, text_of

from .answer import finish_of, message_logprobs, message_text, refuses, usage_of
from .thoughts import LED_NOWHERE, led_to, texts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm.utils.sse import Event

_SHORT: Final = frozenset({"incomplete", "failed", "cancelled"})
_INPUTS: Final = {"function_call": "arguments", "custom_tool_call": "input"}
"""Calls of the caller's tools, and what each names what it passes."""


class ResponsesEvents:
    """Reads one stream. It ends with `response.completed` or `response.incomplete`, and with nothing else."""

    __slots__ = (
        "_calls", "_items", "_part", "_refused", "_said", "_streamed", "_thought", "done", "id", "model", "raw",
    )  # fmt: skip

    def __init__(self) -> None:
        """Start at the first event."""
        self.id: str = ""
        self.model: str = ""
        self.raw: Mapping[str, Any] | None = None
        self.done: bool = False
        self._refused = False
        self._said = 0  # characters of text that came
        self._items = False  # one of them came, or a piece of one
        self._calls: dict[int, int] = {}  # place of an item → place of its call among the calls
        self._streamed: set[int] = set()  # places of the items of which pieces came
        self._part: object = None  # text of a thought that pieces come of
        self._thought: ThinkingPart | None = None  # end of a thought, until it is known what it led to

    def feed(self, event: Event) -> StreamChunk | None:
        """Take an event and return its chunk; None where it holds nothing for the caller.

        Raises:
            LLMServerError: It makes no sense.
            LLMException: It tells of a failure.
        """
        name, data = event
        if name == "error":
            raise error_for(200, read_failure(data))
        if data.startswith(b"[DONE]"):  # some servers take it over from chat completions
            return None
        body = read_object(data)
        try:
            return self._read(body.get("type") or name, body)
        except (KeyError, TypeError, AttributeError, ValueError):
            pass
        raise senseless("an event that is no part of a response")

    def _read(self, kind: object, body: dict[str, Any]) -> StreamChunk | None:
        match kind:
            case "response.output_text.delta" | "response.refusal.delta":
                self._refused = self._refused or kind == "response.refusal.delta"
                return self._text(body)
            case "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta":
                return self._arguments(body)
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                return self._thinking(kind, body)
            case "response.output_item.added":
                return self._added(body)
            case "response.output_item.done":
                return self._item_done(body)
            case _:
                return self._turn(kind, body)

    def _turn(self, kind: object, body: dict[str, Any]) -> StreamChunk | None:
        match kind:
            case "response.created":
                self._start(body["response"])
            case "response.completed":
                return self._last(body["response"], "completed")
            case "response.incomplete":
                return self._last(body["response"], "incomplete")
            case "response.failed":
                raise error_for(200, read_failure(body["response"]))
            case "error":
                raise error_for(200, read_failure(body))
            case "":
                raise TypeError("expected an event's type")
            case _:  # progress of the vendor's own tools, and what is added later, say nothing to the caller
                pass
        return None

    def _text(self, body: dict[str, Any]) -> StreamChunk | None:
        text = text_of(body["delta"])
        self._said += len(text)
        self._streamed.add(body["output_index"])
        if likely := body.get("logprobs"):
            return StreamChunk(text, logprobs=tuple(map(read_token, likely)))
        return StreamChunk(text) if text else None

    def _arguments(self, body: dict[str, Any]) -> StreamChunk | None:
        text = text_of(body["delta"])
        place = self._calls[body["output_index"]]
        self._streamed.add(body["output_index"])
        return StreamChunk("", (ToolCallDelta(place, arguments=text),)) if text else None

    def _thinking(self, kind: object, body: dict[str, Any]) -> StreamChunk | None:
        text = text_of(body["delta"])
        index = body["output_index"]
        part = (kind, index, body.get("summary_index"), body.get("content_index"))
        if not text:
            return None
        name = None if part == self._part else text_of(body.get("item_id")) or None
        self._part = part
        self._streamed.add(index)
        return StreamChunk(thinking=ThinkingPart(text, id=name))

    def _start(self, response: dict[str, Any]) -> None:
        self.id = text_of(response.get("id")) or self.id
        self.model = text_of(response.get("model")) or self.model

    def _added(self, body: dict[str, Any]) -> StreamChunk | None:
        item = body["item"]
        self._items = True
        thought = self._end_of_thought(led_to(item))
        if item["type"] in _INPUTS:
            place = self._calls[body["output_index"]] = len(self._calls)
            custom = item["type"] == "custom_tool_call"
            call = ToolCallDelta(place, text_of(item["call_id"]), text_of(item["name"]), custom=custom)
            return StreamChunk("", (call,), thinking=thought)
        return None if thought is None else StreamChunk(thinking=thought)

    def _item_done(self, body: dict[str, Any]) -> StreamChunk | None:
        """Take a whole item: what came in no pieces, as some servers send it, and what ends a thought."""
        item, index = body["item"], body["output_index"]
        self._items = True
        kind, whole = item["type"], index not in self._streamed
        if kind == "reasoning":
            self._hold_thought(item, whole=whole)
        elif kind == "message" and whole:
            self._refused = self._refused or refuses(item)
            text = message_text(item)
            self._said += len(text)
            return StreamChunk(text, logprobs=message_logprobs(item)) if text else None
        elif kind in _INPUTS and whole:
            arguments = text_of(item[_INPUTS[kind]])
            self._streamed.add(index)
            return StreamChunk("", (ToolCallDelta(self._calls[index], arguments=arguments),)) if arguments else None
        return None

    def _hold_thought(self, item: dict[str, Any], *, whole: bool) -> None:
        encrypted = text_of(item.get("encrypted_content")) or None
        text = "\n\n".join(texts_of(item)) if whole else ""
        name = text_of(item.get("id")) or None if whole else None
        if text or encrypted or not whole:
            self._thought = ThinkingPart(text, None, encrypted, name)

    def _end_of_thought(self, before: str | None) -> ThinkingPart | None:
        held, self._thought = self._thought, None
        thought = None if held is None else replace(held, before=before)
        return None if thought == ThinkingPart("") else thought

    def _last(self, response: dict[str, Any], status: str) -> StreamChunk:
        if not (self._items or self._streamed) and (response.get("output") or not self.id):
            raise senseless("the end of a stream without an answer")
        if self._is_short(response):
            raise senseless("the end of a stream that tells of more than came before it")
        if response.get("error"):
            raise error_for(200, read_failure(response))
        self._start(response)
        if response.get("status") in _SHORT:  # some servers send one closing event, whatever became of the answer
            status = response["status"]
        self.raw = response
        finish = finish_of(response, status, refused=self._refused, called=bool(self._calls))
        self.done = True
        return StreamChunk("", (), finish, usage_of(response.get("usage")), self._end_of_thought(LED_NOWHERE))

    def _is_short(self, response: dict[str, Any]) -> bool:
        """Return whether the closing event repeats more than came: of text, or calls and what they pass."""
        output: list[dict[str, Any]] = response.get("output") or []
        text = sum([len(message_text(item).strip()) for item in output if item["type"] == "message"])
        calls = [item for item in output if item["type"] in _INPUTS]
        passing = sum([bool(item[_INPUTS[item["type"]]]) for item in calls])
        came = len(self._streamed & self._calls.keys())
        return text > self._said or len(calls) > len(self._calls) or passing > came
