from __future__ import annotations

import asyncio
import shutil
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from llm.providers.local import InferenceEngine
from llm.providers.local.guessing import Guesses
from llm.providers.local.sampling import Chooser

if TYPE_CHECKING:
    from pathlib import Path

RING = [1, 2, 3, 4, 1, 2, 3]


def test_what_stood_before_is_guessed_and_goes_round_where_the_text_does() -> None:
    guesses = Guesses()

    assert guesses.next(RING, 7) == [4, 1]
    guesses.judge(2, 2)
    assert guesses.next([*RING, 4, 1, 2], 7) == [3, 4, 1, 2]
    assert guesses.next([*RING, 4, 1, 2], 3) == [3, 4, 1]
    assert guesses.next([7, 7, 7, 7], 7) == []  # another text would begin anew; of this one only the end is looked at
    assert Guesses().next([7, 7, 7, 7], 7) == [7, 7]
    assert Guesses().next([1, 2, 3, 4, 5], 7) == []
    assert Guesses().next([1], 7) == []
    assert Guesses().next(RING, 0) == []


def test_guesses_that_are_wrong_come_less_and_less_often() -> None:
    guesses = Guesses()
    given: list[int] = []
    for number in range(100):
        if guesses.next(RING, 7):
            given.append(number)
            guesses.judge(2, 0)

    assert given == [0, 2, 5, 10, 19, 36, 69]


def test_a_guess_is_as_long_as_the_last_one_was_right() -> None:
    guesses = Guesses()
    for right, length in ((2, 4), (4, 7), (3, 3), (1, 1)):
        guesses.judge(len(guesses.next(RING, 7)), right)
        assert len(guesses.next(RING, 7)) == length


def test_only_a_choice_of_the_likeliest_can_be_guessed() -> None:
    assert Chooser(0, 0.5, 3).plain
    assert not Chooser(0.1).plain


@pytest.fixture(scope="module")
def ring_folder(small_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model, in which the last token counts for most: what it writes goes round in rings."""
    folder = tmp_path_factory.mktemp("ring")
    shutil.copytree(small_folder, folder, dirs_exist_ok=True)
    models: Any = import_module("transformers")
    network = models.AutoModelForCausalLM.from_pretrained(str(small_folder))
    for name, weights in network.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weights.data.mul_(0.02)
    network.save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("at_once", [1, 2])
async def test_texts_with_guesses_are_those_without_in_fewer_passes(ring_folder: Path, at_once: int) -> None:
    answers: dict[bool, list[tuple[str, int, str]]] = {}
    passes: dict[bool, int] = {}
    for lookup in (False, True):
        engine = InferenceEngine(device="cpu", threads=1, prompt_lookup=lookup)
        await engine.load_model(str(ring_folder))

        async def ask(prompt: str, most: int, engine: InferenceEngine = engine) -> tuple[str, int, str]:
            result = await engine.generate(prompt, max_tokens=most, temperature=0)
            return result.text, result.output_tokens, result.finish_reason

        answers[lookup] = []
        for most in (1, 2, 180):  # the last one moves to a longer row
            async with asyncio.TaskGroup() as group:
                calls = [group.create_task(ask(prompt, most)) for prompt in ("Q", "abcabc")[:at_once]]
            answers[lookup] += [call.result() for call in calls]
        passes[lookup] = engine.forward_passes
        await engine.close()

    assert answers[True] == answers[False]
    assert passes[True] < 0.7 * passes[False]


async def test_draws_beside_guesses_depend_on_their_seed_alone(ring_folder: Path) -> None:
    engine = InferenceEngine(device="cpu", threads=1)
    await engine.load_model(str(ring_folder))
    alone = await engine.generate("Q", max_tokens=60, temperature=1, seed=3)
    async with asyncio.TaskGroup() as group:
        beside = group.create_task(engine.generate("Q", max_tokens=60, temperature=1, seed=3))
        group.create_task(engine.generate("abcabc", max_tokens=100, temperature=0))
    await engine.close()

    assert beside.result().text == alone.text


async def test_what_was_guessed_right_stays_read_where_another_ends_in_that_pass(ring_folder: Path) -> None:
    engine = InferenceEngine(device="cpu", threads=1)
    await engine.load_model(str(ring_folder))
    ask = partial(engine.generate, temperature=0, logprobs=0, ignore_eos=True)
    alone = await ask("abcabc", max_tokens=60)
    for most in range(20, 40):
        async with asyncio.TaskGroup() as group:
            group.create_task(ask("Q", max_tokens=most))
            beside = group.create_task(ask("abcabc", max_tokens=60))  # in the row behind, which moves as that ends
        likely = [token.logprob for token in beside.result().logprobs]
        assert likely == pytest.approx([token.logprob for token in alone.logprobs], abs=1e-4)
    await engine.close()
