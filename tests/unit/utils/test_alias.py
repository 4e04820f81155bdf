from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INSTALLED = "import sys; sys.path.append('src')\n"
NOT_INSTALLED = """
import os, sys
sys.path[:] = [p for p in sys.path if os.path.realpath(p) != os.path.realpath('src')]
"""


@pytest.fixture(params=[INSTALLED, NOT_INSTALLED], ids=["installed", "not installed"])
def run(request: pytest.FixtureRequest, fresh_python: Callable[[str], str]) -> Callable[[str], str]:
    return lambda code: fresh_python(request.param + textwrap.dedent(code))


def test_both_names_are_one_package(run: Callable[[str], str]) -> None:
    run("""
        import src.llm, llm
        assert src.llm is llm
        assert src.llm.LLMException is llm.LLMException
    """)


def test_the_order_of_the_two_imports_does_not_matter(fresh_python: Callable[[str], str]) -> None:
    fresh_python(INSTALLED + "import llm, src.llm; assert src.llm is llm")


@pytest.mark.parametrize(
    "imported",
    [
        "import src.llm.core.exceptions as theirs",
        "from src.llm.core import exceptions as theirs",
        "import importlib; theirs = importlib.import_module('src.llm.core.exceptions')",
        "import src.llm; theirs = src.llm.core.exceptions",
    ],
)
def test_submodules_are_the_same_by_every_way_to_import(run: Callable[[str], str], imported: str) -> None:
    run(f"{imported}\nimport llm.core.exceptions\nassert theirs is llm.core.exceptions")


def test_nothing_below_exists_twice(run: Callable[[str], str]) -> None:
    run("""
        import src.llm.utils.alias, src.llm.core.exceptions, sys
        doubles = [n for n, m in sys.modules.items() if n.startswith('src.llm') and m is not sys.modules[n[4:]]]
        assert not doubles, doubles
    """)


def test_a_module_keeps_its_own_spec(run: Callable[[str], str]) -> None:
    run("""
        import src.llm.core.exceptions, llm.core
        assert llm.__spec__.name == llm.__name__ == 'llm'
        assert llm.core.exceptions.__spec__.name == 'llm.core.exceptions'
        assert not llm.core.exceptions.__spec__._initializing
    """)


def test_an_instance_is_pickled_under_the_real_name(run: Callable[[str], str]) -> None:
    run("""
        import pickle
        from src.llm.core.exceptions import LimitScope, LLMException
        data = pickle.dumps(LLMException)
        assert b'src' not in data and pickle.loads(data) is LLMException
    """)


def test_reloading_keeps_one_package(run: Callable[[str], str]) -> None:
    run("""
        import importlib, sys
        import src.llm as first
        again = importlib.reload(first)
        assert again is first is sys.modules['llm'] is sys.modules['src.llm']
        import src.llm.core.exceptions, llm.core
        assert importlib.reload(src.llm.core.exceptions) is llm.core.exceptions
    """)


def test_importing_anew_after_removal_adds_no_second_finder(run: Callable[[str], str]) -> None:
    run("""
        import sys, src.llm
        before = len(sys.meta_path)
        del sys.modules['src.llm']
        import src.llm, llm
        assert src.llm is llm and len(sys.meta_path) == before
    """)


def test_what_does_not_exist_is_reported_under_the_name_asked_for(run: Callable[[str], str]) -> None:
    run("""
        try:
            import src.llm.nothing
        except ModuleNotFoundError as error:
            assert error.name == 'src.llm.nothing', error.name
        else:
            raise SystemExit('imported')
    """)


def test_a_module_below_can_be_run(run: Callable[[str], str]) -> None:
    run("import runpy; assert runpy.run_module('src.llm.utils.distribution')['__version__']")


def test_an_llm_loaded_from_elsewhere_is_named(fresh_python: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "llm.py").write_text("", encoding="utf-8")
    said = fresh_python(f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import llm
try:
    import src.llm
except ImportError as error:
    print(error)
""")
    assert str(tmp_path / "llm.py") in said
    assert "one of the two only" in said


def test_these_sources_win_over_an_llm_that_is_not_loaded_yet(
    fresh_python: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "llm.py").write_text("", encoding="utf-8")
    fresh_python(f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import src.llm, llm
assert src.llm is llm and llm.LLMException
""")
