"""Links of pages: where they lead on a code host, and where on the site; and which of a built site lead nowhere."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).parents[2]
"""The checkout's."""
FOLDERS: Final = {"benchmarks/results": "benchmarks", "docs": "."}
"""Where whole folders of the checkout are on the site."""
MADE_OF: Final = {
    "config/llm.yaml": "reference/configuration.md",
    "config/llm.schema.json": "reference/llm.schema.json",
    "src/llm/core/exceptions.py": "reference/exceptions.md",
    "src/llm/core/protocols.py": "reference/extending.md",
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
}
"""Files whose place on the site is another page."""
SHOWN: Final = {".md", ".png", ".svg", ".json", ".yml", ".css"}
"""What is on the site as it is; of all else there is a page that shows its text."""
_FENCE: Final = re.compile(r"(^ *```.*?^ *```)", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
_LOADED: Final = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
_TOLD: Final = {"canonical", "next", "prev"}
"""What a `link` names without loading it."""


def place_of(path: Path) -> Path:
    """Return where a file of the checkout is on the site."""
    name = path.relative_to(ROOT).as_posix()
    if name in MADE_OF:
        return Path(MADE_OF[name])
    for folder, there in FOLDERS.items():
        if name.startswith(folder + "/"):
            return Path(there) / name.removeprefix(folder + "/")
    return Path("source") / (name if path.suffix in SHOWN else name + ".md")


def moved(text: str, page: Path, place: Path, where: Callable[[Path], Path]) -> str:
    """Return a page's text with each link to a file leading to that file's place on the site.

    Args:
        text: Markdown.
        page: The page's own file.
        place: The page's place on the site.
        where: Tells a file's place on the site.

    Raises:
        FileNotFoundError: A link leads to no file.
    """

    def changed(link: re.Match[str]) -> str:
        if "://" in link[2] or link[2].startswith("mailto:"):
            return link[0]
        target = Path(os.path.normpath(page.parent / unquote(link[2])))
        if not target.exists():
            raise FileNotFoundError(f"{page}: {link[2]} leads to no file")
        return f"{link[1]}{os.path.relpath(where(target), place.parent)}{link[3]}"

    pieces = _FENCE.split(text)  # each second one is code
    return "".join(piece if number % 2 else _LINK.sub(changed, piece) for number, piece in enumerate(pieces))


class _Page(HTMLParser):
    """What a built page has: names that can be linked to, links, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = {name: value for name, value in attrs if value}
        self.names |= {has[name] for name in ("id", "name") if name in has}
        if tag == "a" and "href" in has:
            self.links.add(has["href"])
        if has.get(_LOADED.get(tag, "")) and has.get("rel") not in _TOLD:
            self.loaded.add(has[_LOADED[tag]])


def faults(site: Path) -> Iterator[str]:
    """Tell each link of a built site that leads nowhere, and each file that a page would load from elsewhere."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        where = path.relative_to(site)
        if where.name == "404.html":  # it is served at any address
            continue
        for link in sorted(page.links | page.loaded):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loaded and parts.scheme != "data":
                    yield f"{where}: {link} is loaded from elsewhere"
                continue
            target = path if not parts.path else Path(os.path.normpath(path.parent / unquote(parts.path)))
            if target.is_dir():
                target /= "index.html"
            if not target.exists():
                yield f"{where}: {link} leads to no page"
            elif parts.fragment and unquote(parts.fragment) not in pages[target].names:
                yield f"{where}: {link} leads to no place on its page"
