"""How events are kept in the store: JSON arrays that begin with their kind and the process that wrote them.

Whatever else is found there, of another version or by another hand, is nothing to us.
"""

from __future__ import annotations

from typing import Any, TypeAlias, assert_never

import orjson

from llm.core.call import Charge
from llm.limits.ledger import Event, Gone, Resting, Running, Settled, Standing, Taken, Waiting

Words: TypeAlias = tuple[str, bytes, str]
"""An event as it is sent: its kind, its JSON, and what the kind needs beside it."""


def encode(process: str, event: Event, *, logged: bool = True) -> Words:
    """Return the event as it is sent; `logged`: a `Standing` goes into the log, for all, in place of beside it."""
    match event:
        case Taken(call, charge):
            return "T", _json("T", process, call, *_amounts(charge)), ""
        case Settled(call, used):
            return "S", _json("S", process, call, *_amounts(used)), ""
        case Waiting(charge, priority):
            return "W", _json("W", process, priority, *_amounts(charge)), str(priority)
        case Gone(dead):
            return "G", _json("G", process, int(dead)), str(int(dead))
        case Resting(seconds):
            return "R", _json("R", process, seconds), ""
        case Standing(taken, running, upto, for_all):
            known = {name: [[*pair] for pair in pairs] for name, pairs in taken.items()}
            calls = [[call.call, call.process, *_amounts(call.charge)] for call in running]
            return "N" if logged or for_all else "P", _json("N", process, known, calls, upto), upto
        case _:
            assert_never(event)


def decode(data: bytes) -> tuple[str, Event] | None:
    """Return who wrote the event, and the event; None where it is none."""
    try:
        match orjson.loads(data):
            case [str(kind), str(process), *rest]:
                event = _event(kind, rest)
            case _:
                return None
    except (ValueError, TypeError, AttributeError):
        return None
    return None if event is None else (process, event)


def _event(kind: str, rest: list[Any]) -> Event | None:
    found: Event | None = None
    match kind, rest:
        case "T", [str(call), *charge]:
            found = Taken(call, _charge(charge))
        case "S", [str(call), *charge]:
            found = Settled(call, _charge(charge))
        case "W", [int(priority), *charge]:
            found = Waiting(_charge(charge), priority)
        case "G", [0 | 1 as dead]:
            found = Gone(bool(dead))
        case "R", [float() | int() as seconds]:
            found = Resting(_number(seconds))
        case "N", [taken, running, str(upto)]:
            found = Standing(_taken(taken), tuple(_running(*call) for call in running), upto)
        case _:
            pass
    return found


def _taken(names: dict[str, list[list[float]]]) -> dict[str, tuple[tuple[float, float], ...]]:
    return {name: tuple((_number(ago), _number(amount)) for ago, amount in pairs) for name, pairs in names.items()}


def _running(call: object, process: object, *charge: Any) -> Running:  # noqa: ANN401 - JSON enters here
    if not isinstance(call, str) or not isinstance(process, str):
        raise TypeError("a call and its process have names")
    return Running(call, process, _charge(list(charge)))


def _charge(amounts: list[Any]) -> Charge:
    tokens_in, tokens_out, total, cost, requests = amounts
    return Charge(_count(tokens_in), _count(tokens_out), _count(total), _number(cost), _count(requests))


def _amounts(charge: Charge) -> tuple[int, int, int, float, int]:
    return charge.input_tokens, charge.output_tokens, charge.total_tokens, charge.cost, charge.requests


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("a number of tokens or requests is a whole one")
    return value


def _number(value: object) -> float:
    if type(value) not in {int, float} or not isinstance(value, (int, float)) or value < 0:
        raise TypeError("an amount is a number")
    return float(value)


def _json(*values: object) -> bytes:
    return orjson.dumps(values)
