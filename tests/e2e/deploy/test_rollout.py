"""The configuration that is deployed, and what surrounds it: Redis with its password, Prometheus, a rolling restart.

Pods are programs here, and the service is what it is in Kubernetes: connections go to whichever pod is ready.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from openai import AsyncOpenAI
from tests.patience import until

from llm.utils.clock import SystemClock
from llm.utils.gateway_key import new_key

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

CLOCK = SystemClock()
LISTENS = re.compile(rb"listening on http://127\.0\.0\.1:(\d+);")
MODEL = "gpt-4o-mini"


@dataclass
class Deployed:
    """The folder of a configuration, and what it needs.

    Attributes:
        config: The file.
        secrets: By name.
        up: The vendor.
    """

    config: Path
    secrets: dict[str, str] = field(repr=False)
    up: Any


@pytest.fixture(scope="module")
def deployed(
    root: Path, tmp_path_factory: pytest.TempPathFactory, redis_server: Callable[..., Any], vendor: Callable[..., Any]
) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("deployed")
    secrets = {name: new_key() for name in ("admin_key", "metrics_key")}
    secrets |= {"openai_api_key": "sk-of-the-vendor", "redis_password": "f00d" * 12}
    for name, secret in secrets.items():
        (folder / name).write_text(secret + "\n", encoding="utf-8")
    with redis_server() as redis, vendor(service=1.0) as up:
        redis.command("CONFIG", "SET", "requirepass", secrets["redis_password"])
        text = (root / "deploy" / "config" / "llm.yaml").read_text(encoding="utf-8")
        text = text.replace("/run/secrets", str(folder)).replace("@redis:6379", f"@127.0.0.1:{redis.port}")
        (folder / "llm.yaml").write_text(text, encoding="utf-8")
        yield Deployed(folder / "llm.yaml", secrets, up)


class Pod:
    """One that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.port = 0
        self.log = b""

    async def listening(self) -> None:
        assert self.process.stderr is not None
        while (found := LISTENS.search(self.log)) is None:
            line = await self.process.stderr.readline()
            assert line, self.log
            self.log += line
        self.port = int(found[1])

    async def ready(self) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"http://127.0.0.1:{self.port}/readyz") as answer:
                    if answer.status == 200:
                        return

    async def rest(self) -> None:
        assert self.process.stderr is not None
        self.log += await self.process.stderr.read()


@asynccontextmanager
async def pod(deployed: Deployed, root: Path) -> AsyncGenerator[Pod]:
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(root / "src"),
        "HOME": str(deployed.config.parent),
        "LLM_CONFIG": str(deployed.config),
        "LLM__PROVIDERS__OPENAI__BASE_URL": deployed.up.base_url,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llm", "serve", "--port", "0"),
        cwd=deployed.config.parent,
        env=environ,
        stderr=asyncio.subprocess.PIPE,
    )
    started = Pod(process)
    try:
        await started.listening()
        await started.ready()
        yield started
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Service:
    """Hands each connection to one of the pods that are ready, in turn, and knows nothing of requests."""

    def __init__(self) -> None:
        self.pods: list[Pod] = []
        self._turn = count()
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        chosen = self.pods[next(self._turn) % len(self.pods)]
        try:
            from_pod, to_pod = await asyncio.open_connection("127.0.0.1", chosen.port)
        except OSError:
            writer.transport.abort()
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_carry(reader, to_pod))
            tasks.create_task(_carry(from_pod, writer))


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def serving() -> AsyncGenerator[Service]:
    service = Service()
    server = await asyncio.start_server(service.handle, "127.0.0.1", 0)
    service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield service
    finally:
        server.close()


class Traffic:
    """Calls that go on and on, over connections that are kept."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key
        self.going_on = True
        self.answers: list[str] = []
        self.failures: list[str] = []

    async def by_the_vendors_client(self, name: str) -> None:
        async with AsyncOpenAI(api_key=self.key, base_url=f"{self.url}/v1") as client:
            for n in count():
                if not self.going_on:
                    return
                messages: Any = [{"role": "user", "content": f"{name} {n}"}]
                try:
                    if n % 2:
                        stream = await client.chat.completions.create(model=MODEL, messages=messages, stream=True)
                        text = "".join(
                            [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
                        )
                    else:
                        answer = await client.chat.completions.create(model=MODEL, messages=messages)
                        text = answer.choices[0].message.content or ""
                except Exception as error:  # noqa: BLE001 - a call that is lost, however
                    self.failures.append(f"{name}: {error!r}")
                else:
                    self.answers.append(text)

    async def by_hand(self, name: str, *, pause: float | None = None) -> None:
        """Ask on and on; with a pause between, always the same: the cache answers, and mostly the connection rests."""
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {self.key}"}) as session:
            for n in count():
                if not self.going_on:
                    return
                await CLOCK.sleep(pause or 0.0)
                text = f"{name} {n}" if pause is None else "again"
                body = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
                try:
                    async with session.post(f"{self.url}/v1/chat/completions", json=body) as answer:
                        text = await answer.text()
                        (self.answers if answer.status == 200 else self.failures).append(f"{name}: {text}")
                except aiohttp.ClientError as error:
                    self.failures.append(f"{name}: {error!r}")


async def check_metrics_key(deployed: Deployed, pod: Pod) -> None:
    """It reads metrics, and asks no model."""
    key = {"Authorization": f"Bearer {deployed.secrets['metrics_key']}"}
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{pod.port}") as session:
        async with session.get("/v1/metrics", headers=key) as answer:
            assert answer.status == 200
            assert "llm_limit_store_lost 0.0" in await answer.text()
        async with session.post("/v1/chat/completions", json=body, headers=key) as answer:
            assert answer.status == 403
            assert "it may use none" in await answer.text()
        async with session.get("/v1/metrics") as answer:
            assert answer.status == 401


async def test_a_rolling_restart_loses_no_call_and_prometheus_has_its_key(deployed: Deployed, root: Path) -> None:
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(serving())
        old = await stack.enter_async_context(pod(deployed, root))
        service.pods = [old]
        traffic = Traffic(service.url, deployed.secrets["admin_key"])
        async with asyncio.TaskGroup() as tasks:
            for n in range(4):
                tasks.create_task(traffic.by_the_vendors_client(f"client {n}"))
                tasks.create_task(traffic.by_hand(f"by hand {n}"))
                tasks.create_task(traffic.by_hand(f"with pauses {n}", pause=0.05))
            new = await stack.enter_async_context(pod(deployed, root))
            service.pods = [old, new]
            await CLOCK.sleep(0.3)
            service.pods = [new]  # from here on it terminates: nobody is sent to it any more
            old.process.send_signal(signal.SIGUSR1)  # preStop
            await CLOCK.sleep(2.0)
            old.process.send_signal(signal.SIGTERM)
            assert await old.process.wait() == 143
            await CLOCK.sleep(0.5)
            await until(lambda: len(traffic.answers) > 20)
            traffic.going_on = False
        await check_metrics_key(deployed, new)
    assert traffic.failures == []
