"""How the gateway in this container is: exits with 0 while it answers `/livez`, else with 1 and why.

It listens where `HOST` and `PORT` say, as `manifold serve` reads them.
"""

import os
import sys
from http.client import HTTPConnection, HTTPException

_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked for, not listened on


def _variable(name: str) -> str:
    return os.environ.get(f"LLM__GATEWAY__{name}") or os.environ.get(name, "")


def _trouble() -> str | None:
    host = _variable("HOST")
    connection = HTTPConnection(_LOOPBACK.get(host, host), int(_variable("PORT") or 8000), timeout=2.0)
    try:
        connection.request("GET", "/livez")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return str(error) or type(error).__name__
    return None if status == 200 else f"/livez: {status}"  # noqa: PLR2004 - OK


sys.exit(_trouble())
