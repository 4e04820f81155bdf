"""What is built is what was checked: the wheel, what it declares, and the targets that the README shows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from typing import cast

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Import names that are not their distribution's.
DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "strawberry": "strawberry-graphql",
    "graphql": "graphql-core",
    "opentelemetry": "opentelemetry-api",
    "pydantic_core": "pydantic",
}
# Where a package of an extra may be imported; everywhere else only the core dependencies are sure to be there.
EXTRAS = {
    "providers/local/": "local",
    "providers/sdk/frames": "bedrock",
    "cache/redis": "redis",
    "limits/redis": "redis",
    "gateway/": "gateway",
    "middleware/tracing": "otel",
    "telemetry/prometheus": "prometheus",
    "batch/ray": "ray",
    "batch/parquet": "parquet",
}
BY_THE_CALLER = {"testing/plugin.py": {"pytest"}}  # pytest itself loads that module


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """An environment with nothing in it, not even pip."""
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    return tmp_path / "env"


def install(environment: Path, *what: str | Path) -> None:
    run(sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "install", "-q", "--no-compile", *what)


def check(environment: Path) -> None:
    where = run(environment / "bin" / "python", "-I", "-W", "error", "-c", "import llm; print(llm.__file__)")
    assert where.startswith(str(environment))
    assert "Usage" in run(environment / "bin" / "manifold", "--help")


def test_the_wheel_works_away_from_the_checkout(wheel: Path, empty: Path) -> None:
    """Its dependencies are lent from the environment of the tests, so that no network is needed."""
    install(empty, "--no-deps", wheel)
    [packages] = empty.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    check(empty)


@pytest.mark.soak
def test_the_wheel_brings_all_it_needs_into_an_empty_environment(wheel: Path, empty: Path) -> None:
    install(empty, "--constraint", ROOT / "constraints.txt", wheel)
    check(empty)


def test_the_wheel_holds_the_package_and_its_data(wheel: Path) -> None:
    names = run(sys.executable, "-m", "zipfile", "--list", wheel)
    assert "llm/py.typed" in names
    for path in (ROOT / "src" / "llm").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert str(path.relative_to(ROOT / "src")) in names
    assert "tests/" not in names


def declared(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(requirement).name) for requirement in requirements}


def third_party(path: Path) -> set[str]:
    """Distributions that a module imports, whether on top or where it first needs them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    outside = found - sys.stdlib_module_names - {"llm"}
    return {canonicalize_name(DISTRIBUTIONS.get(name, name)) for name in outside}


MODULES = sorted(path.relative_to(ROOT / "src" / "llm").as_posix() for path in (ROOT / "src" / "llm").rglob("*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_what_is_imported_is_declared(module: str) -> None:
    allowed = declared(PROJECT["dependencies"]) | BY_THE_CALLER.get(module, set())
    for place, extra in EXTRAS.items():
        if module.startswith(place):
            allowed |= declared(PROJECT["optional-dependencies"][extra])
    assert third_party(ROOT / "src" / "llm" / module) <= allowed


def test_the_extra_all_is_all_of_them() -> None:
    extras = dict(PROJECT["optional-dependencies"])
    [everything] = extras.pop("all")
    assert Requirement(everything).extras == set(extras)


def test_what_is_tested_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line[0] != "#"]
    versions = {canonicalize_name(pin.name): str(pin.specifier) for pin in pins}
    assert all(version.startswith("==") and "+" not in version for version in versions.values())
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["local"]]
    for requirement in map(Requirement, wanted):
        version = versions[canonicalize_name(requirement.name)].removeprefix("==")
        assert requirement.specifier.contains(version), f"{requirement} refuses the pinned {version}"


def fences(languages: str) -> list[str]:
    text = README.read_text(encoding="utf-8")
    return re.findall(rf"^```(?:{languages})\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


SHELL = "".join(fences("sh|bash|shell|console"))
COMMANDS = sorted(set(re.findall(r"^(?:\$ )?((?:make|manifold|python -m llm) [a-z-]+)", SHELL, re.MULTILINE)))


def test_the_readme_shows_the_two_commands() -> None:
    assert {"make run", "make test"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_exists(command: str) -> None:
    program, *_, last = command.split()
    if program == "make":
        run("make", last, "--dry-run")
    else:
        run(sys.executable, "-m", "llm", last, "--help")


@pytest.mark.xdist_group("together")
def test_tests_of_a_group_stay_together(request: pytest.FixtureRequest) -> None:
    """Some releases of pytest and pytest-xdist spread them without a word: models and servers start in each worker."""
    if getattr(request.config.option, "loadgroup", False):  # in a worker of `make test`
        item = cast("pytest.Item", request.node)  # pyright: ignore[reportUnknownMemberType] # bare in pytest 9.1
        assert item.nodeid.endswith("@together")


def test_plain_make_lists_the_targets() -> None:
    listed = set(re.findall(r"^([a-z-]+) +\S", run("make"), re.MULTILINE))
    checks, benchmarks = (
        {"test", "test-all", "test-long", "check"},
        {"bench", "bench-limits", "bench-waiters", "bench-batch", "bench-gateway", "bench-local"}
        | {"simulate-scale", "docs", "docs-serve", "picture", "picture-page", "chaos", "soak"},
    )
    assert listed == {"help", "run", "format", "clean"} | checks | benchmarks
    for target in listed:
        run("make", target, "--dry-run")
