"""A transformers model in memory: prompts into tokens, tokens into the next one's logits."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from llm.core.exceptions import LLMConfigurationError, LLMContextLengthError, LLMInvalidRequestError

from .packing import computes_in
from .request import Conversation
from .tools import form_of, in_words

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from transformers import GenerationConfig

    from .attention import Part
    from .request import Prompt
    from .tools import CallForm

_NO_WINDOW = 2**31  # tokens; what a tokenizer names where it knows no limit is far above
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

UNREADABLE: Final = (OSError, ValueError, KeyError, RuntimeError, ImportError)
"""What transformers raises of files that do not load."""

_quiet_lock = threading.Lock()


@dataclass(eq=False)
class LoadedModel:
    """One model in memory, used by one thread; `ready_for_batches` makes its `forward` work.

    Attributes:
        name: What it is asked for by.
        network: The model.
        tokenizer: Its tokenizer.
        window: Tokens that prompt and answer may have together.
        end_tokens: Tokens that end an answer.
        passes: Times the network ran since it was loaded.
        limit: Tokens that prompt and answer may have together here: the window, or what the memory for them holds.
    """

    name: str
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    window: int
    end_tokens: frozenset[int]
    passes: int = 0
    limit: int = 0

    def __post_init__(self) -> None:
        """Start with the window as the limit."""
        self.limit = self.limit or self.window

    @property
    def defaults(self) -> GenerationConfig:
        """The generation defaults that came with the model."""
        return self.network.generation_config

    def encode(self, prompt: Prompt) -> list[int]:
        """Return a prompt's tokens, a conversation's through the model's chat template.

        A text may hold the model's control tokens; in a conversation only the template writes them, so that no
        message can pass for another speaker's.

        Raises:
            LLMInvalidRequestError: An empty prompt, or a conversation that the template refuses.
        """
        tokens = self.tokenizer.encode(prompt) if isinstance(prompt, str) else self._apply_template(prompt)
        if not tokens:
            raise LLMInvalidRequestError("the prompt is empty; pass a text of one character or more", model=self.name)
        return tokens

    def check_fits(self, tokens: int) -> None:
        """Refuse a prompt that leaves no room for an answer.

        Raises:
            LLMContextLengthError: It has as many tokens as the window, or more.
        """
        if tokens >= self.limit:
            what = "window" if self.limit == self.window else "memory for one request"
            raise LLMContextLengthError(
                f"the prompt has {tokens} tokens and the {what} of {self.name} is {self.limit}, the answer included; "
                "shorten it",
                limit=self.limit,
                requested=tokens,
                model=self.name,
            )

    def decode(self, tokens: list[int]) -> str:
        """Return the text of tokens, without control tokens."""
        return self.tokenizer.decode(tokens, skip_special_tokens=True)

    def forward(
        self, tokens: Sequence[int], positions: Sequence[int], ends: Sequence[int], parts: Sequence[Part]
    ) -> torch.Tensor:
        """Let the network read tokens of many requests, and return the logits after some of them.

        Args:
            tokens: All tokens, one part after the other.
            positions: The place of each in its request.
            ends: Indices of the tokens whose successor is asked for.
            parts: How they attend; see `llm.providers.local.attention`.

        Returns:
            Shape `(ends, vocabulary)`.
        """
        device = self.network.device
        with torch.inference_mode():
            output = self.network(
                input_ids=torch.tensor([tokens], device=device),
                position_ids=torch.tensor([list(positions)], device=device),
                logits_to_keep=torch.tensor(ends, device=device),
                use_cache=False,
                llm_parts=parts,
            )
            self.passes += 1
            return output.logits[0]

    @property
    def call_form(self) -> CallForm:
        """How it writes calls of tools."""
        return form_of(self.tokenizer.chat_template)

    def _apply_template(self, prompt: Sequence[Mapping[str, Any]] | Conversation) -> list[int]:
        messages, tools = (prompt.messages, prompt.tools) if isinstance(prompt, Conversation) else (prompt, ())
        if not self.call_form.native:
            messages, tools = in_words(messages, tools), ()
        if not self.tokenizer.chat_template:
            return self.tokenizer.encode(_as_script(messages))
        import jinja2

        try:
            return self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tools=list(tools) or None,
                add_generation_prompt=True,
                return_dict=False,
                sanitize_control_tokens=True,
            )
        except jinja2.TemplateError as error:
            raise LLMInvalidRequestError(
                f"messages do not fit the chat template of {self.name}: {error}", model=self.name
            ) from error


def load(name: str, folder: Path, *, device: str, dtype: str) -> LoadedModel:
    """Load a model from a folder, for a device and with a float type.

    `auto` is the type it was saved in, but float32 on a CPU that has no instructions for that one. On such a CPU
    (AVX2), SmolLM2-135M takes per pass of one token 34 ms in float32 and 32 in bfloat16, of 32 tokens 99 and 728.

    Raises:
        LLMConfigurationError: No such device or type here, or files that do not load.
    """
    target = choose_device(device)
    try:
        with quiet():
            network = AutoModelForCausalLM.from_pretrained(str(folder), dtype=choose_type(dtype), local_files_only=True)
            if dtype == "auto" and target == "cpu" and not computes_in(network.dtype):
                network = network.float()
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except UNREADABLE as error:
        raise damaged(name, folder, error) from error
    window = _window(network, tokenizer)
    tokenizer.model_max_length = _NO_WINDOW  # we check the length ourselves; it would only log
    ends = frozenset(_as_tuple(network.generation_config.eos_token_id) + _as_tuple(tokenizer.eos_token_id))
    return LoadedModel(name, network.to(target).eval(), tokenizer, window, ends)


def damaged(name: str, folder: Path, error: BaseException) -> LLMConfigurationError:
    """Return the error for a folder that does not load."""
    return LLMConfigurationError(
        f"the files in {folder} do not load ({type(error).__name__}: {error}); "
        "if they are damaged, remove the folder and fetch or copy them again",
        model=name,
    )


def choose_device(device: str) -> str:
    """Return the device to use; `auto` is the first of cuda, mps and cpu that is there.

    Raises:
        LLMConfigurationError: An unknown device, or one that this machine does not have.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, available in there.items() if available)
    if not there.get(device.partition(":")[0], False):
        usable = ", ".join(name for name, available in there.items() if available)
        raise LLMConfigurationError(f"device is {device!r}; expected auto or what this machine has: {usable}")
    return device


