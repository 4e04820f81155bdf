"""A model in memory that makes vectors of texts and answers none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from tokenizers import normalizers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTextEncoding,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES as ENCODERS

from llm.core.exceptions import LLMConfigurationError, LLMContextLengthError, LLMInvalidRequestError

from .layout import Dense, Layout
from .memory import weight_bytes
from .model import UNREADABLE, choose_device, choose_type, damaged, quiet
from .packing import computes_in
from .pooling import pool
from .request import Conversation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .request import Prompt

_EPSILON = 1e-12  # the least length that a vector is divided by
_HEADS = ("pooler", "lm_head", "cls", "classifier")  # parts of a network that no state depends on


class Projection(nn.Module):
    """A `Dense` of the layout."""

    def __init__(self, step: Dense) -> None:
        """Make it with weights of chance; `load` reads those that it has."""
        super().__init__()
        self.linear: nn.Linear = nn.Linear(step.inputs, step.outputs, bias=step.bias)
        self.activation: nn.Module = getattr(nn, step.activation)()
        self.residual: nn.Module | None = None
        if step.residual:
            same = step.inputs == step.outputs
            self.residual = nn.Identity() if same else nn.Linear(step.inputs, step.outputs, bias=False)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the vectors after it, shape `(texts, outputs)`."""
        made: torch.Tensor = self.activation(self.linear(vectors))
        return made if self.residual is None else made + self.residual(vectors)


class Unit(nn.Module):
    """A `Normalize` of the layout."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the vectors with length one."""
        return nn.functional.normalize(vectors, dim=-1, eps=_EPSILON)


@dataclass(eq=False)
class LoadedEncoder:
    """One encoder in memory, used by one thread.

    Attributes:
        name: What it is asked for by.
        network: The network.
        tokenizer: Its tokenizer.
        layout: How its states become a vector.
        steps: The modules for the layout's steps.
        limit: Most tokens of a text.
        passes: Times the network ran since it was loaded.
    """

    name: str
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layout: Layout
    steps: list[nn.Module]
    limit: int
    passes: int = 0

    @property
    def bytes(self) -> int:
        """Size of its weights."""
        return weight_bytes(self.network) + sum(map(weight_bytes, self.steps))

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the tokens of a text, those that begin and end it included; of a conversation, of each of its texts.

        Raises:
            LLMInvalidRequestError: There are none.
        """
        if not isinstance(prompt, str):
            messages = prompt.messages if isinstance(prompt, Conversation) else prompt
            return [token for message in messages for token in self.encode(str(message["content"]))]
        tokens = self.tokenizer.encode(self.layout.prompt + prompt)
        if not tokens:
            raise LLMInvalidRequestError("the text is empty; pass one of one character or more", model=self.name)
        return tokens

    def check_fits(self, tokens: int) -> None:
        """Refuse a text that would have to be cut.

        Raises:
            LLMContextLengthError: It has more tokens than the model reads.
        """
        if tokens > self.limit:
            raise LLMContextLengthError(
                f"the text has {tokens} tokens and {self.name} reads {self.limit}; shorten it, or have vectors of its "
                "parts",
                limit=self.limit,
                requested=tokens,
                model=self.name,
            )

    def vectors(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the vectors of texts, read in one pass; shape `(texts, dimensions)`, float32, on the CPU."""
        device, lengths = self.network.device, [len(tokens) for tokens in texts]
        longest, filler = max(lengths), self.tokenizer.pad_token_id or 0
        ids = [[*tokens, *[filler] * (longest - len(tokens))] for tokens in texts]
        mask = [[1] * length + [0] * (longest - length) for length in lengths]
        with torch.inference_mode():
            states = self.network(
                input_ids=torch.tensor(ids, device=device), attention_mask=torch.tensor(mask, device=device)
            ).last_hidden_state
            self.passes += 1
            vectors = pool(states.float(), lengths, self.layout.modes)
            for step in self.steps:
                vectors = step(vectors)
            return vectors.to("cpu")


def load_encoder(name: str, layout: Layout, *, device: str, dtype: str) -> LoadedEncoder:
    """Load an encoder for a device and with a float type; `auto` is as for a model that answers.

    Raises:
        LLMConfigurationError: No such device or type here, files that do not load, or weights that are missing.
    """
    target, folder = choose_device(device), str(layout.encoder)
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            kind = AutoModelForTextEncoding if config.model_type in ENCODERS else AutoModel
            network, told = kind.from_pretrained(
                folder, dtype=choose_type(dtype), local_files_only=True, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        if dtype == "auto" and target == "cpu" and not computes_in(network.dtype):
            network = network.float()
        steps = [_module(step).to(target).eval() for step in layout.steps]
    except UNREADABLE as error:
        raise damaged(name, layout.encoder, error) from error
    network.config.use_cache = False
    missing = sorted(key for key in told["missing_keys"] if key.partition(".")[0] not in _HEADS)
    if missing:
        raise LLMConfigurationError(
            f"the weights in {layout.encoder} lack {missing[0]} (of {len(missing)}); copy the model again", model=name
        )
    _check_lengths(name, network.config.get_text_config().hidden_size, layout)
    limit = min(layout.most_tokens or tokenizer.model_max_length, _places(network))
    tokenizer.model_max_length = 2**31  # we check the length ourselves; it would only log
    if layout.lowercase:
        _lowercase(tokenizer)
    return LoadedEncoder(name, network.to(target).eval(), tokenizer, layout, steps, limit)


def _module(step: object) -> nn.Module:
    if not isinstance(step, Dense):
        return Unit()
    projection = Projection(step)
    weights = load_file(step.folder / "model.safetensors")
    projection.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return projection


def _check_lengths(name: str, states: int, layout: Layout) -> None:
    if layout.states not in (None, states):
        raise LLMConfigurationError(
            f"the pooling of {name} is for states of {layout.states} numbers, and the network's have {states}; copy "
            "the model again",
            model=name,
        )
    length = states * len(layout.modes)
    for step in layout.steps:
        if isinstance(step, Dense):
            if step.inputs != length:
                raise LLMConfigurationError(
                    f"{step.folder} takes vectors of {step.inputs} numbers and gets {length}; copy the model again",
                    model=name,
                )
            length = step.outputs


def _places(network: PreTrainedModel) -> int:
    """Return how many tokens the network has places for; networks like RoBERTa's begin to count after the padding's."""
    for module in network.modules():
        places = getattr(module, "position_embeddings", None)
        if isinstance(places, nn.Embedding):
            first = 0 if places.padding_idx is None else places.padding_idx + 1
            return places.num_embeddings - first
    stated = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    return stated if isinstance(stated, int) and stated > 0 else 2**31


def _lowercase(tokenizer: PreTrainedTokenizerBase) -> None:
    before = tokenizer.backend_tokenizer.normalizer
    steps = [normalizers.Lowercase(), *([] if before is None else [before])]
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(steps)
