from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.cache.likeness import contradict, marks_of


def same(one: str, other: str) -> bool:
    return marks_of(one) == marks_of(other) and not contradict(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I reset my password?", "How can I reset my password, please?"),
        ("How do I reset my password?", "What's the way to reset my password?"),
        ("What is the capital of France?", "Tell me the capital of France"),
        ("what is the capital of france", "What is the capital of France?"),
        ("Convert 5 km into miles", "Please convert 5 km into miles!"),
        ("What can I cook with eggs?", "What could be cooked with eggs?"),
        ("Why does my cat meow?", "Why is my cat meowing?"),
        ("Who wrote “Dune”?", "Tell me who wrote “Dune”"),
        ("What did the UN decide in 1948?", "What was it that the UN decided in 1948?"),
        ("state-of-the-art models?", "Which are state-of-the-art models?"),
    ],
)
def test_paraphrases_are_the_same(one: str, other: str) -> None:
    assert same(one, other)
    assert same(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 5 + 3?", "What is 5 - 3?"),
        ("What is 5 minus 3?", "What is 3 minus 5?"),
        ("5 – 3", "5 + 3"),  # noqa: RUF001 - a dash for a minus
        ("Is 10,000 a lot?", "Is 1,000 a lot?"),
        ("What is ½ of it?", "What is ¼ of it?"),
        ("What is x² here?", "What is x³ here?"),
        ("Is -5 cold?", "Is 5 cold?"),
        ("Give me three ideas", "Give me four ideas"),
        ("Explain gpt-4 to me", "Explain gpt-5 to me"),
        ("What is C++ good for?", "What is C# good for?"),
        ("On 2024-01-02, what?", "On 2024-01-03, what?"),
        ("Is it open on Monday?", "Is it open on Sunday?"),
        ("Weather tomorrow?", "Weather today?"),
        ("Write to a@b.example", "Write to c@b.example"),
        ("What does `rm` do?", "What does `mv` do?"),
        ("What does 'love' mean?", "What does 'hate' mean?"),
        ("Was heißt „ja“ genau?", "Was heißt „nein“ genau?"),
        ("Traduis « oui » ici", "Traduis « non » ici"),
        ("I can eat that?", "I can't eat that?"),
        ("I can eat that?", "I can’t eat that?"),  # noqa: RUF001 - as phones type it
        ("Darf ich das essen?", "Darf ich das nicht essen?"),
        ("这个可以吃吗", "这个不可以吃吗"),
        ("Tea with sugar?", "Tea without sugar?"),
        ("The highest mountain there?", "The lowest mountain there?"),
        ("What comes before lunch for them?", "What comes after lunch for them?"),
        ("Is it possible to leave?", "Is it impossible to leave?"),
        ("Do they approve of it?", "Do they disapprove of it?"),
        ("Is a dog bigger than a cat?", "Is a cat bigger than a dog?"),
        ("From English to French, how?", "How, from French to English?"),
        ("The dog bit the man", "The man bit the dog"),
        ("What is the population of Paris now?", "Tell me the population of Lyon now"),
        ("Explain the NATO treaty", "Explain the treaty"),
        ("How do I delete a file in the list?", "How do I copy a file in the list?"),
        ("Best python list library", "Best python lisp library"),
        ("Is the medicine fine for children who cough?", "Is the medicine fine for adults who cough?"),
        ("Can I sue my landlord over mold?", "Can I sue my neighbour over noise?"),
    ],
)
def test_what_vectors_do_not_tell_apart_is_told_apart(one: str, other: str) -> None:
    assert not same(one, other)
    assert not same(other, one)


@given(st.text(max_size=60))
def test_a_text_is_like_itself(text: str) -> None:
    assert same(text, text)


@given(st.text(max_size=40), st.text(max_size=40))
def test_it_does_not_matter_who_asked_first(one: str, other: str) -> None:
    assert contradict(one, other) == contradict(other, one)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_other_numbers_are_another_question(one: int, other: int) -> None:
    assert (marks_of(f"What is {one} in words?") == marks_of(f"What is {other} in words?")) == (one == other)
