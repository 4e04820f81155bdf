class Spine:
    def set_visible(self, b: bool) -> None: ...  # noqa: FBT001 - theirs

class Spines:
    def __getitem__(self, key: list[str]) -> Spine: ...
