"""Several texts for one prompt, and how likely their tokens were."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from llm.core.exceptions import LLMInvalidRequestError, LLMOverloadedError
from llm.core.types import LLMRequest
from llm.providers.local.answering import response_of
from llm.providers.local.asking import read_options
from llm.providers.local.grammar import regex_grammar
from llm.providers.local.likelihood import bytes_of

if TYPE_CHECKING:
    from llm.providers.local import InferenceEngine
    from llm.providers.local.engine import GenerationStream, Options
    from llm.providers.local.model import LoadedModel
    from llm.providers.local.request import Piece

PROMPT = "Once upon a time there was a king who had three daughters, and the youngest of them was the cleverest."


async def pieces_of(stream: GenerationStream) -> list[Piece]:
    pieces: list[Piece] = []
    with suppress(StopAsyncIteration):
        while True:
            pieces.append(await stream.piece())
    return pieces


async def test_choices_read_their_prompt_once_and_each_has_a_seed_of_its_own(crowd: InferenceEngine) -> None:
    before = crowd.stats().cached_tokens
    several = await crowd.generate(PROMPT, choices=3, seed=7, temperature=1.0, max_tokens=8)
    whole = len(PROMPT) // 32 * 32
    assert crowd.stats().cached_tokens - before == 2 * whole
    assert several.cached_tokens == 0
    texts = [each.text for each in (several, *several.others)]
    assert len(set(texts)) == 3
    alone = [await crowd.generate(PROMPT, seed=7 + at, temperature=1.0, max_tokens=8) for at in range(3)]
    assert texts == [each.text for each in alone]
    response = response_of(several, None, model="m", provider="p")
    assert [choice.content for choice in response.choices] == texts
    assert (response.usage.input_tokens, response.usage.output_tokens) == (len(PROMPT), 24)
    largest = await crowd.generate("x", choices=2, seed=2**64 - 1, temperature=1.0, max_tokens=8)
    assert largest.others[0].text == (await crowd.generate("x", seed=0, temperature=1.0, max_tokens=8)).text


async def test_choices_stream_side_by_side_and_can_be_left(crowd: InferenceEngine) -> None:
    whole = await crowd.generate(PROMPT, choices=2, seed=7, temperature=1.0, max_tokens=8)
    stream = crowd.generate_stream(PROMPT, choices=2, seed=7, temperature=1.0, max_tokens=8)
    texts = ["", ""]
    for piece in await pieces_of(stream):
        texts[piece.choice] += piece.text
    assert texts == [whole.text, whole.others[0].text]
    left = crowd.generate_stream(PROMPT, choices=2, grammar=regex_grammar("a{200}", field="it"))
    await left.piece()
    left.close()
    assert (await crowd.generate("x", choices=2, max_tokens=1)).others[0].finish_reason == "length"


async def test_choices_count_as_requests_and_one_that_fails_fails_all(small: InferenceEngine) -> None:
    with pytest.raises(LLMInvalidRequestError, match="choices is 0"):
        await small.generate("x", choices=0)
    running = [small.generate_stream("x", choices=128, max_tokens=300) for _ in range(2)]
    with pytest.raises(LLMOverloadedError):
        await small.generate("x")
    for stream in running:
        stream.close()


async def test_logprobs_are_those_of_the_network_whatever_is_drawn(
    crowd: InferenceEngine, letters: LoadedModel
) -> None:
    options: Options = {"temperature": 2.0, "seed": 3, "max_tokens": 6, "logprobs": 2}
    told = await crowd.generate("Tell:", **options)
    tokens = letters.encode("Tell:" + told.text)
    with torch.inference_mode():
        logs = letters.network(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].log_softmax(-1)
    assert "".join(each.token for each in told.logprobs) == told.text
    for at, each in enumerate(told.logprobs, start=4):
        assert each.data == each.token.encode()
        assert math.isclose(each.logprob, float(logs[at, tokens[at + 1]]), abs_tol=1e-3)
        assert [other.logprob for other in each.top] == pytest.approx(logs[at].topk(2)[0].tolist(), abs=1e-3)
    held = await crowd.generate("Tell:", logprobs=2, seed=3, grammar=regex_grammar("aaa", field="it"))
    assert [each.token for each in held.logprobs] == ["a"] * 3
    assert {other.token for each in held.logprobs for other in each.top} != {"a"}


async def test_logprobs_come_with_their_text_and_none_for_what_a_stop_held_back(crowd: InferenceEngine) -> None:
    options: Options = {"seed": 3, "temperature": 1.0, "max_tokens": 12, "logprobs": 0}
    whole = (await crowd.generate("Tell:", **options)).text
    stopping: Options = {**options, "stop": whole[6:8]}
    stream = crowd.generate_stream("Tell:", **stopping)
    pieces = await pieces_of(stream)
    assert [piece.text for piece in pieces] == ["".join(each.token for each in piece.logprobs) for piece in pieces]
    assert stream.result is not None
    assert stream.result.text == whole[:6] == "".join(each.token for each in stream.result.logprobs)


def test_a_token_is_its_bytes_in_every_kind_of_vocabulary(letters: LoadedModel) -> None:
    tokenizer = letters.tokenizer
    assert [bytes_of(tokenizer, token) for token in letters.encode("a ")] == [b"a", b" "]
    assert bytes_of(tokenizer, 10**6) == b""
    words = Tokenizer(models.BPE(vocab={"\u2581Paris": 0, "<0x0A>": 1, "<e>": 2}, merges=[], byte_fallback=True))
    words.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Replace("\u2581", " ")])
    pieces = PreTrainedTokenizerFast(tokenizer_object=words, eos_token=words.id_to_token(2))
    assert [bytes_of(pieces, token) for token in range(3)] == [b" Paris", b"\n", b"<e>"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"logprobs": 3}, "logprobs is 3; expected true or false"),
        ({"top_logprobs": 3}, "top_logprobs is given without logprobs"),
        ({"frequency_penalty": 1.5}, "extra has 'frequency_penalty'"),
    ],
)
def test_what_it_does_not_tell_is_refused(extra: dict[str, object], message: str) -> None:
    with pytest.raises(LLMInvalidRequestError, match=message):
        read_options(LLMRequest("x", extra=extra))


def test_fields_that_ask_for_nothing_are_left_aside() -> None:
    extra: dict[str, object] = {
        "user": "ann",
        "frequency_penalty": 0,
        "logit_bias": {},
        "service_tier": None,
        "logprobs": True,
        "n": 3,
    }
    options = read_options(LLMRequest("x", extra=extra))
    assert (options.get("logprobs"), options.get("choices")) == (0, 3)
