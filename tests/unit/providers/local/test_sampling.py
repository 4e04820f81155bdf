from __future__ import annotations

from collections import Counter

import torch

from llm.providers.local.sampling import generator_for, sample

SHARES = [0.5, 0.3, 0.15, 0.05]
LOGITS = torch.tensor(SHARES).log()


def counts(n: int = 4000, *, temperature: float = 1.0, top_p: float = 1.0, top_k: int | None = None) -> list[float]:
    generator = generator_for(1)
    drawn = Counter(
        sample(LOGITS, temperature=temperature, top_p=top_p, top_k=top_k, generator=generator) for _ in range(n)
    )
    return [drawn[token] / n for token in range(len(SHARES))]


def near(got: list[float], wanted: list[float]) -> bool:
    return all(abs(a - b) < 0.03 for a, b in zip(got, wanted, strict=True))


def test_tokens_are_drawn_by_their_shares() -> None:
    assert near(counts(), SHARES)


def test_temperature_zero_takes_the_likeliest_and_a_tiny_one_does_not_overflow() -> None:
    assert sample(LOGITS, temperature=0) == 0
    assert counts(50, temperature=1e-300) == [1, 0, 0, 0]


def test_a_high_temperature_flattens() -> None:
    assert near(counts(temperature=1e6), [0.25] * 4)


def test_top_k_keeps_so_many() -> None:
    assert near(counts(top_k=2), [0.625, 0.375, 0, 0])
    assert near(counts(top_k=99), SHARES)


def test_top_p_keeps_the_fewest_that_reach_the_share_and_at_least_one() -> None:
    assert near(counts(top_p=0.6), [0.625, 0.375, 0, 0])
    assert counts(50, top_p=0.0) == [1, 0, 0, 0]


def test_a_seed_alone_decides_the_draws_whatever_else_is_drawn() -> None:
    one, other = generator_for(5), generator_for(5)
    first = [sample(LOGITS, temperature=1, generator=one) for _ in range(20)]
    second: list[int] = []
    for _ in range(20):
        torch.rand(())
        second.append(sample(LOGITS, temperature=1, generator=other))
    assert first == second
