"""Where the configuration comes from: the first that exists of argument, `$LLM_CONFIG`, two files, the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENROUTER_API_KEY")


def write(path: Path, provider: str) -> Path:
    """Write a configuration that is told by its only provider's name."""
    path.parent.mkdir(exist_ok=True)
    section = "{type: openai, base_url: 'http://127.0.0.1:9/v1', api_keys: [k1], models: [m]}"
    path.write_text(f"providers: {{{provider}: {section}}}\n", encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (*KEYS, "LLM_CONFIG"):
        monkeypatch.delenv(name, raising=False)


async def providers(llm: ModuleType, config: object = None) -> list[str]:
    async with llm.LLMManager.open(config) as manager:
        return sorted(manager.get_status()["providers"])


@pytest.mark.parametrize("first", range(4))
async def test_the_first_that_exists_is_taken(
    llm: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, first: int
) -> None:
    argument, variable = write(tmp_path / "given.yaml", "given"), write(tmp_path / "named.yaml", "named")
    if first <= 1:
        monkeypatch.setenv("LLM_CONFIG", str(variable))
    if first <= 2:
        write(tmp_path / "config" / "llm.yaml", "folder")
    write(tmp_path / "llm.yaml", "here")
    expected = ["given", "named", "folder", "here"][first]
    assert await providers(llm, argument if first == 0 else None) == [expected]


async def test_a_path_may_be_text_too(llm: ModuleType, tmp_path: Path) -> None:
    assert await providers(llm, str(write(tmp_path / "given.yaml", "given"))) == ["given"]


@pytest.mark.parametrize("how", ["argument", "LLM_CONFIG"])
async def test_a_file_that_is_named_and_missing_is_an_error(
    llm: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    missing = tmp_path / "nowhere.yaml"
    if how == "LLM_CONFIG":
        monkeypatch.setenv("LLM_CONFIG", str(missing))
    with pytest.raises(llm.LLMConfigurationError, match=r"nowhere\.yaml"):
        await llm.LLMManager.open(missing if how == "argument" else None)


ONE_PER_KEY: list[tuple[dict[str, str], list[str]]] = [
    ({"OPENAI_API_KEY": "k1"}, ["openai"]),
    ({"ANTHROPIC_API_KEY": "k1,k2"}, ["anthropic"]),
    ({"OPENAI_API_KEY": "k1", "ANTHROPIC_API_KEY": "k2"}, ["anthropic", "openai"]),
    ({"OPENROUTER_API_KEY": "k1"}, ["openrouter"]),
    ({}, ["local"]),
    ({"OPENAI_API_KEY": ""}, ["local"]),
]


@pytest.mark.parametrize(("found", "expected"), ONE_PER_KEY, ids=[str(found) for found, _ in ONE_PER_KEY])
async def test_without_a_file_each_key_in_the_environment_is_a_provider(
    llm: ModuleType, monkeypatch: pytest.MonkeyPatch, found: dict[str, str], expected: list[str]
) -> None:
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    assert await providers(llm) == expected


async def test_a_file_without_providers_takes_them_from_the_environment(
    llm: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "llm.yaml").write_text("retry: {max_attempts: 2}\n", encoding="utf-8")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k1")
    assert await providers(llm) == ["anthropic"]


async def test_a_variable_may_hold_several_keys(llm: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a, sk-b,sk-c")
    async with llm.LLMManager.open() as manager:
        assert len(manager.get_status()["providers"]["openai"]["keys"]) == 3


async def test_the_library_reads_no_dotenv_file(llm: ModuleType, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OPENAI_API_KEY=k1\n", encoding="utf-8")
    assert await providers(llm) == ["local"]


async def test_the_bare_names_of_containers_are_not_read_by_the_library(
    llm: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PORT": "nonsense", "MAX_LENGTH": "nonsense", "MODEL_NAME": "nobody/nothing"}.items():
        monkeypatch.setenv(name, value)
    assert await providers(llm) == ["local"]
