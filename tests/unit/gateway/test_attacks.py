"""What strangers and odd clients send, held against what the gateway promises to everybody."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import PATIENCE, until

from llm.gateway import logs
from llm.gateway.logs import LOGGER, JSONLines
from llm.testing import FakeClock, Fault, MockUpstream
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Serving = Callable[..., Any]

CLOCK = SystemClock()
CHAT = "/v1/chat/completions"
PROMPT = "a private question of a client's"
PROVIDERS = "sk-provider-0123456789abcdef"
KEY = "gw-alice-0123456789"
ASK: dict[str, Any] = {"model": "gpt-4o-mini", "max_tokens": 100, "messages": [{"role": "user", "content": PROMPT}]}
KEYS = {"gateway": {"api_keys": {"alice": {"key": KEY}}}}
ALICE = {"authorization": f"Bearer {KEY}"}
BODIES: dict[str, dict[str, Any]] = {
    CHAT: ASK,
    "/v1/messages": ASK,
    "/v1/responses": {"model": "gpt-4o-mini", "input": PROMPT},
    "/v1/completions": {"model": "gpt-4o-mini", "prompt": PROMPT},
    "/v1/generate": {"model": "gpt-4o-mini", "prompt": PROMPT},
    "/v1/embeddings": {"model": "gpt-4o-mini", "input": PROMPT},
    "/v1/messages/count_tokens": ASK,
    "/graphql": {"query": "{ health { status } }"},
}


@pytest.fixture
def everything() -> Iterator[io.StringIO]:
    """All that is logged at DEBUG, as `manifold serve` writes it."""
    written, logger = io.StringIO(), logging.getLogger("llm")
    before = logger.handlers[:], logger.level
    logger.handlers[:] = [JSONLines(written)]
    logger.setLevel(logging.DEBUG)
    yield written
    logger.handlers[:] = before[0]
    logger.setLevel(before[1])


@pytest.mark.parametrize("path", BODIES)
async def test_a_compressed_body_is_a_415_and_none_is_unpacked(serving: Serving, path: str) -> None:
    bomb = gzip.compress(b"{" + b" " * 1_000_000 + b"}")
    async with serving() as it:
        for coding in ("gzip", "br", "gzip, gzip", "nonsense"):
            headers = {"content-encoding": coding, "content-type": "application/json"}
            status, body, _ = await it.ask("POST", path, data=bomb, headers=headers)
            assert status == 415, body
            assert "content-encoding" in json.dumps(body)
        if path.endswith("count_tokens"):  # which loads much, the first time
            return
        plain = {"content-encoding": "identity", "content-type": "application/json"}
        assert (await it.ask("POST", path, data=json.dumps(BODIES[path]), headers=plain))[0] == 200


async def test_of_a_body_for_no_address_nothing_is_read(serving: Serving) -> None:
    async with serving(**KEYS) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(it.url.rpartition(":")[2]))
        writer.write(b"POST /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
        async with CLOCK.timeout(PATIENCE):
            assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
        writer.close()


@pytest.mark.parametrize("models", [["*"], ["gpt-4o-mini"]])
@pytest.mark.parametrize("allowed", [["*"], ["gpt-4o-mini"]])
async def test_a_models_name_is_short_or_none(
    serving: Serving, models: list[str], allowed: list[str], everything: io.StringIO
) -> None:
    keys = {"gateway": {"api_keys": {"alice": {"key": KEY, "models": allowed}}}}
    async with serving(section={"models": models}, **keys) as it:
        asked = 0
        for path, body in BODIES.items():
            if "model" not in body:
                continue
            status, told, _ = await it.ask("POST", path, body | {"model": "m" * 100_000}, headers=ALICE)
            assert status in {400, 403, 404}, (path, status)
            assert len(json.dumps(told)) < 1_000
            asked += 1
        assert not it.entry.desk.counts.models or all(len(name) < 300 for *_, name in it.entry.desk.counts.models)
        await until(lambda: everything.getvalue().count('"path"') == asked)
    assert max(map(len, everything.getvalue().splitlines())) < 1_000


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=x",
        "text/plain; version=x.y; escaping=z",
        "application/openmetrics-text; version=1.0.0; escaping=nonsense",
        "application/openmetrics-text; version=",
        ";=,;=", "a" * 1000,
    ],
)  # fmt: skip
async def test_metrics_are_told_whatever_is_accepted(serving: Serving, accept: str) -> None:
    async with serving() as it:
        status, page, _ = await it.ask("GET", "/v1/metrics", headers={"accept": accept})
    assert status == 200
    assert "llm_gateway_active_requests" in page


@pytest.mark.parametrize("kind", ["invalid", "server_error", "auth", "error_event", "error_in_200"])
async def test_no_log_holds_a_prompt_or_a_key_even_where_the_provider_repeats_them(
    serving: Serving, everything: io.StringIO, kind: str
) -> None:
    faults = [Fault(kind, every=1, message=f"what is {PROMPT}, and {{key}}?")]
    section, told = {"api_keys": [PROVIDERS]}, list[str]()
    async with (
        MockUpstream(faults=faults) as up,
        serving(up, section=section, retry={"max_attempts": 1}, **KEYS) as it,
    ):
        for path in BODIES if kind == "invalid" else (CHAT,):
            for body in (BODIES[path], BODIES[path] | {"stream": True}):
                _, answer, _ = await it.ask("POST", path, body, headers=ALICE)
                told.append(json.dumps(answer))
        await until(lambda: everything.getvalue().count('"path"') == len(told))
    for text in (*told, everything.getvalue()):
        assert PROVIDERS not in text
        assert KEY not in text
        assert "Traceback" not in text
    assert PROMPT not in everything.getvalue()
    assert "llm.calls" in everything.getvalue()


def test_what_a_library_says_is_json_without_its_values(everything: io.StringIO) -> None:
    handler = JSONLines(written := io.StringIO())
    record = logging.LogRecord("asyncio", logging.ERROR, "", 0, f"never retrieved\nfuture: {PROMPT}", (), None)
    handler.handle(record)
    handler.handle(logging.LogRecord("other", logging.ERROR, "", 0, "%s is wrong", (PROMPT,), None))
    assert [json.loads(line)["message"] for line in written.getvalue().splitlines()] == [
        "never retrieved",
        "%s is wrong",
    ]
    assert not everything.getvalue()


@pytest.mark.parametrize("where", ["?api_key={}", "?key={}&x-api-key={}", "?authorization=Bearer%20{}"])
async def test_a_key_in_an_address_opens_nothing_and_is_not_logged(
    serving: Serving, everything: io.StringIO, where: str
) -> None:
    async with serving(**KEYS) as it:
        status, _, _ = await it.ask("POST", CHAT + where.replace("{}", KEY), ASK)
        await until(lambda: '"path"' in everything.getvalue())
    assert status == 401
    assert KEY not in everything.getvalue()


async def test_nothing_that_is_sent_makes_a_line_of_the_log_or_a_header(
    serving: Serving, everything: io.StringIO
) -> None:
    evil = 'x\r\nx-evil: 1\n{"status": 200}\u2028\x85'
    async with MockUpstream(answer=lambda _: "Hi") as up, serving(up, section={"models": ["*"]}) as it:
        for path, body in BODIES.items():
            headers = {"x-request-id": "a b\tc;{}", "content-type": "application/json"}
            _, _, answered = await it.ask("POST", path, data=json.dumps(body | {"model": evil}), headers=headers)
            assert "x-evil" not in answered
            assert answered["x-request-id"].startswith("req_")
        for path in ("/%0d%0ax-evil:%201", "/v1/models/%0d%0ax-evil:%201%0a", "/\u2028%85", "/..%2f..%2fetc/passwd"):
            _, _, answered = await it.ask("GET", path)
            assert "x-evil" not in answered
        await until(lambda: everything.getvalue().count('"path"') >= len(BODIES) + 4)
    lines = [json.loads(line) for line in everything.getvalue().splitlines()]
    assert len([line for line in lines if "path" in line]) == len(BODIES) + 4


async def test_a_refused_handshake_is_a_request_of_the_log_and_the_metrics(
    serving: Serving, everything: io.StringIO
) -> None:
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    headers = {**upgrade, "sec-websocket-key": "MDEyMzQ1Njc4OWFiY2RlZg==", "x-request-id": "mine"}
    async with serving(**KEYS) as it:
        refused = [await it.ask("GET", path, headers=headers) for path in ("/v1/stream", "/nothing")]
        await until(lambda: everything.getvalue().count('"path"') >= 2)
        requests = dict(it.entry.desk.counts.requests)
    assert [status for status, _, _ in refused] == [401, 404]
    assert [told["x-request-id"] for _, _, told in refused] == ["mine", "mine"]
    assert requests == {401: 1, 404: 1}
    lines = [json.loads(line) for line in everything.getvalue().splitlines()]
    assert [(line["path"], line["status"], line["request_id"]) for line in lines] == [
        ("/v1/stream", 401, "mine"),
        ("/nothing", 404, "mine"),
    ]


class Pipe(io.StringIO):
    """Keeps each piece that is written at once."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def write(self, text: str, /) -> int:
        self.pieces.append(text)
        return len(text)


