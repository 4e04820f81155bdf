"""Where the gateway may listen."""

from __future__ import annotations

import resource
import socket
from contextlib import closing

import pytest

from llm.core.config import GatewayConfig, LLMConfig
from llm.core.exceptions import LLMConfigurationError
from llm.core.fixed import check_unchanged
from llm.gateway.listening import bind, check_open, make_room, url_of

KEYS = {"alice": {"key_hash": "sha256:" + "0f" * 32}}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_without_keys_loopback_is_fine(host: str) -> None:
    check_open(GatewayConfig.model_validate({"host": host}))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example.org", "localhost.example.org"])  # noqa: S104 - to be refused
def test_without_keys_any_other_host_is_refused_with_what_to_do(host: str) -> None:
    with pytest.raises(LLMConfigurationError, match="manifold keys create NAME"):
        check_open(GatewayConfig.model_validate({"host": host}))
    check_open(GatewayConfig.model_validate({"host": host, "api_keys": KEYS}))


def test_a_reload_does_not_open_it_to_everybody() -> None:
    def config(host: str, keys: object) -> LLMConfig:
        providers = {"openai": {"api_keys": ["k"], "models": ["gpt-4o-mini"]}}
        return LLMConfig.model_validate({"providers": providers, "gateway": {"host": host, "api_keys": keys}})

    with pytest.raises(LLMConfigurationError, match=r"the last of gateway\.api_keys"):
        check_unchanged(config("192.0.2.1", KEYS), config("192.0.2.1", {}))
    check_unchanged(config("127.0.0.1", KEYS), config("127.0.0.1", {}))
    check_unchanged(config("192.0.2.1", KEYS), config("192.0.2.1", {"bob": {"key": "k" * 40}}))


def test_a_socket_is_bound_and_does_not_listen_yet() -> None:
    [bound] = bind("127.0.0.1", 0)
    with closing(bound):
        assert url_of(bound) == f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(bound.getsockname(), 1)


def test_a_name_is_bound_at_all_its_addresses_and_one_port() -> None:
    sockets = bind("localhost", 0)
    try:
        assert len({bound.getsockname()[1] for bound in sockets}) == 1
        assert {bound.getsockname()[0] for bound in sockets} <= {"127.0.0.1", "::1"}
    finally:
        for bound in sockets:
            bound.close()


def test_an_address_for_everybody_is_told_as_one_that_can_be_opened() -> None:
    [bound] = bind("0.0.0.0", 0)  # noqa: S104 - nobody listens there
    with closing(bound):
        assert url_of(bound).startswith("http://127.0.0.1:")


def test_an_address_of_version_6_is_told_in_brackets() -> None:
    [bound] = bind("::1", 0)
    with closing(bound):
        assert url_of(bound).startswith("http://[::1]:")


@pytest.mark.parametrize(
    ("host", "why"),
    [("192.0.2.1", "does not have that address"), ("no.such.name.invalid", "no.such.name.invalid, port 0: ")],
)
def test_an_address_that_cannot_be_had_is_told_with_the_reason(host: str, why: str) -> None:
    with pytest.raises(LLMConfigurationError, match=why):
        bind(host, 0)


def test_a_port_that_is_taken_is_told_with_what_to_do() -> None:
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as taken,
        pytest.raises(LLMConfigurationError, match=r"another program listens there.*--port"),
    ):
        bind("127.0.0.1", taken.getsockname()[1])


def test_there_is_room_for_as_many_connections_as_files_may_be_open() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        room = make_room()
        now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert now > 256
        assert room == (now - 128) // 2
        assert make_room() == room
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
