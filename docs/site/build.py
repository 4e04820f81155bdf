"""Builds the site of the docs into `.cache/site`; `make docs` runs it.

Pages are those of `docs/`, which read the same on a code host; what they link to elsewhere in the checkout comes along,
and the reference is made. Every warning is an error, and so is a link that leads nowhere, a page that is not in the
navigation, and anything that a browser would load from another host.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from links import ROOT, SHOWN, faults, moved, place_of
from made import made

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS: Final = ROOT / "docs"


class Pages:
    """The pages that are put together in a folder."""

    def __init__(self, folder: Path) -> None:
        """Begin with none."""
        self.folder = folder
        self.done: set[Path] = set()
        self._waiting: list[Path] = []

    def put(self, place: Path, text: str | bytes) -> None:
        """Write one."""
        self.done.add(place)
        path = self.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    def bring(self, *paths: Path) -> None:
        """Bring files of the checkout, and all that they link to."""
        self._waiting.extend(paths)
        while self._waiting:
            path = self._waiting.pop()
            place = place_of(path)
            if place not in self.done:
                self.put(place, self._read(path, place))

    def _read(self, path: Path, place: Path) -> str | bytes:
        if path.suffix == ".md":
            return moved(path.read_text(encoding="utf-8"), path, place, self._linked)
        if path.is_dir():
            listed = "".join(f"- [`{each.name}`]({each.name})\n" for each in sorted(path.iterdir()))
            return moved(f"# `{path.relative_to(ROOT)}`\n\n{listed}", path / "listed", place, self._linked)
        if path.suffix in SHOWN:
            return path.read_bytes()
        return f"# `{path.relative_to(ROOT)}`\n\n~~~~{path.suffix[1:]}\n{path.read_text(encoding='utf-8')}\n~~~~\n"

    def _linked(self, path: Path) -> Path:
        self._waiting.append(path)
        return place_of(path)


def together(folder: Path) -> Iterator[str]:
    """Put all that the site is built of into a folder; tell what the navigation lacks, or has too much."""
    shutil.rmtree(folder, ignore_errors=True)
    config = (DOCS / "site" / "mkdocs.yml").read_text(encoding="utf-8")
    pages = Pages(folder / "pages")
    for place, text in made(ROOT):
        pages.put(Path(place), text)
    pages.bring(*DOCS.glob("*.md"), *(ROOT / "benchmarks" / "results").glob("*.md"), ROOT / "CHANGELOG.md")
    pages.put(Path("extra.css"), (DOCS / "site" / "extra.css").read_bytes())
    (folder / "mkdocs.yml").write_text(config.replace("src-of-llm", str(ROOT / "src")), encoding="utf-8")
    there = {str(place) for place in pages.done if place.suffix == ".md" and place.parts[0] != "source"}
    listed = [*_listed(yaml.safe_load(config)["nav"])]
    yield from (f"docs/site/mkdocs.yml: {name} is not in nav" for name in sorted(there - {*listed}))
    yield from (f"docs/site/mkdocs.yml: nav names {name}, which is not there" for name in sorted({*listed} - there))


def _listed(nav: Any) -> Iterator[str]:  # noqa: ANN401 - YAML: a page, or a list of titles with theirs
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav:
            for target in entry.values():
                yield from _listed(target)


def built(folder: Path) -> Iterator[str]:
    """Build the site from a folder; tell what went wrong."""
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    environ = os.environ | {"NO_COLOR": "1"}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    if done.returncode or not (folder / "site").is_dir():
        told = done.stdout + done.stderr
        yield told.partition("Traceback")[0] if "--strict flag is set" in told else told
    else:
        yield from faults(folder / "site")


def main() -> int:
    """Build it at `.cache/site`, or where the first argument says; returns the exit status."""
    site = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / ".cache" / "site"
    folder = site.with_name(site.name + "-pages")
    try:
        wrong = [*together(folder)] or [*built(folder)]
    except (OSError, LookupError) as error:
        wrong = [str(error)]
    for each in wrong:
        sys.stderr.write(f"error: {each}\n")
    if not wrong:
        shutil.rmtree(site, ignore_errors=True)
        (folder / "site").rename(site)
        sys.stdout.write(f"{site.relative_to(Path.cwd()) if site.is_relative_to(Path.cwd()) else site}/index.html\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
