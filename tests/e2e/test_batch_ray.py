"""`manifold batch --engine ray` as it is typed: on a cluster of its own, and on one that it joins."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from threading import Event
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from contextlib import AbstractContextManager

    from llm.testing import MockUpstream

    Served = Callable[..., AbstractContextManager[MockUpstream]]

pytestmark = pytest.mark.ray

KEYS: Final = ("sk-first-long-secret-key", "sk-second-long-secret-key")
LIMIT: Final = {"requests_per_minute": 2000, "concurrent_requests": 60}
CONCURRENCY: Final = 32
IN_HAND: Final = 2 * (CONCURRENCY + CONCURRENCY // 4 + 16)  # rows that two workers have at most
TOKEN: Final = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}  # which a cluster asks for
PATIENCE: Final = 240.0
LOOK: Final = 0.01

# A cluster that somebody else started; it ends with its input.
CLUSTER: Final = """
import logging, sys
import ray
logging.getLogger("ray").setLevel(logging.CRITICAL)
options = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
ray.init("local", num_cpus=2, _temp_dir=sys.argv[1], **options)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


class Store(Protocol):
    url: str


# --- processes --------------------------------------------------------------------------------------------------------


def parents() -> dict[int, int]:
    """Return each process's parent."""
    found: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = path.read_text().rpartition(") ")
        except OSError:
            continue  # it has just ended
        state, parent = rest.split()[:2]
        if state != "Z":
            found[int(path.parent.name)] = int(parent)
    return found


def below(pid: int) -> list[int]:
    """Return the processes that descend from one."""
    known = parents()
    family = [pid]
    for one in family:
        family.extend(child for child, parent in known.items() if parent == one)
    return family[1:]


def workers(pid: int) -> list[int]:
    """Return those below one that answer rows."""
    return [child for child in below(pid) if command_of(child).startswith("ray::Answering")]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def ended(pids: list[int]) -> bool:
    """Wait for processes to end."""
    return until(lambda: not set(pids) & set(parents()), 20.0)


