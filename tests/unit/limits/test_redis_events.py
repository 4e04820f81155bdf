from __future__ import annotations

import pytest

from llm.core.call import Charge
from llm.limits.ledger import Event, Gone, Resting, Running, Settled, Standing, Taken, Waiting
from llm.limits.redis.events import decode, encode

CHARGE = Charge(1, 2, 3, 0.1 + 0.2, 4)
EVENTS: list[tuple[str, Event]] = [
    ("T", Taken("call", CHARGE)),
    ("S", Settled("c\u00e4ll", CHARGE)),
    ("W", Waiting(CHARGE, -3)),
    ("G", Gone()),
    ("G", Gone(dead=True)),
    ("R", Resting(0.25)),
    ("N", Standing({"rpm": ((0.5, 2.0), (0.25, 1.0)), "tpm": ()}, (Running("c", "p", CHARGE),), "5-1")),
]


@pytest.mark.parametrize(("kind", "event"), EVENTS)
def test_an_event_comes_back_as_it_was(kind: str, event: Event) -> None:
    sent, data, _ = encode("process", event)
    assert sent == kind
    assert decode(data) == ("process", event)


def test_a_standing_goes_beside_the_log_or_into_it() -> None:
    standing = Standing({}, (), "5-1")
    assert encode("p", standing, logged=False)[::2] == ("P", "5-1")
    assert encode("p", standing, logged=True)[::2] == ("N", "5-1")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", b"{}", b"[]", b'["T"]', b'["T","p"]', b'["T",1,"c",1,1,1,0.0,1]', b'["T","p",1,1,1,1,0.0,1]',
        b'["T","p","c",1,1,1,0.0]', b'["T","p","c",1,1,1,0.0,1,1]', b'["T","p","c",1,1,-1,0.0,1]',
        b'["T","p","c",1,1,true,0.0,1]', b'["T","p","c",1.5,1,1,0.0,1]', b'["T","p","c",1,1,1,"0",1]',
        b'["T","p","c",1,1,1,-0.5,1]', b'["T","p","c",1,1,1,NaN,1]', b'["W","p","1",1,1,1,0.0,1]', b'["G","p",2]',
        b'["R","p",-1]', b'["R","p","1"]', b'["N","p",[],[],"0-0"]', b'["N","p",{"x":1},[],"0-0"]',
        b'["N","p",{"x":[[1]]},[],"0-0"]', b'["N","p",{},[["c"]],"0-0"]', b'["N","p",{},[["c",1,1,1,1,0.0,1]],"0-0"]',
        b'["N","p",{},{},0]', b'["?","p"]', b"\xff\xfe", b"cos\nsystem\n(S'true'\ntR.",
    ],
)  # fmt: skip
def test_what_is_none_of_ours_is_nothing(data: bytes) -> None:
    assert decode(data) is None


def test_what_all_must_know_goes_into_the_log() -> None:
    assert [encode("p", Standing({}, for_all=for_all), logged=False)[0] for for_all in (True, False)] == ["N", "P"]
