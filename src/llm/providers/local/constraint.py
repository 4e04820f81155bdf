"""Answers held to a form, token by token: llguidance says what may come next, and everything else is no choice.

A form is made ready for a vocabulary once, beside the thread that runs the network, and kept; a request starts with a
copy of it. One whose answer would be cut by its `max_tokens` is led to its end before, by the shortest way there is.

Source: https://github.com/guidance-ai/llguidance
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, NamedTuple

from llm.core.exceptions import LLMInvalidRequestError, LLMServerError

from .closing import closers_of, way_out
from .convert import missing_extra
from .masks import Mask

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from llguidance import LLMatcher, LLTokenizer

    from .closing import Closers
    from .grammar import Grammar
    from .model import LoadedModel
    from .request import Ending

_KEPT: Final = 64  # forms
_SPARE: Final = 2  # tokens that are left beside those to the end


class _Vocabulary(NamedTuple):
    tokenizer: LLTokenizer
    closers: Closers
    mask: Mask
    ends: frozenset[int]


class Form(NamedTuple):
    """A form that is ready for a vocabulary.

    Attributes:
        matcher: Follows it, from its beginning.
        least: Tokens of the shortest way to its end; None where none was found.
        vocabulary: The vocabulary.
    """

    matcher: LLMatcher
    least: int | None
    vocabulary: _Vocabulary

    def start(self, most: int) -> Constraint:
        """Return it for an answer of at most so many tokens."""
        return Constraint(self, most)


class Grammars:
    """The forms of one model, made ready in any thread and used in one."""

    def __init__(self, model: LoadedModel) -> None:
        """Start with none; the vocabulary is read with the first."""
        self._model = model
        self._lock = threading.Lock()
        self._vocabulary: _Vocabulary | None = None
        self._ready: OrderedDict[Grammar, Form] = OrderedDict()

    def find(self, grammar: Grammar) -> Form | None:
        """Return the form of a grammar; None where it was not made ready."""
        return self._ready.get(grammar)

    def make(self, grammar: Grammar) -> Form:
        """Make the form of a grammar ready, and return it.

        Raises:
            LLMInvalidRequestError: It cannot be held; names the field and what in it.
            LLMConfigurationError: The `local` extra is missing.
        """
        with self._lock:
            self._vocabulary = self._vocabulary or self._read_vocabulary()
            form = self._ready.get(grammar) or self._compiled(grammar, self._vocabulary)
            self._ready[grammar] = form
            self._ready.move_to_end(grammar)
            if len(self._ready) > _KEPT:
                self._ready.popitem(last=False)
        return form

    def _read_vocabulary(self) -> _Vocabulary:
        try:
            from llguidance import LLTokenizer
        except ImportError as error:
            raise missing_extra(error.name) from error
        backend = getattr(self._model.tokenizer, "backend_tokenizer", None)
        if backend is None or not self._model.end_tokens:
            raise LLMInvalidRequestError(
                f"the tokenizer of {self._model.name} is not one that an answer can be held to a form with; leave "
                "response_format, response_model and tool_choice out, or take another model",
                model=self._model.name,
            )
        size = max(self._model.network.config.get_text_config().vocab_size, len(self._model.tokenizer))
        tokenizer = LLTokenizer(backend.to_str(), n_vocab=size, eos_token=sorted(self._model.end_tokens))
        return _Vocabulary(tokenizer, closers_of(tokenizer), Mask(size), self._model.end_tokens)

    def _compiled(self, grammar: Grammar, vocabulary: _Vocabulary) -> Form:
        from llguidance import LLMatcher

        source = LLMatcher.grammar_from_regex(grammar.source) if grammar.kind == "regex" else grammar.source
        matcher = LLMatcher(vocabulary.tokenizer, source, log_level=0)
        if not matcher.is_error():
            mask = Mask(vocabulary.tokenizer.vocab_size)  # the other one belongs to the thread that runs the network
            way = way_out(matcher, vocabulary.closers, mask, self._model.limit)
            return Form(matcher, None if way is None else len(way), vocabulary)
        if grammar.looser is not None:
            return self._compiled(grammar.looser, vocabulary)
        raise LLMInvalidRequestError(
            f"{grammar.field} has what no answer can be held to here: {_reason(matcher)}; take it out, and check it "
            "when the answer is there",
            model=self._model.name,
        )


class Constraint:
    """The form of one answer in the making; used by the thread that runs the network.

    For each token `choose` comes first, then `accept`.

    Attributes:
        led: Whether it is on the shortest way to its end, and no more of the model's choosing.
    """

    def __init__(self, form: Form, most: int) -> None:
        """Start an answer of `most` tokens at the most."""
        self._matcher = form.matcher.deep_copy()
        self._vocabulary = form.vocabulary
        self._left = most
        self._length = form.least  # of the way to the end, None where there is none
        self._way: deque[int] = deque()
        self.led: bool = False
        self._in_text = False

    def choose(self, scores: torch.Tensor, draw: Callable[[torch.Tensor], int]) -> int:
        """Return the next token: what `draw` takes of the scores, those of tokens that may not come minus infinity.

        Where it leads so far that no end would be reached in time, the shortest way there begins instead.
        """
        if self._way:
            return self._way[0]
        vocabulary = self._vocabulary
        vocabulary.mask.fill(self._matcher)
        self._in_text = vocabulary.closers.in_text(vocabulary.mask)
        token = draw(vocabulary.mask.hide(scores))
        if token in vocabulary.ends or self._goes_on_as_before(token):
            return token
        ahead = self._matcher.deep_copy()
        ahead.consume_token(token)
        way = way_out(ahead, vocabulary.closers, vocabulary.mask, self._left - 1)
        if way is None and self._length is not None:
            own = way_out(self._matcher, vocabulary.closers, vocabulary.mask, self._left)
            if own is not None:
                self._way.extend(own)
                self.led = True
                return own[0] if own else min(vocabulary.ends)
        self._length = None if way is None else len(way)
        return token

    @property
    def ending(self) -> Ending:
        """How the answer ends where it is whole."""
        return "length" if self.led else "stop"

    def accept(self, token: int) -> Ending | None:
        """Take a token, and return how the answer ends with it; None: it goes on.

        Raises:
            LLMServerError: The form became too much to follow.
        """
        if not self._matcher.consume_token(token):
            raise LLMServerError(
                f"the form of the answer cannot be followed: {_reason(self._matcher)}; make it simpler"
            )
        self._left -= 1
        if self._way:
            self._way.popleft()
        if self._matcher.is_stopped() or (self.led and not self._way):
            return self.ending
        return None

    def _goes_on_as_before(self, token: int) -> bool:
        """Return whether a token adds to a text and nothing else, with tokens to spare: its end is as far as before."""
        if not self._in_text or self._length is None or self._left - 1 <= self._length + _SPARE:
            return False
        return b'"' not in self._vocabulary.tokenizer.decode_bytes([token])


def _reason(matcher: LLMatcher) -> str:
    lines = matcher.get_error().splitlines()
    told = next((line for line in lines if line.strip()), "no reason was given")
    return told.partition("failed to compile JSON schema: ")[2] or told
