"""What `benchmarks` relies on of xllamacpp 2026.10."""

class _Model:
    path: str

class _Threads:
    n_threads: int

class CommonParams:
    model: _Model
    cpuparams: _Threads
    hostnames: list[str]
    port: int
    n_parallel: int
    n_ctx: int
    kv_unified: bool

class Server:
    def __init__(self, params: CommonParams) -> None: ...
