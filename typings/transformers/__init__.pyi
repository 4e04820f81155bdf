"""The part of transformers that the model on the box relies on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, Self

from torch import Tensor, device, dtype
from tokenizers import Tokenizer
from torch.nn import Linear, Module

from . import utils as utils

class AttentionInterface:
    @classmethod
    def register(cls, key: str, value: Callable[..., Any]) -> None: ...

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
    _attn_implementation: str
    hidden_size: int
    model_type: str
    use_cache: bool
    num_attention_heads: int
    num_hidden_layers: int
    vocab_size: int
    def get_text_config(self) -> PreTrainedConfig: ...

class CausalLMOutput(Protocol):
    last_hidden_state: Tensor
    logits: Tensor
    hidden_states: tuple[Tensor, ...]

_float = float

class PreTrainedModel(Module):
    base_model: Module
    config: PreTrainedConfig
    generation_config: GenerationConfig
    device: device
    dtype: dtype
    def __call__(
        self,
        *,
        input_ids: Tensor,
        use_cache: bool = ...,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: object,
    ) -> CausalLMOutput: ...
    def float(self) -> Self: ...
    def set_attn_implementation(self, attn_implementation: str) -> None: ...
    def eval(self) -> Self: ...
    def generate(
        self,
        input_ids: Tensor,
        *,
        max_new_tokens: int,
        do_sample: bool,
        temperature: _float | None = None,
        top_p: _float | None = None,
    ) -> Tensor: ...
    def save_pretrained(self, save_directory: str) -> None: ...
    def to(self, device: str) -> Self: ...

class PreTrainedTokenizerBase:
    backend_tokenizer: Tokenizer
    pad_token_id: int | None
    chat_template: str | None
    eos_token_id: int | None
    model_max_length: int
    def apply_chat_template(
        self,
        conversation: list[dict[str, Any]],
        *,
        tools: list[Mapping[str, Any]] | None,
        add_generation_prompt: bool,
        return_dict: bool,
        sanitize_control_tokens: bool,
    ) -> list[int]: ...
    def __len__(self) -> int: ...
    def convert_ids_to_tokens(self, ids: int) -> str | None: ...
    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str: ...
    def encode(self, text: str) -> list[int]: ...
    def save_pretrained(self, save_directory: str) -> None: ...

class BloomConfig(PreTrainedConfig):
    def __init__(self, **kwargs: object) -> None: ...

class BloomForCausalLM(PreTrainedModel):
    def __init__(self, config: BloomConfig) -> None: ...

class LlamaConfig(PreTrainedConfig):
    def __init__(self, **kwargs: object) -> None: ...

class MistralConfig(PreTrainedConfig):
    def __init__(self, **kwargs: object) -> None: ...

class LlamaForCausalLM(PreTrainedModel):
    lm_head: Linear
    def __init__(self, config: LlamaConfig) -> None: ...

class MistralForCausalLM(PreTrainedModel):
    lm_head: Linear
    def __init__(self, config: MistralConfig) -> None: ...

class PreTrainedTokenizerFast(PreTrainedTokenizerBase):
    def __init__(
        self, *, tokenizer_object: object, eos_token: str | None = None, pad_token: str | None = None
    ) -> None: ...

class AutoConfig:
    @staticmethod
    def from_pretrained(pretrained_model_name_or_path: str, *, local_files_only: bool) -> PreTrainedConfig: ...

class AutoModel:
    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str,
        *,
        dtype: dtype | str,
        local_files_only: bool,
        output_loading_info: Literal[True],
    ) -> tuple[PreTrainedModel, Mapping[str, Sequence[str]]]: ...

class AutoModelForTextEncoding(AutoModel): ...

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
