"""A loaded model made ready for batches, and tried: its own attention replaced, its matrices packed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from llm.core.exceptions import LLMConfigurationError

from .attention import NAME
from .kv import Chunk, Rows, Shape, Shelf
from .lean import lean
from .model import quiet
from .packing import can_pack, pack

if TYPE_CHECKING:
    from .model import LoadedModel

_TRIAL = 12  # tokens that are read in both ways
_APART = {4: 1e-3, 2: 0.05}  # share of the largest logit by which the two may differ, by the bytes of a number


class _Trial:
    read = 0


def shape_of(model: LoadedModel) -> Shape:
    """Return what one token of a model takes in memory."""
    config = model.network.config.get_text_config()
    heads = config.num_attention_heads
    return Shape(
        layers=config.num_hidden_layers,
        heads=getattr(config, "num_key_value_heads", None) or heads,
        dimensions=getattr(config, "head_dim", None) or config.hidden_size // heads,
        dtype=model.network.dtype,
        device=model.network.device,
    )


def ready_for_batches(model: LoadedModel) -> Shape:
    """Replace attention and matrices, and see that the logits stay what they were.

    Raises:
        LLMConfigurationError: They do not: the model attends in a way that a shared batch does not know.
    """
    wanted = plain_logits(model)
    try:
        shape = shape_of(model)
        _replace_attention(model)
        if can_pack(model.network):
            lean(model.network)
            pack(model.network)
        got = batched_logits(model, shape)
    except LLMConfigurationError:
        raise
    except Exception as error:
        raise _unknown(model, f"{type(error).__name__}: {error}") from error
    apart = float((wanted - got).abs().max() / wanted.abs().max())
    if not apart < _APART[shape.dtype.itemsize]:
        raise _unknown(model, f"its logits differ by {apart:.0%}")
    model.passes = 0
    return shape


def _replace_attention(model: LoadedModel) -> None:
    with quiet():
        model.network.set_attn_implementation(NAME)
    if model.network.config._attn_implementation != NAME:
        raise _unknown(model, "its attention cannot be replaced")


def _trial_tokens(model: LoadedModel) -> list[int]:
    return [token % model.network.config.get_text_config().vocab_size for token in range(11, 11 + 7 * _TRIAL, 7)]


def plain_logits(model: LoadedModel) -> torch.Tensor:
    """Return the last two logits of a short text, read as the network came; shape `(2, vocabulary)`."""
    with torch.inference_mode():
        ids = torch.tensor([_trial_tokens(model)], device=model.network.device)
        return model.network(input_ids=ids, use_cache=False).logits[0, -2:].float()


def batched_logits(model: LoadedModel, shape: Shape) -> torch.Tensor:
    """Return the same as any request gets them: the prompt in two chunks, then one token from a row."""
    tokens, half, prompt = _trial_tokens(model), _TRIAL // 2, _TRIAL - 1
    shelf, trial = Shelf[_Trial](shape, _TRIAL, 1), _Trial()
    shelf.resize(1)
    shelf.enter(trial)
    row = shelf.view(trial)
    model.forward(tokens[:half], range(half), [0], [Chunk(row, shape, 0, half)])
    chunk = Chunk(row, shape, half, prompt - half)
    first = model.forward(tokens[half:prompt], range(half, prompt), [prompt - half - 1], [chunk])
    second = model.forward(tokens[prompt:], [prompt], [0], [Rows(shelf, shape, [_TRIAL])])
    return torch.cat([first, second]).float()


def _unknown(model: LoadedModel, what: str) -> LLMConfigurationError:
    kind = type(model.network).__name__
    return LLMConfigurationError(
        f"{kind} does not run in a shared batch ({what}); "
        "choose a model whose attention is plain, such as Llama or Qwen",
        model=model.name,
    )
