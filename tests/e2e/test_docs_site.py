"""The site of the docs: it is built without a warning, has every page, and breaks where a page is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]
SITE: Final = ROOT / "docs" / "site"


def run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run code where the site's own modules are found."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(SITE)!r})\n{code}", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - our own code


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = run("from build import main; sys.exit(main())", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    return folder


def test_it_has_every_page_of_docs_and_of_each_door(site: Path) -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / page.with_suffix(".html").name).is_file()
    assert "LLMManager.open" in (site / "reference" / "client.html").read_text(encoding="utf-8")
    assert "batch" in (site / "search.json").read_text(encoding="utf-8")


def test_every_page_of_docs_is_in_the_navigation() -> None:
    config = yaml.safe_load((SITE / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = [*_listed(config["nav"])]
    assert len(listed) == len({*listed})
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= {*listed}


def test_the_readme_names_every_page_but_the_sites_first() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert sorted(name for name in pages if f"](docs/{name})" not in readme) == []


def _listed(nav: Any) -> Iterator[str]:  # noqa: ANN401 - YAML
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav:
            for target in entry.values():
                yield from _listed(target)


def test_what_a_site_lacks_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="here">A</h1><a href="#here"></a><a href="#there"></a><a href="b.html"></a><a href="https://x.example"></a>'
        '<script src="https://cdn.example/a.js"></script><img src="none.png">',
        encoding="utf-8",
    )
    done = run(
        "from links import faults\nfrom pathlib import Path\nprint(*faults(Path(sys.argv[1])), sep='\\n')",
        str(tmp_path),
    )
    assert done.stdout.splitlines() == [
        "a.html: #there leads to no place on its page",
        "a.html: b.html leads to no page",
        "a.html: https://cdn.example/a.js is loaded from elsewhere",
        "a.html: none.png leads to no page",
    ]


def test_links_out_of_docs_lead_to_places_on_the_site_and_code_is_left_alone() -> None:
    text = "[a](../config/llm.yaml#x) [b](https://x.example) ![c](../benchmarks/results/calls-cpu.png)"
    code = "```md\n[d](../no)\n```"
    shown = "[n](../src/llm/telemetry/names.py)"
    done = run(f"{_MOVED}print(there({text!r}), there({code!r}), there({shown!r}), sep=chr(10))")
    assert done.stdout.splitlines() == [
        "[a](reference/configuration.md#x) [b](https://x.example) ![c](benchmarks/calls-cpu.png)",
        *code.splitlines(),
        "[n](source/src/llm/telemetry/names.py.md)",
    ]
    assert "nowhere.md leads to no file" in run(f"{_MOVED}there('[e](nowhere.md)')").stderr


_MOVED: Final = """
from links import ROOT, moved, place_of

def there(text):
    page = ROOT / "docs" / "cache.md"
    return moved(text, page, place_of(page), place_of)

"""
