from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from . import functional as functional

class Parameter(Tensor):
    def __init__(self, data: Tensor, requires_grad: bool = True) -> None: ...

class Hook:
    def remove(self) -> None: ...

class Module:
    def __init__(self) -> None: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def register_forward_hook(self, hook: Callable[[Any, Any, Any], None]) -> Hook: ...
    def modules(self) -> Iterator[Module]: ...
    def named_children(self) -> Iterator[tuple[str, Module]]: ...
    def parameters(self) -> Iterator[Parameter]: ...

class Linear(Module):
    in_features: int
    out_features: int
    weight: Parameter
    bias: Parameter | None
    def __init__(self, in_features: int, out_features: int, bias: bool = True, device: str | None = None) -> None: ...

class Embedding(Module):
    weight: Parameter
