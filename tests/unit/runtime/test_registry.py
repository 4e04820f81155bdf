"""Kinds of provider: the package's, registered ones, those of other distributions."""

# ruff: noqa: ANN401 - options as they come, and doubles of more than one kind

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMConfigurationError, LLMManager, register_provider
from llm.core import kinds
from llm.runtime.registry import provider_factory
from llm.testing import FakeClock, FakeProvider

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def distribution(folder: Path, entry: str, code: str, *, module: str) -> None:
    """Lay a small distribution into a folder, as an installer does."""
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[llm.providers]\n{entry}\n", encoding="utf-8")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])

    def put(entry: str, code: str, module: str) -> None:
        distribution(tmp_path, entry, code, module=module)

    return put


async def ask(kind: str) -> str:
    async with LLMManager.open({"providers": {"mine": {"type": kind, "models": ["m"]}}}, clock=FakeClock()) as manager:
        return str(await manager.get_client().chat("hello"))


async def test_a_registered_provider_serves_under_its_type_and_the_last_registration_counts() -> None:
    register_provider("life-kind", lambda _: FakeProvider("first"))
    register_provider("life-kind", lambda _: FakeProvider("second"))
    assert await ask("life-kind") == "second"


async def test_a_factory_gets_the_section_it_stands_for() -> None:
    given: list[Any] = []

    def factory(settings: Any) -> FakeProvider:
        given.append(settings)
        return FakeProvider()

    register_provider("life-settings", factory)
    section = {"api_keys": ["sk-a", "sk-b"], "models": ["m", "n"], "base_url": "http://127.0.0.1:9/v1"}
    async with LLMManager.open({"providers": {"life-settings": section}}, clock=FakeClock()):
        pass
    assert [settings.key.reveal() for settings in given] == ["sk-a", "sk-b"]
    assert given[0].models == ("m", "n")
    assert given[0].api == "chat_completions"
    assert given[0].base_url == "http://127.0.0.1:9/v1"
    assert "sk-a" not in repr(given)


@pytest.mark.parametrize(("name", "factory"), [("", FakeProvider), ("x", None), ("x", "module:factory")])
def test_a_registration_that_could_never_work_is_refused(name: str, factory: Any) -> None:
    with pytest.raises(LLMConfigurationError, match="register_provider needs"):
        register_provider(name, factory)


@pytest.mark.parametrize("made", [None, object()])
async def test_a_factory_that_makes_no_provider_is_told_what_is_missing(made: object) -> None:
    given: Any = made
    register_provider("life-none", lambda _: given)
    with pytest.raises(LLMConfigurationError, match="lacks initialize, complete, stream, health_check, close"):
        await ask("life-none")


async def test_a_factory_that_fails_is_told_by_its_section_with_its_cause() -> None:
    class Bare:  # takes no settings
        pass

    bare: Any = Bare
    register_provider("life-bare", bare)
    with pytest.raises(LLMConfigurationError, match=r"raised TypeError .* called with a ProviderSettings") as told:
        await ask("life-bare")
    assert isinstance(told.value.__cause__, TypeError)


async def test_an_unknown_kind_is_told_the_choices() -> None:
    register_provider("life-known", lambda _: FakeProvider())
    with pytest.raises(LLMConfigurationError) as failure:
        await ask("life-unknown")
    for name in (*kinds.ALL, "life-known", "register_provider"):
        assert name in str(failure.value)


@pytest.mark.parametrize("name", kinds.ALL)
def test_the_packages_own_kinds_are_found(name: str) -> None:
    assert callable(provider_factory(name))


async def test_another_distribution_offers_a_kind_by_the_entry_point(install: Callable[[str, str, str], None]) -> None:
    code = "from llm.testing import FakeProvider\n\ndef make(of):\n    return FakeProvider('from ' + of.name)\n"
    install("life-plug = life_plugin:make", code, "life_plugin")
    assert await ask("life-plug") == "from mine"
    sys.modules.pop("life_plugin")


@pytest.mark.parametrize(
    ("entry", "code", "told"),
    [
        ("life-bad = life_absent:make", "", "life_absent"),
        ("life-bad = life_bad:make", "1 / 0", "ZeroDivisionError"),
        ("life-bad = life_bad:make", "other = 1", "make"),
        ("life-bad = life_bad:make", "make = 5", "is no function"),
    ],
)
async def test_an_entry_point_that_cannot_be_used_is_told_by_name_and_cause(
    install: Callable[[str, str, str], None], entry: str, code: str, told: str
) -> None:
    install(entry, code, "life_bad")
    with pytest.raises(LLMConfigurationError) as failure:
        await ask("life-bad")
    assert "life-bad" in str(failure.value)
    assert told in str(failure.value)
    sys.modules.pop("life_bad", None)
