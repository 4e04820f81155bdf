"""TLS: whose certificates are trusted, as the environment says, and whose word ends a connection."""

from __future__ import annotations

import asyncio
import os
import ssl
from functools import partial
from typing import Final

from llm.core.exceptions import LLMConnectionError

_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")

_contexts: dict[tuple[str | None, ...], ssl.SSLContext] = {}


async def tls_context() -> ssl.SSLContext:
    """Return the settings of TLS, made once: reading all certificates takes long, so it happens in a thread.

    Raises:
        LLMConnectionError: What the environment names cannot be read.
    """
    stated = tuple(map(os.environ.get, _VARIABLES))
    if stated not in _contexts:
        make = partial(_context, stated[0] or stated[1], _VARIABLES[0 if stated[0] else 1])
        _contexts[stated] = await asyncio.get_running_loop().run_in_executor(None, make)
    return _contexts[stated]


def is_orderly_end(transport: asyncio.Transport | None) -> bool:
    """Return whether an end is the other side's own, for which TLS has a message, and nobody's in between.

    Source: RFC 9112, section 9.8.
    """
    secured: ssl.SSLObject | None = None if transport is None else transport.get_extra_info("ssl_object")
    try:
        return secured is None or not secured.read(1)
    except ssl.SSLError:  # it waits for more
        return False


def _context(bundle: str | None, variable: str) -> ssl.SSLContext:
    # Without a bundle OpenSSL itself looks at SSL_CERT_FILE and SSL_CERT_DIR, then at what the system trusts.
    is_folder = bundle is not None and os.path.isdir(bundle)  # noqa: PTH112 - as the variable has it
    try:
        context = ssl.create_default_context(cafile=None if is_folder else bundle, capath=bundle if is_folder else None)
    except OSError as error:  # OpenSSL's are some, too
        reason = type(error).__name__
    else:
        context.set_alpn_protocols(["http/1.1"])
        return context
    raise LLMConnectionError(
        f"no certificates can be read from {bundle!r} ({reason}); name a file in PEM format, or a folder of them, in "
        f"{variable}",
        sent=False,
        retryable=False,
    )
