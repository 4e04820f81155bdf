"""The image: what its Dockerfile does is done, its steps' own commands, in folders that stand for the image's."""

# ruff: noqa: ANN401 - doubles whose kind a test knows

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fnmatch import fnmatch
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llm.core.config import load_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Until = Callable[[Callable[[], object]], None]

FOLDERS = ("/src", "/wheels", "/opt", "/data", "/root/.cache/pip")
LISTENS = re.compile(r"listening on http://127\.0\.0\.1:(\d+);")
KEY = re.compile(r"sk-manifold-\w{49}")
# As root without any of its rights, where the tests are run by root.
UNPRIVILEGED = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
LENT = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1"}  # dependencies are lent from the environment of the tests


@dataclass
class Image:
    """An image's folders, below one of ours."""

    folder: Path
    stages: dict[str, Any]

    def inside(self, text: str) -> str:
        """Return a text of the Dockerfile with its folders below ours."""
        return re.sub(rf"(?<![\w./-])({'|'.join(FOLDERS)})(?=[/\s:\"*]|$)", rf"{self.folder}\1", text)

    def variables(self, stage: str) -> dict[str, str]:
        """Return what a stage sets: arguments and environment."""
        set_: dict[str, str] = {}
        for text in [*self.stages[stage].all("ARG"), *self.stages[stage].all("ENV")]:
            set_ |= dict(word.split("=", 1) for word in shlex.split(self.inside(text)))
        return set_

    def build(self, stage: str, context: Path, **variables: str) -> None:
        """Do what a stage says."""
        cwd = self.folder
        for word, text in self.stages[stage].steps:
            if word == "WORKDIR":
                cwd = Path(self.inside(text))
                cwd.mkdir(parents=True)
            elif word == "COPY":
                *sources, _ = text.split()
                for source in sources:
                    copy = shutil.copytree if (context / source).is_dir() else shutil.copy
                    copy(context / source, cwd / Path(source).name)
            elif word == "RUN":
                command = self.inside(re.sub(r"--mount=\S+\s+", "", text))
                environ = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
                environ |= self.variables(stage) | variables
                done = subprocess.run(["sh", "-ec", command], cwd=cwd, env=environ, capture_output=True, check=False)  # noqa: S603, S607 - what the file says
                assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


