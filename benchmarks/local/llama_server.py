"""Runs llama.cpp's server until it is killed: `python -m benchmarks.local.llama_server FILE PORT SLOTS WINDOW`."""

from __future__ import annotations

import signal
import sys

from xllamacpp import CommonParams, Server


def main(file: str, port: int, slots: int, window: int) -> None:
    """Serve a GGUF file on 127.0.0.1, with a window of its own for each slot."""
    params = CommonParams()
    params.model.path = file
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = slots
    params.n_ctx = slots * window
    params.kv_unified = False
    server = Server(params)
    signal.pause()
    del server


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
