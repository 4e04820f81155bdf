"""Vectors of texts from a model that answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import torch

from llm.core.exceptions import LLMContextLengthError, LLMInvalidRequestError
from llm.providers.local.vectors import shortened

if TYPE_CHECKING:
    from llm.providers.local import InferenceEngine
    from llm.providers.local.model import LoadedModel

TEXTS = ["one", "two" * 100, "one"]


async def test_a_vector_is_the_mean_of_the_last_layer_and_of_length_one(
    crowd: InferenceEngine, letters: LoadedModel
) -> None:
    stream = crowd.generate_stream("Tell:", seed=1, temperature=1.0, max_tokens=30)
    await anext(stream)
    made = await crowd.embed(TEXTS)  # the long one in several passes, beside the stream
    beside = "".join([piece async for piece in stream])
    assert made.input_tokens == 306
    for text, vector in zip(TEXTS, made.values, strict=True):
        with torch.inference_mode():
            ids = torch.tensor([letters.encode(text)])
            states = letters.network(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states[-1][0]
        mean = states.mean(0)
        assert vector == pytest.approx((mean / mean.norm()).tolist(), abs=1e-4)
    assert made.values[0] == pytest.approx(made.values[2], abs=1e-5)
    whole = await crowd.generate("Tell:", seed=1, temperature=1.0, max_tokens=30)
    assert whole.text.endswith(beside)
    assert crowd.stats().blocks_used == 0


async def test_a_text_that_does_not_fit_and_a_call_that_is_left_take_nothing_with_them(crowd: InferenceEngine) -> None:
    with pytest.raises(LLMContextLengthError):
        await crowd.embed(["x", "y" * 600])
    task = asyncio.ensure_future(crowd.embed(["z" * 400] * 40))  # noqa: TID251 - to be cancelled
    while not crowd.stats().running:
        await asyncio.tasks.sleep(0)
    task.cancel()
    assert len((await crowd.embed(["x"])).values[0]) == 32


def test_a_shorter_vector_is_again_of_length_one() -> None:
    assert shortened((0.6, 0.8, 0.0), None) == (0.6, 0.8, 0.0)
    assert shortened((0.3, 0.4, 0.5), 2) == pytest.approx((0.6, 0.8))
    assert shortened((0.0, 1.0), 1) == (0.0,)
    with pytest.raises(LLMInvalidRequestError, match="dimensions is 9, and the model's vectors have 2"):
        shortened((0.0, 1.0), 9)
