from pathlib import Path

from matplotlib.axes import Axes

class Figure:
    def __init__(self, *, figsize: tuple[float, float] = ..., dpi: float = ..., layout: str | None = ...) -> None: ...
    def subplots(
        self,
        nrows: int = ...,
        ncols: int = ...,
        *,
        sharex: bool = ...,
        sharey: bool = ...,
        squeeze: bool = ...,
        width_ratios: list[float] | None = ...,
    ) -> list[list[Axes]]: ...
    def savefig(self, fname: Path) -> None: ...
    def supxlabel(self, t: str) -> object: ...
    def suptitle(self, t: str, *, x: float = ..., ha: str = ..., fontsize: float = ...) -> object: ...