async def test_lines_go_out_whole_in_pieces_that_no_other_process_writes_into() -> None:
    pipe = Pipe()
    lines = JSONLines(pipe)
    for number in range(100):
        lines.add(json.dumps({"number": number, "text": "ä" * 90}))
    lines.add("x" * 10_000)
    lines.flush()
    *pieces, last = pipe.pieces
    assert len(last) == 10_001
    assert len("".join(pieces).splitlines()) == 100
    assert all(piece.endswith("\n") and len(piece.encode()) <= 4096 for piece in pieces)


def test_a_record_is_made_only_for_writers_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, own = logging.getLogger("test_attacks"), JSONLines(io.StringIO())
    monkeypatch.setattr(parent, "propagate", False)
    monkeypatch.setattr(LOGGER, "parent", parent)
    monkeypatch.setattr(LOGGER, "handlers", [])
    monkeypatch.setattr(parent, "handlers", [own])
    assert logs.only_writer() is own
    monkeypatch.setattr(parent, "handlers", [own, logging.NullHandler()])  # as the package's own logger has
    assert logs.only_writer() is own
    monkeypatch.setattr(parent, "handlers", [own, logging.StreamHandler(io.StringIO())])
    assert logs.only_writer() is None


# --- clients that fit in no drawer ------------------------------------------------------------------------------------


