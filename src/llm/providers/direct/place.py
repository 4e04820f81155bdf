"""Where a request goes: an address taken apart once, and the proxy that leads there."""

from __future__ import annotations

import base64
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from llm.core.exceptions import LLMConnectionError

_PORTS: Final = {"http": 80, "https": 443}
_UNQUOTED: Final = "/%:@!$&'()*+,;=~-._"
"""What stays as it is in a path. Source: RFC 3986, section 3.3; the percent sign, because paths come quoted."""


class Proxy:
    """A server in between."""

    # No value type: its repr would show the password.
    __slots__ = ("authorization", "host", "port", "secure")

    def __init__(self, host: str, port: int, authorization: bytes, *, secure: bool) -> None:
        """Keep where it is, the field that has its credentials (empty for none), and whether it speaks TLS."""
        self.host: str = host
        self.port: int = port
        self.authorization: bytes = authorization
        self.secure: bool = secure


class Origin:
    """A server, and the way to it: what shares connections. Two are the same only when they are one object."""

    __slots__ = ("authority", "host", "port", "proxy", "secure")

    def __init__(self, host: str, port: int, proxy: Proxy | None, *, secure: bool) -> None:
        """Keep the server, and the proxy, if there is one."""
        self.host: str = host
        self.port: int = port
        self.proxy: Proxy | None = proxy
        self.secure: bool = secure
        self.authority: str = _authority(host, port)


class Place:
    """One address: its origin, and what the head of a request says of it."""

    __slots__ = ("authorization", "host_field", "origin", "target")

    def __init__(self, origin: Origin, target: bytes, host_field: bytes, authorization: bytes) -> None:
        """Keep the origin, the request's target, `Host`, and the credentials that the address holds."""
        self.origin: Origin = origin
        self.target: bytes = target
        self.host_field: bytes = host_field
        self.authorization: bytes = authorization


@lru_cache(maxsize=256)
def place_of(url: str, *, trust_env: bool) -> Place:
    """Take an address apart; the proxy too, for looking through the environment costs more than the request.

    Args:
        url: With http or https.
        trust_env: Go through the proxy that the environment names for it.

    Raises:
        LLMConnectionError: It is no web address, or its proxy is none that we speak.
    """
    parts, host, port = _read(url, "base_url")
    secure = parts.scheme == "https"
    origin = _origin_of(host, port, secure, _proxy_for(parts.scheme, host, port) if trust_env else None)
    written = _authority(host, None if port == _PORTS[parts.scheme] else port)
    target = quote(parts.path or "/", safe=_UNQUOTED)
    if parts.query:
        target = f"{target}?{quote(parts.query, safe=_UNQUOTED + '?')}"
    if origin.proxy is not None and not secure:
        target = f"http://{written}{target}"  # a proxy is told the whole address
    return Place(origin, target.encode("ascii"), written.encode("ascii"), _basic(parts))


@lru_cache(maxsize=256)
def _origin_of(host: str, port: int, secure: bool, proxy: str | None) -> Origin:  # noqa: FBT001 - part of the cache's key
    if proxy is None:
        return Origin(host, port, None, secure=secure)
    parts, proxy_host, proxy_port = _read(
        proxy if "://" in proxy else f"http://{proxy}", "the proxy of the environment"
    )
    through = Proxy(proxy_host, proxy_port, _basic(parts), secure=parts.scheme == "https")
    return Origin(host, port, through, secure=secure)


def _read(url: str, what: str) -> tuple[SplitResult, str, int]:
    # urlsplit takes line ends out of an address without a word.
    try:
        parts = urlsplit(url if url.isprintable() and " " not in url else "")
        host = (parts.hostname or "").encode("idna").decode("ascii")
        usual = _PORTS[parts.scheme]
        port = usual if parts.port is None else parts.port
    except (ValueError, KeyError):
        host, port, parts = "", 0, urlsplit("")
    if not host:
        raise LLMConnectionError(
            f"{what} is no address that can be asked; give it as http://host:port or https://host:port, without "
            "blanks and line ends",
            sent=False,
            retryable=False,
        )
    return parts, host, port


def _authority(host: str, port: int | None) -> str:
    written = f"[{host}]" if ":" in host else host
    return written if port is None else f"{written}:{port}"


def _basic(parts: SplitResult) -> bytes:
    if not (parts.username or parts.password):
        return b""
    credentials = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return b"Basic " + base64.b64encode(credentials.encode())


def _proxy_for(scheme: str, host: str, port: int) -> str | None:
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    if proxy_bypass(_authority(host, port)) or _is_within(host, proxies.get("no", "")):
        return None
    return proxies.get(scheme) or proxies.get("all")


def _is_within(host: str, listed: str) -> bool:
    # urllib compares texts: it knows no networks, and an address of IPv6 in brackets only.
    for name in listed.split(","):
        with suppress(ValueError):
            if ip_address(host) in ip_network(name.strip(), strict=False):
                return True
    return False
