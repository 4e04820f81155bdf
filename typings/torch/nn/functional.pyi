from torch import Tensor

def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor: ...
def normalize(input: Tensor, *, dim: int, eps: float) -> Tensor: ...
def embedding(input: Tensor, weight: Tensor) -> Tensor: ...
def silu(input: Tensor) -> Tensor: ...
