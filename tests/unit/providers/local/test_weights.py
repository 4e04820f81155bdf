from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm.core.exceptions import LLMConfigurationError
from llm.providers.local import InferenceEngine
from llm.providers.local.store import models_directory
from llm.providers.local.weights import find_weights


def test_a_bundled_model_that_is_not_there_names_the_command_that_fetches_it(tmp_path: Path) -> None:
    with pytest.raises(LLMConfigurationError, match="run `manifold models fetch smollm2-135m`") as caught:
        find_weights("smollm2-135m", directory=tmp_path)
    assert caught.value.model == "smollm2-135m"


def test_a_name_that_is_nothing_on_this_machine_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    for name in ("nobody/nothing", "not a name at all", "/no/such/file.gguf"):
        with pytest.raises(
            LLMConfigurationError, match=r"expected smollm2-135m, all-minilm-l6-v2, a folder .*GGUF file, or a hub id"
        ):
            find_weights(name, directory=tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LLMConfigurationError, match=r"holds no model: it has no config\.json"):
        find_weights(str(tmp_path))


async def test_a_gguf_file_is_converted_once_and_kept_by_its_content(tiny_gguf: Path, tmp_path: Path) -> None:
    engine = InferenceEngine(models_directory=tmp_path, device="cpu")
    await engine.load_model(str(tiny_gguf))
    result = await engine.generate("hello", max_tokens=3, temperature=0)
    assert result.input_tokens == 4  # "he" is one token, by the file's only merge
    assert result.output_tokens == 3
    await engine.close()
    seen: list[str] = []
    await asyncio.to_thread(
        find_weights, str(tiny_gguf), directory=tmp_path, progress=lambda step, _: seen.append(step)
    )
    assert not seen


def test_a_file_that_is_no_gguf_is_refused_at_once(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"not a model")
    with pytest.raises(LLMConfigurationError, match=r"wrong\.gguf is no GGUF file"):
        find_weights(str(wrong), directory=tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_gguf_file_that_was_cut_is_refused_and_leaves_nothing(tiny_gguf: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_gguf.read_bytes()[:99])
    with pytest.raises(LLMConfigurationError, match=r"cut\.gguf could not be converted"):
        find_weights(str(cut), directory=tmp_path / "models")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".lock"]


def test_a_hub_id_is_found_in_the_cache_on_this_disk_without_a_network(tmp_path: Path, model_folder: Path) -> None:
    repository = tmp_path / "models--someone--small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / "abc").symlink_to(model_folder, target_is_directory=True)
    code = "from llm.providers.local.weights import find_weights; print(find_weights('someone/small'))"
    found = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": "src", "HF_HUB_CACHE": str(tmp_path)},
        check=True,
        capture_output=True,
        encoding="utf-8",
    )
    assert Path(found.stdout.strip()) == repository / "snapshots" / "abc"


def test_the_models_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLM_MODELS_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert models_directory() == Path.home() / ".cache" / "llm-manifold" / "models"
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert models_directory() == Path("/var/cache/me/llm-manifold/models")
    monkeypatch.setenv("LLM_MODELS_DIR", "/srv/models")
    assert models_directory() == Path("/srv/models")
