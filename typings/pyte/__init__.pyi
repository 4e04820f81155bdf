class Cursor:
    hidden: bool
    x: int
    y: int

class Screen:
    cursor: Cursor
    columns: int
    lines: int
    @property
    def display(self) -> list[str]: ...
    def __init__(self, columns: int, lines: int) -> None: ...
    def resize(self, lines: int | None = None, columns: int | None = None) -> None: ...

class ByteStream:
    def __init__(self, screen: Screen) -> None: ...
    def feed(self, data: bytes) -> None: ...
