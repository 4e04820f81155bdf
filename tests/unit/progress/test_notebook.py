from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from llm.progress import Progress
from llm.progress.notebook import html, in_notebook

if TYPE_CHECKING:
    from collections.abc import Callable

# A real shell with what makes a kernel of it; a display in it goes to the list.
CELL = """
import json, os
os.environ.pop("VIRTUAL_ENV", None)  # IPython warns where the suite is run from another environment
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.kernel = object()
published = []

def publish(data, metadata=None, *, transient=None, update=False):
    published.append([data, update, transient])

shell.display_pub.publish = publish
shell.user_ns["published"] = published
shell.run_cell('''
import sys
sys.path.insert(0, "src")
from llm.progress import ProgressTracker, show
tracker = ProgressTracker()
tracker.begin(2)
with show(tracker) as shown:
    while len(published) < 2:
        shown._left.wait(0.01)
    tracker.failed("LLMAPIError")
''', store_history=False).raise_error()
print(json.dumps(published))
"""


def test_one_output_of_the_cell_is_replaced(fresh_python: Callable[[str], str]) -> None:
    first, *others = json.loads(fresh_python(CELL))
    data, update, transient = first
    assert data["text/plain"] == "0 of 2 rows (0 %), 0.0 rows/s"
    assert data["text/html"].startswith('<div><progress max="1" value="0.0000"></progress> <b>0 of 2 rows (0 %)</b>')
    assert update is False
    assert [(again, name) for _, again, name in others] == [(True, transient)] * len(others)
    assert "1 of 2 rows (50 %) in " in others[-1][0]["text/plain"]
    assert len(others) >= 2


def test_a_shell_that_is_no_kernel_is_no_notebook(fresh_python: Callable[[str], str]) -> None:
    code = """
import os, sys
os.environ.pop("VIRTUAL_ENV", None)
sys.path.insert(0, "src")
from IPython.core.interactiveshell import InteractiveShell
from llm.progress.notebook import in_notebook
print(in_notebook(), InteractiveShell.instance() is not None, in_notebook())
"""
    assert fresh_python(code).split() == ["False", "True", "False"]


def test_without_ipython_there_is_no_notebook_and_it_is_not_loaded() -> None:
    assert "IPython" in sys.modules or not in_notebook()
    assert not in_notebook()


def test_names_are_text_and_no_html() -> None:
    told = Progress(total=4, failed=1, errors={"<b>x": 1}, saturation={"a<script>&": 0.5}, waiting='<img src="x">')
    page = html(told)
    assert "<b>x" not in page
    assert "<script" not in page
    assert "<img" not in page
    assert "a&lt;script&gt;&amp;</td>" in page
    assert '<progress max="1" value="0.5000"></progress> 50 %' in page


def test_the_last_state_has_no_keys_and_no_bar_that_moves() -> None:
    told = Progress(answered=1, saturation={"a": 0.5})
    assert html(told).startswith('<div><progress max="1"></progress> <b>1 rows</b>')
    assert html(told, ended=True).startswith("<div> <b>1 rows</b>")
    assert ">a<" not in html(told, ended=True)


def test_of_very_many_keys_the_fullest_are_shown() -> None:
    page = html(Progress(saturation={f"key {number}": number / 100 for number in range(30)}))
    assert "and 20 more" in page
    assert page.count("key ") == 10