@pytest.fixture(scope="module")
def image(root: Path, stages: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The default image, built."""
    image = Image(tmp_path_factory.mktemp("image"), stages)
    image.build("build", root, **LENT)
    [packages] = image.folder.glob("opt/manifold/lib/python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    shutil.copy(root / "deploy" / "healthcheck.py", image.folder / "opt")
    return image


class Container:
    """One that runs: the image's command, in its environment, with a volume."""

    def __init__(self, image: Image, volume: Path, **variables: str) -> None:
        """Start it on a free port of its own."""
        [entry], [command] = (image.stages["runtime"].all(word) for word in ("ENTRYPOINT", "CMD"))
        environ = image.variables("runtime")
        path = environ["PATH"].replace("$PATH", os.environ["PATH"])
        self.image = image
        self.environ = environ | {"PATH": path, "HOME": str(volume), "PORT": "0"} | variables
        self._log = volume.parent / f"{volume.name}-{len(list(volume.parent.iterdir()))}.log"
        words = [*json.loads(entry), *json.loads(command)]
        words[0] = str(image.folder / "opt" / "manifold" / "bin" / words[0])
        if not os.getuid() and shutil.which(UNPRIVILEGED[0]):
            words = [*UNPRIVILEGED, *words]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(words, cwd=volume, env=self.environ, stdout=log, stderr=log)  # noqa: S603 - what the file says

    @property
    def said(self) -> str:
        """Its log."""
        return self._log.read_text(encoding="utf-8")

    @property
    def port(self) -> int:
        """Where it listens; 0 as long as it does not."""
        assert self.process.poll() is None, self.said
        found = LISTENS.search(self.said)
        return int(found[1]) if found else 0

    def ask(self, key: str, path: str = "/v1/models") -> int:
        """Return the status of an answer."""
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
            return connection.getresponse().status

    def healthy(self) -> bool:
        """Run the image's health check."""
        [check] = self.image.stages["runtime"].all("HEALTHCHECK")
        words = json.loads(check[check.index("[") :])
        environ = self.environ | {"PORT": str(self.port)}
        command = [self.image.inside(word) for word in words]
        done = subprocess.run(command, env=environ, capture_output=True, check=False)  # noqa: S603 - what the file says
        assert done.returncode == bool(done.stderr)
        return done.returncode == 0

    def end(self) -> int:
        """Send the image's signal; return the exit status."""
        [name] = self.image.stages["runtime"].all("STOPSIGNAL")
        self.process.send_signal(signal.Signals[name])
        return self.process.wait(20)


@pytest.fixture
def start(image: Image, tmp_path: Path) -> Iterator[Callable[..., Container]]:
    """Starts containers on one volume, new at first."""
    volume = tmp_path / "volume"
    volume.mkdir(mode=0o700)
    with ExitStack() as stack:

        def run(**variables: str) -> Container:
            container = Container(image, volume, **variables)
            stack.callback(container.process.wait)
            stack.callback(container.process.kill)
            return container

        yield run


def test_of_containers_that_start_at_once_on_a_new_volume_one_prints_a_key_and_no_later_one_does(
    start: Callable[..., Container], forking: Callable[..., Any], tmp_path: Path, vendor: Any, until: Until
) -> None:
    def end(pid: int) -> None:
        log = tmp_path / "volume" / ".stderr"
        until(lambda: LISTENS.search(log.read_text(encoding="utf-8")))
        os.kill(pid, signal.SIGTERM)

    with vendor(service=0.5) as up:
        variables = {"OPENAI_API_KEY": "k1", "OPENAI_BASE_URL": up.base_url}
        both = [start(**variables) for _ in range(2)]
        until(lambda: all(container.port for container in both))
        printed = [line for container in both for line in container.said.splitlines() if KEY.fullmatch(line)]
        assert len(printed) == 1
        [key] = printed
        for container in both:
            assert container.healthy()
            assert (container.ask(key), container.ask("no key")) == (200, 401)
        files = [path for path in (tmp_path / "volume").rglob("*") if path.is_file()]
        assert list(load_config(tmp_path / "volume" / "llm.yaml").gateway.api_keys) == ["admin"]
        assert not any(key in path.read_text(encoding="utf-8", errors="replace") for path in files)

        first, second = both
        with closing(HTTPConnection("127.0.0.1", first.port, timeout=10)) as connection:
            body = json.dumps({"messages": [{"role": "user", "content": "Hello"}]})
            connection.request("POST", "/v1/chat/completions", body, {"x-api-key": key})
            until(lambda: up.active)
            first.process.send_signal(signal.SIGTERM)
            assert connection.getresponse().status == 200  # what runs may end
        assert (first.process.wait(20), second.end()) == (143, 143)

        [command] = first.image.stages["runtime"].all("CMD")
        again = forking(
            tmp_path / "volume",
            *json.loads(command),
            variables=variables | {"HOST": "0.0.0.0", "PORT": "0"},  # noqa: S104 - as in the image
            during=end,
        )
    assert (again.status, again.out) == (143, "")
    assert not KEY.search(again.err)


def test_a_container_that_does_not_answer_is_not_healthy(image: Image, root: Path) -> None:
    command = [sys.executable, "-I", str(root / "deploy" / "healthcheck.py")]
    for host, why in (("0.0.0.0", "refused"), ("::", "refused|assign"), ("127.0.0.2", "refused")):  # noqa: S104 - asked for
        environ = image.variables("runtime") | {"HOST": host, "PORT": "9", "PATH": os.environ["PATH"]}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)  # noqa: S603 - our own
        assert done.returncode == 1
        assert re.search(why, done.stderr)


def test_both_sizes_run_the_same_way_and_the_small_one_is_the_default(stages: dict[str, Any]) -> None:
    assert list(stages)[-1] == "gateway"
    assert (stages["gateway"].base, stages["local"].base) == ("runtime", "runtime")
    assert stages["gateway"].steps == [("COPY", "--from=build /opt/manifold /opt/manifold")]
    assert stages["local"].steps == [("COPY", "--from=build-local /opt/manifold /opt/manifold")]
    assert "torch" not in str(stages["build"].steps)


def test_nothing_in_it_runs_as_root_and_only_the_volume_is_written_to(stages: dict[str, Any]) -> None:
    runtime = stages["runtime"]
    [user] = runtime.all("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)  # numbers: Kubernetes cannot tell a name from root
    assert runtime.all("VOLUME") == runtime.all("WORKDIR") == ["/data"]
    [made] = runtime.all("RUN")
    assert f"--uid {user.partition(':')[0]} " in made
    assert "--mode 0700 /data" in made


def test_every_package_has_its_version_from_the_constraints(stages: dict[str, Any]) -> None:
    for name in ("build", "build-local"):
        for command in stages[name].all("RUN"):
            for part in re.split(r"&&", command):
                assert (" install " not in part) or ("--constraint constraints.txt" in part), part


def test_the_context_is_what_is_copied_and_nothing_else(root: Path, stages: dict[str, Any]) -> None:
    lines = (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*"
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source
        for stage in stages.values()
        for text in stage.all("COPY")
        if not text.startswith("--from=")
        for source in text.split()[:-1]
    }
    assert copied == let_in
    assert all((root / source).exists() for source in copied)
    assert any(fnmatch("src/llm/__pycache__", line.replace("**", "*")) for line in lines)


def test_the_health_check_needs_nothing_but_python(root: Path) -> None:
    tree = ast.parse((root / "deploy" / "healthcheck.py").read_text(encoding="utf-8"))
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    found |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert {str(name).partition(".")[0] for name in found} <= set(sys.stdlib_module_names)