async def test_a_key_that_expires_between_two_requests_of_a_connection_is_refused(serving: Serving) -> None:
    async with serving(**KEYS) as it:
        assert (await it.ask("GET", "/v1/models", headers=ALICE))[0] == 200
        config = it.manager.config
        gone = {"alice": {"key": KEY, "expires": "2020-01-01"}}
        await it.manager.reload({"providers": config_of(it), "gateway": {"api_keys": gone}})
        status, told, _ = await it.ask("GET", "/v1/models", headers=ALICE)
        assert config is not it.manager.config
    assert (status, "expired" in told["error"]["message"]) == (401, True)


async def test_a_stream_goes_on_when_a_reload_takes_its_key_away_and_the_next_call_is_refused(serving: Serving) -> None:
    clock = FakeClock()
    async with MockUpstream(service=3.0, chunk_size=2, clock=clock) as up, serving(up, **KEYS) as it:
        stream = asyncio.create_task(it.events(CHAT, ASK | {"stream": True}, headers=ALICE))
        await until(lambda: up.active)
        keys = {"bob": {"key": "gw-bob-0123456789"}}
        await it.manager.reload({"providers": config_of(it, up), "gateway": {"api_keys": keys}})
        assert (await it.ask("POST", CHAT, ASK, headers=ALICE))[0] == 401
        await clock.advance(3.0)
        assert (await stream)[-1] == "data: [DONE]"
        assert it.manager.get_status()["pool"]["calls"] == 0


def config_of(it: Any, up: MockUpstream | None = None) -> dict[str, Any]:  # noqa: ANN401 - a gateway of the fixture
    del it
    address = "http://127.0.0.1:9/v1" if up is None else up.base_url
    return {"openai": {"base_url": address, "api_keys": ["k1"], "models": ["gpt-4o-mini"]}}


async def test_http_1_0_gets_no_100(serving: Serving) -> None:
    async with serving() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(it.url.rpartition(":")[2]))
        body = json.dumps(ASK).encode()
        writer.write(
            b"POST %b HTTP/1.0\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%b"
            % (CHAT.encode(), len(body), body)
        )
        async with CLOCK.timeout(PATIENCE):
            told = await reader.read()
        writer.close()
    assert told.startswith(b"HTTP/1.1 200 OK\r\n")
