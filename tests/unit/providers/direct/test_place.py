from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from llm.core.exceptions import LLMConnectionError
from llm.providers.direct.place import place_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    place_of.cache_clear()
    yield monkeypatch
    place_of.cache_clear()


@pytest.mark.parametrize(
    ("url", "origin", "target", "host_field"),
    [
        ("https://api.example.com/v1/chat", ("api.example.com", 443, True), b"/v1/chat", b"api.example.com"),
        ("http://127.0.0.1:8000/v1", ("127.0.0.1", 8000, False), b"/v1", b"127.0.0.1:8000"),
        ("http://localhost:80", ("localhost", 80, False), b"/", b"localhost"),
        ("http://[::1]:8000/v1", ("::1", 8000, False), b"/v1", b"[::1]:8000"),
        ("https://example.com/a?b=c%20d&e=/?f", ("example.com", 443, True), b"/a?b=c%20d&e=/?f", b"example.com"),
        ("https://example.com/caf\xe9", ("example.com", 443, True), b"/caf%C3%A9", b"example.com"),
        ("https://b\xfccher.example/", ("xn--bcher-kva.example", 443, True), b"/", b"xn--bcher-kva.example"),
    ],
)
def test_an_address_is_taken_apart(url: str, origin: tuple[str, int, bool], target: bytes, host_field: bytes) -> None:
    place = place_of(url, trust_env=True)
    assert (place.origin.host, place.origin.port, place.origin.secure) == origin
    assert (place.target, place.host_field) == (target, host_field)
    assert place.origin.proxy is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "ftp://example.com:21/",
        "http:///path",
        "http://example.com:port/",
        "http://example.com:99999/",
        "http://example.com/a\r\nx-injected: yes",
        "http://example.com/a\nb",
        "http://exa\tmple.com/",
        "http://example.com/a b",
        "http://exam\x00ple.com/",
    ],
)
def test_what_is_no_address_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(LLMConnectionError, match="no address") as caught:
        place_of(url, trust_env=False)
    assert not caught.value.sent
    assert not caught.value.retryable
    assert "injected" not in str(caught.value)


def test_addresses_of_one_server_share_its_connections() -> None:
    one, other = place_of("http://a.test/one", trust_env=False), place_of("http://a.test/other", trust_env=False)
    assert one.origin is other.origin
    assert one.origin is not place_of("http://a.test:81/one", trust_env=False).origin
    assert one.origin is not place_of("https://a.test/one", trust_env=False).origin


def test_credentials_of_an_address_go_into_a_field_and_are_not_shown() -> None:
    place = place_of("http://ann:pass%40word@a.test/", trust_env=False)
    assert place.authorization == b"Basic YW5uOnBhc3NAd29yZA=="
    assert place.host_field == b"a.test"
    assert "pass" not in repr(place) + repr(place.origin)


def test_plain_requests_name_the_whole_address_to_a_proxy(no_proxies: pytest.MonkeyPatch) -> None:
    no_proxies.setenv("http_proxy", "proxy.test:3128")
    place = place_of("http://vendor.test:81/v1?a=b", trust_env=True)
    proxy = place.origin.proxy
    assert proxy is not None
    assert (proxy.host, proxy.port) == ("proxy.test", 3128)
    assert place.target == b"http://vendor.test:81/v1?a=b"
    assert place.host_field == b"vendor.test:81"
    assert place_of("https://vendor.test/", trust_env=True).origin.proxy is None


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_each_of_the_usual_variables_names_a_proxy(no_proxies: pytest.MonkeyPatch, variable: str) -> None:
    no_proxies.setenv(variable, "https://proxy.test")
    proxy = place_of("https://vendor.test/", trust_env=True).origin.proxy
    assert proxy is not None
    assert (proxy.host, proxy.port, proxy.secure) == ("proxy.test", 443, True)
    place_of.cache_clear()
    assert place_of("https://vendor.test/", trust_env=False).origin.proxy is None


@pytest.mark.parametrize("exempt", ["vendor.test", ".test", "vendor.test:443", "*", "a.test, vendor.test"])
def test_no_proxy_exempts(no_proxies: pytest.MonkeyPatch, exempt: str) -> None:
    no_proxies.setenv("https_proxy", "http://proxy.test")
    no_proxies.setenv("no_proxy", exempt)
    assert place_of("https://vendor.test/", trust_env=True).origin.proxy is None


@pytest.mark.parametrize(
    ("host", "exempt", "goes_direct"),
    [
        ("[::1]", "localhost,127.0.0.1,::1", True),
        ("[::1]", "[::1]:8000", True),
        ("[fd00::5]", "fd00::/8", True),
        ("10.1.2.3", "a.test, 10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3/8", True),
        ("11.1.2.3", "10.0.0.0/8,fd00::/8", False),
        ("10.test", "10.0.0.0/8", False),
    ],
)
def test_no_proxy_names_addresses_and_networks(
    no_proxies: pytest.MonkeyPatch, host: str, exempt: str, goes_direct: bool
) -> None:
    no_proxies.setenv("http_proxy", "http://proxy.test")
    no_proxies.setenv("no_proxy", exempt)
    assert (place_of(f"http://{host}:8000/v1", trust_env=True).origin.proxy is None) is goes_direct


def test_a_proxys_password_needs_no_user(no_proxies: pytest.MonkeyPatch) -> None:
    no_proxies.setenv("https_proxy", "http://:pass@proxy.test")
    proxy = place_of("https://vendor.test/", trust_env=True).origin.proxy
    assert proxy is not None
    assert proxy.authorization == b"Basic OnBhc3M="


def test_a_proxy_that_we_do_not_speak_is_refused_without_its_password(no_proxies: pytest.MonkeyPatch) -> None:
    no_proxies.setenv("https_proxy", "socks5://ann:proxy-pass@proxy.test:1080")
    with pytest.raises(LLMConnectionError, match="the proxy of the environment") as caught:
        place_of("https://vendor.test/", trust_env=True)
    assert "proxy-pass" not in str(caught.value)
    assert not caught.value.retryable
