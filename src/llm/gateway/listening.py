"""Where the gateway listens: an address that may be listened on, bound before anything else is opened."""

from __future__ import annotations

import errno
import resource
import socket
from typing import TYPE_CHECKING, Final

from llm.core.exceptions import LLMConfigurationError

if TYPE_CHECKING:
    from llm.core.config import GatewayConfig

_WHY: Final = {
    errno.EADDRINUSE: "another program listens there; stop it, or choose another port with --port",
    errno.EACCES: "the system does not allow it; choose a port above 1023 with --port",
    errno.EADDRNOTAVAIL: "this machine does not have that address; give one of its own, or 127.0.0.1, with --host",
}

_FILES: Final = 65_536
_OUR_FILES: Final = 128
_LEAST: Final = 16


def check_open(config: GatewayConfig) -> None:
    """Refuse to be open to everybody.

    Raises:
        LLMConfigurationError: Others than this machine could call, and no keys are configured.
    """
    if not config.local and not config.api_keys:
        raise LLMConfigurationError(
            f"gateway.host: {config.host} is reached from other machines, and anybody there could spend what your keys "
            "pay for: run `manifold keys create NAME` and put the entry that it prints under gateway.api_keys, or "
            "listen on 127.0.0.1"
        )


def bind(host: str, port: int) -> list[socket.socket]:
    """Return a socket for each address that the host's name stands for; none of them listens yet.

    Raises:
        LLMConfigurationError: One cannot be had; says why.
    """
    sockets: list[socket.socket] = []
    try:
        for family, kind, number, _, address in _addresses(host, port):
            bound = socket.socket(family, kind, number)
            sockets.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((address[0], port, *address[2:]))
            port = bound.getsockname()[1]  # where any was wanted, the same for all
    except OSError as error:
        for bound in sockets:
            bound.close()
        why = _WHY.get(error.errno or 0) or error.strerror or "it cannot be listened on"
        raise LLMConfigurationError(f"gateway.host, gateway.port: {host}, port {port}: {why}") from error
    return sockets


def _addresses(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str | int, ...]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(found))  # type: ignore[arg-type] # a machine without IPv6 has addresses of bytes


def url_of(bound: socket.socket) -> str:
    """Return the address that people on this machine open."""
    name, port = bound.getsockname()[:2]
    host = str({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(name, name))  # noqa: S104 - looked for, not listened on
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_room() -> int:
    """Let the process open as many files as it may; return how many connections that is room for.

    Each of them may need one upstream, and some files are ours.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(_LEAST, (max(soft, most) - _OUR_FILES) // 2)
