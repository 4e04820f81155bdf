"""Tools: how a model is told of them, in what form it calls them, and the grammar that its calls are held to.

A chat template that knows tools, and whose form of calls is one of those below, tells of them itself. Any other model
is told in a system turn, in the words that Hermes models were taught and most others have read: it then may call tools,
as well as its size allows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from .grammar import Grammar, json_rule, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_CALLS: Final = 8
"""Calls in one answer, so that a small model comes to an end."""

_WORDS: Final = (
    "You may call these tools, each told as JSON with the JSON Schema of its arguments:\n<tools>\n{tools}\n</tools>\n\n"
    "To call one, write its name and arguments as JSON, in this form and with nothing after it:\n"
    '<tool_call>\n{{"name": <name>, "arguments": <arguments>}}\n</tool_call>'
)


@dataclass(frozen=True, slots=True)
class CallForm:
    """How a model writes a call: `begin`, the tool's name as JSON, `middle`, the arguments as JSON, `end`.

    Attributes:
        begin: Before the name.
        middle: Before the arguments.
        end: After them.
        marks: Whether `begin` is a mark that no other text has; else a call is the whole answer.
        native: Whether the chat template tells of tools and writes calls itself.
    """

    begin: str
    middle: str
    end: str
    marks: bool
    native: bool


# Source: https://github.com/NousResearch/Hermes-Function-Calling
HERMES: Final = CallForm('<tool_call>\n{"name": ', ', "arguments": ', "}\n</tool_call>", marks=True, native=True)
# Source: https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1/
LLAMA: Final = CallForm('{"name": ', ', "parameters": ', "}", marks=False, native=True)
IN_WORDS: Final = replace(HERMES, native=False)


def form_of(template: str | None) -> CallForm:
    """Return the form of calls of the models that a chat template was made for."""
    if template is None or "tools" not in template:
        return IN_WORDS
    if "<tool_call>" in template and "<function=" not in template:
        return HERMES
    if '"parameters"' in template and "<|python_tag|>" in template:
        return LLAMA
    return IN_WORDS


def calls_grammar(
    form: CallForm, tools: Sequence[Mapping[str, Any]], *, must: bool, several: bool, answer: Grammar | None
) -> Grammar:
    """Return the form of an answer that may call tools.

    Args:
        form: How calls are written.
        tools: In OpenAI's form; those that may be called.
        must: Whether at least one is called.
        several: Whether more than one call is allowed.
        answer: Form of an answer without calls; None: any text.
    """
    one = {name: f"tool_{at}" for at, name in enumerate(tool["function"]["name"] for tool in tools)}
    rules = [
        f"{rule}: {quoted(json.dumps(tool['function']['name']) + form.middle)} {_arguments(tool)}"
        for rule, tool in zip(one.values(), tools, strict=True)
    ]
    more = f' ("\\n" call){{0,{MOST_CALLS - 1}}}' if several and form.marks else ""
    mark = form.begin.partition("\n")[0]
    rest = form.begin.removeprefix(mark)
    rules += [f"call: {quoted(mark)} body", f"body: {quoted(rest)} ({' | '.join(one.values())}) {quoted(form.end)}"]
    if must:
        return Grammar("\n".join([f"start: call{more}", *rules]), field="tools")
    if answer is not None:
        return _beside(answer, f"call{more}", rules)
    if form.marks:
        # The mark ends what is free, as soon as it is there.
        rules += [f"head[lazy]: TEXT {quoted(mark)}", r"TEXT: /(.|\n)*/"]
        return Grammar("\n".join([f"start: TEXT | head body{more}", *rules]), field="tools")
    return Grammar("\n".join(["start: call | TEXT", *rules, r"TEXT: /([^{](.|\n)*)?/"]), field="tools")


def _beside(answer: Grammar, calls: str, rules: Sequence[str]) -> Grammar:
    looser = None if answer.looser is None else _beside(answer.looser, calls, rules)
    source = "\n".join([f"start: {calls} | answer", f"answer: {answer.source.removeprefix('start: ')}", *rules])
    return replace(answer, source=source, looser=looser)


def _arguments(tool: Mapping[str, Any]) -> str:
    return json_rule({"type": "object", "properties": {}, **(tool["function"].get("parameters") or {})})


def in_words(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return a conversation for a chat template that knows no tools: what it would tell is in the turns."""
    turns = [_turn(message) for message in messages]
    if not tools:
        return turns
    told = _WORDS.format(tools="\n".join(json.dumps(tool["function"]) for tool in tools))
    if turns and turns[0]["role"] == "system":
        return [{"role": "system", "content": f"{turns[0]['content']}\n\n{told}"}, *turns[1:]]
    return [{"role": "system", "content": told}, *turns]


def _turn(message: Mapping[str, Any]) -> dict[str, str]:
    role, content = message["role"], message["content"]
    if role == "tool":
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    calls = [_written(call["function"]) for call in message.get("tool_calls") or ()]
    return {"role": role, "content": "\n".join([*([content] if content or not calls else []), *calls])}


def _written(call: Mapping[str, Any]) -> str:
    form = IN_WORDS
    return f"{form.begin}{json.dumps(call['name'])}{form.middle}{json.dumps(call['arguments'])}{form.end}"