def until(true: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    for _ in range(round(seconds / LOOK)):
        if true():
            return True
        Event().wait(LOOK)
    return False


# --- a folder with an input, and the program run in it ----------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str
    before: list[int] = field(repr=False)


class Bench:
    """A folder with a configuration and an input."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
        self.environ = kept | {
            "PYTHONPATH": str(root / "src"),
            "LLM_STATE_DIR": str(folder / "state"),
            "COLUMNS": "200",
        }

    def configure(self, base_url: str, store: Store | None = None, limit: Mapping[str, int] | None = None) -> None:
        section: dict[str, Any] = {"base_url": base_url, "api_keys": ["${FIRST}", KEYS[1]], "models": ["m"]}
        if limit is not None:
            section["rate_limits"] = [{**limit, "algorithm": "token_bucket"}]
        config: dict[str, Any] = {"providers": {"openai": section}}
        if store is not None:
            config["limits"] = {"store": "redis", "url": store.url}
        self.path("llm.yaml").write_text(json.dumps(config))

    def path(self, name: str) -> Path:
        return self.folder / name

    def write(self, *rows: str) -> None:
        self.path("in.jsonl").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")

    def lines(self, name: str = "out.jsonl") -> int:
        return self.path(name).read_bytes().count(b"\n") if self.path(name).exists() else 0

    def __call__(
        self,
        *words: str,
        output: str = "out.jsonl",
        during: Callable[[subprocess.Popen[str]], object] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> Done:
        """Run to the end."""
        command = [sys.executable, "-m", "llm", "batch", "in.jsonl", "-o", output, *words]
        environ = {**self.environ, "FIRST": KEYS[0], **(variables or {})}
        with self._file("stdout") as out, self._file("stderr") as err:
            program = subprocess.Popen(  # noqa: S603 - our own program
                command,
                cwd=self.folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                text=True,
                process_group=0,
            )
            family: list[int] = []
            try:
                if during is not None:
                    during(program)
                    family = below(program.pid)
                program.wait(PATIENCE)
            finally:
                program.kill()
                program.wait()
        said, told = (self.path(name).read_text("utf-8") for name in ("stdout", "stderr"))
        done = Done(program.returncode, said, told, family)
        assert not [key for key in KEYS if key in done.out + done.err]
        assert "Traceback" not in done.err, done.err
        return done

    def _file(self, name: str) -> IO[bytes]:
        return self.path(name).open("wb")

    def after(self, rows: int, then: Callable[[subprocess.Popen[str]], object]) -> Callable[..., None]:
        """Do something once so many rows are written."""

        def wait(program: subprocess.Popen[str]) -> None:
            assert until(lambda: self.lines() >= rows or program.poll() is not None)
            assert program.poll() is None, self.path("stderr").read_text("utf-8")
            then(program)

        return wait

    def answers(self, name: str = "out.jsonl") -> dict[str, Any]:
        """Return the answers by their rows' ids, each of which must be there once, without what no two runs share."""
        rows = [json.loads(line) for line in self.path(name).read_bytes().splitlines()]
        found: dict[str, Any] = {}
        for row in rows:
            del row["response"]["request_id"], row["response"]["body"]["id"], row["response"]["body"]["created"]
            found[row["custom_id"]] = row
        assert len(found) == len(rows)
        return found

    def failures(self, name: str = "out.errors.jsonl") -> list[str]:
        return sorted(self.path(name).read_text("utf-8").splitlines())


def row(name: str, text: str) -> str:
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 16}
    fields = {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(fields, ensure_ascii=False)


def asked(up: MockUpstream) -> Counter[str]:
    return Counter(request.body["messages"][0]["content"] for request in up.requests)


@pytest.fixture
def bench(tmp_path: Path, root: Path) -> Bench:
    return Bench(tmp_path, root)


@pytest.fixture
def store(redis_server: Callable[[], AbstractContextManager[Store]]) -> Iterator[Store]:
    with redis_server() as server:
        yield server


@dataclass(frozen=True)
class Cluster:
    address: str
    folder: Path
    pid: int


@pytest.fixture(scope="module")
def cluster(root: Path) -> Iterator[Cluster]:
    with started(root) as found:
        yield found


@contextmanager
def started(root: Path) -> Generator[Cluster]:
    folder = mkdtemp(prefix="ray-", dir="/tmp")  # the names of sockets in it must be short
    environ = {**os.environ, "PYTHONPATH": str(root / "src"), "RAY_USAGE_STATS_ENABLED": "0", **TOKEN}
    try:
        with subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-c", CLUSTER, folder],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as program:
            assert program.stdout is not None
            yield Cluster(program.stdout.readline().strip(), Path(folder), program.pid)
            program.communicate()
    finally:
        rmtree(folder)


# --- the tests --------------------------------------------------------------------------------------------------------


def test_a_worker_killed_in_the_middle_costs_no_row_and_no_limit(bench: Bench, served: Served, store: Store) -> None:
    rows = [row(f"r{number}", f"Question\u2028{number}\u0085") for number in range(5000)]
    rows[100:100] = ["{not json", row("r7", "a name that was there"), row("", "no name"), row("large", "x" * 500_000)]
    bench.write(*rows)
    with served() as up:
        bench.configure(up.base_url)
        assert bench(output="local.jsonl").status == 1
    killed: list[int] = []

    def kill_one(program: subprocess.Popen[str]) -> None:
        first, second = workers(program.pid)
        killed.extend((first, second))
        os.kill(first, signal.SIGKILL)

    with served(limits=dict.fromkeys(KEYS, LIMIT), service=0.02) as up:
        bench.configure(up.base_url, store, LIMIT)
        words = ("--engine", "ray", "--workers", "2", "--concurrency", str(CONCURRENCY), "--json")
        done = bench(*words, during=bench.after(1500, kill_one))
        assert bench.answers() == bench.answers("local.jsonl")
        assert bench.failures() == bench.failures("local.errors.jsonl")
        assert {request.status for request in up.requests} == {200}
        seen = asked(up)
    assert len(killed) == 2
    assert len(seen) == 5001
    assert sum(seen.values()) - len(seen) <= IN_HAND / 2
    assert max(seen.values()) <= 2
    assert done.status == 1
    assert "ray: started a cluster on this machine; 2 workers\n" in done.err
    told = json.loads(done.out)
    assert (told["rows"], told["answered"], told["failed"]) == (5004, 5001, 3)
    assert ended(done.before)


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["kill", "int", "term"]
)
def test_ended_early_it_leaves_nothing_running_and_a_run_without_ray_goes_on(
    bench: Bench, served: Served, sent: signal.Signals, status: int
) -> None:
    count = 600
    bench.write(*(row(f"r{number}", f"Question {number}") for number in range(count)))
    with served(service=0.05) as up:
        bench.configure(up.base_url)
        words = ("--engine", "ray", "--workers", "2", "--concurrency", "16")
        done = bench(*words, during=bench.after(150, partial(ending, sent)))
        assert done.status == status, done.err
        if status > 0:
            assert "interrupted; everything finished is kept, run the same command again to go on\n" in done.err
        kept = bench.lines()
        done = bench()
        assert done.status == 0
        assert f"{kept} of {count} rows done already\n" in done.err
        assert len(bench.answers()) == count
        in_hand = 2 * (16 + 16 // 4 + 16)  # which workers still ask where nobody could tell them to end
        assert sum(asked(up).values()) <= count + (in_hand if status < 0 else 2 * 16 + 8)


def ending(sent: signal.Signals, program: subprocess.Popen[str]) -> None:
    family = below(program.pid)
    if sent is signal.SIGKILL:  # two small processes of Ray's own look every minute or so whether it is there
        family = [pid for pid in family if "Agent" not in command_of(pid)]
    if sent is signal.SIGINT:
        os.killpg(program.pid, sent)  # as a terminal does
    else:
        program.send_signal(sent)
    program.wait(60)
    assert ended(family)


def test_a_cluster_that_is_joined_is_left_as_it_was(bench: Bench, served: Served, cluster: Cluster) -> None:
    bench.write(*(row(f"r{number}", f"Question {number}") for number in range(300)))
    with served() as up:
        bench.configure(up.base_url)
        done = bench("--engine", "ray", "--ordered", variables={"RAY_ADDRESS": cluster.address, **TOKEN})
    assert done.status == 0, done.err
    assert f"ray: joined the cluster at {cluster.address}; 2 workers\n" in done.err
    assert list(bench.answers()) == [f"r{number}" for number in range(300)]
    assert until(lambda: not workers(cluster.pid), 20.0)
    assert [pid for pid in below(cluster.pid) if "raylet" in command_of(pid)]
    held = [path for path in cluster.folder.rglob("*") if path.is_file() and any_key(path.read_bytes())]
    assert not held


def any_key(content: bytes) -> bool:
    return re.search("|".join(KEYS).encode(), content) is not None


def test_without_a_store_each_worker_takes_its_part_of_the_limits(
    bench: Bench, served: Served, cluster: Cluster
) -> None:
    bench.write(*(row(f"r{number}", f"Question {number}") for number in range(60)))
    limit = {"requests_per_minute": 60}
    with served(limits=dict.fromkeys(KEYS, limit)) as up:
        bench.configure(up.base_url, limit=limit)
        done = bench("--engine", "ray", "--ray-address", cluster.address, variables=TOKEN)
        assert {request.status for request in up.requests} == {200}
    assert done.status == 0, done.err
    assert "each worker takes 1/2 of every limit; with `limits.store: redis` they share all of it\n" in done.err


# In a program that is part of a cluster already.
PROGRAM: Final = """
import asyncio, sys
import ray
from llm.batch.ray import RayCluster, run_ray

ray.init(sys.argv[1], log_to_driver=False)
summary = asyncio.run(run_ray(RayCluster(), "llm.yaml", "in.jsonl", "out.jsonl", workers=1))
print(summary.answered, ray.is_initialized())
"""


def test_a_program_that_is_part_of_a_cluster_uses_that_and_stays(
    bench: Bench, served: Served, cluster: Cluster
) -> None:
    bench.write(*(row(f"r{number}", f"Question {number}") for number in range(10)))
    environ = {**bench.environ, "FIRST": KEYS[0], **TOKEN}
    with served() as up:
        bench.configure(up.base_url)
        command = [sys.executable, "-c", PROGRAM, cluster.address]
        done = subprocess.run(  # noqa: S603 - our own program
            command, cwd=bench.folder, env=environ, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    assert done.stdout == "10 True\n", done.stderr
    assert len(bench.answers()) == 10


def test_an_address_without_a_cluster_is_an_error(bench: Bench) -> None:
    bench.write(row("r1", "Hi"))
    bench.configure("http://127.0.0.1:9/v1")
    done = bench("--engine", "ray", "--ray-address", "127.0.0.1:9")
    assert done.status == 3
    assert "there is no cluster of Ray at 127.0.0.1:9" in done.err
