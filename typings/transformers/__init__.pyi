"""The part of transformers that the model on the box relies on."""

from typing import Protocol, Self

from torch import Tensor, device, dtype

from . import utils as utils

class Cache: ...

class GenerationConfig:
    eos_token_id: int | list[int] | None
    max_new_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None

class GgufConfig:
    def __init__(self, gguf_file: str | None = None, dequantize: bool = False) -> None: ...

class PreTrainedConfig:
    quantization_config: object
    def get_text_config(self) -> PreTrainedConfig: ...

class CausalLMOutput(Protocol):
    logits: Tensor
    past_key_values: Cache

class PreTrainedModel:
    config: PreTrainedConfig
    generation_config: GenerationConfig
    device: device
    dtype: dtype
    def __call__(
        self, *, input_ids: Tensor, past_key_values: Cache | None, use_cache: bool, logits_to_keep: int
    ) -> CausalLMOutput: ...
    def eval(self) -> Self: ...
    def generate(
        self,
        input_ids: Tensor,
        *,
        max_new_tokens: int,
        do_sample: bool,
        temperature: float | None = None,
        top_p: float | None = None,
    ) -> Tensor: ...
    def save_pretrained(self, save_directory: str) -> None: ...
    def to(self, device: str) -> Self: ...

class PreTrainedTokenizerBase:
    chat_template: str | None
    eos_token_id: int | None
    model_max_length: int
    def apply_chat_template(
        self,
        conversation: list[dict[str, str]],
        *,
        add_generation_prompt: bool,
        return_dict: bool,
        sanitize_control_tokens: bool,
    ) -> list[int]: ...
    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str: ...
    def encode(self, text: str) -> list[int]: ...
    def save_pretrained(self, save_directory: str) -> None: ...

class AutoModelForCausalLM:
    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str,
        *,
        dtype: dtype | str,
        local_files_only: bool,
        gguf_file: str | None = None,
        quantization_config: GgufConfig | None = None,
    ) -> PreTrainedModel: ...

class AutoTokenizer:
    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str, *, local_files_only: bool, gguf_file: str | None = None
    ) -> PreTrainedTokenizerBase: ...