def choose_type(dtype: str) -> torch.dtype | str:
    """Return the float type to load with; `auto` is what the weights were saved in.

    Raises:
        LLMConfigurationError: An unknown type.
    """
    if dtype == "auto":
        return dtype
    if dtype not in _TYPES:
        raise LLMConfigurationError(f"dtype is {dtype!r}; expected auto, {', '.join(_TYPES)}")
    return _TYPES[dtype]


def _window(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    positions = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    return positions if isinstance(positions, int) else min(tokenizer.model_max_length, _NO_WINDOW)


def _as_tuple(tokens: int | list[int] | None) -> tuple[int, ...]:
    if tokens is None:
        return ()
    return (tokens,) if isinstance(tokens, int) else tuple(tokens)


def _as_script(messages: Sequence[Mapping[str, Any]]) -> str:
    # A model without a chat template was not trained to chat; names before the lines are what it can follow best.
    lines = [f"{message['role'].capitalize()}: {message['content']}" for message in messages]
    return "\n".join([*lines, "Assistant:"])


@contextmanager
def quiet() -> Generator[None]:
    """Keep what transformers would print to itself."""
    # transformers has one switch for the whole process; it is put back as it was.
    with _quiet_lock:
        level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        try:
            yield
        finally:
            transformers_logging.set_verbosity(level)
            if bars:
                transformers_logging.enable_progress_bar()
