"""What stands for an object of the background loop touches it there only."""

from __future__ import annotations

import pickle
import threading
from typing import TYPE_CHECKING

import pytest

from llm.sync.facade import Facade, at_home, blocking
from llm.sync.portal import Portal

if TYPE_CHECKING:
    from collections.abc import Iterator


class Thing:
    def where(self, times: int = 1) -> list[int]:
        """Tell the thread."""
        return [threading.get_ident()] * times

    async def waited(self, times: int = 1) -> list[int]:
        """Tell the thread, too."""
        return [threading.get_ident()] * times


class Blocking(Facade[Thing]):
    where = at_home(Thing.where)
    waited = blocking(Thing.waited)


@pytest.fixture
def thing() -> Iterator[Blocking]:
    home = Portal()
    yield Blocking(Thing(), home)
    home.end()


def test_methods_run_in_the_loops_thread_whether_they_wait_or_not(thing: Blocking) -> None:
    assert thing.where() == thing.waited()
    assert threading.get_ident() not in thing.where()
    assert len(thing.where(3)) == len(thing.waited(times=3)) == 3


def test_methods_keep_their_names_and_their_words() -> None:
    assert (Blocking.where.__doc__, Blocking.waited.__doc__) == ("Tell the thread.", "Tell the thread, too.")
    assert Blocking.waited.__name__ == "waited"


def test_it_does_not_go_to_another_process_and_says_what_to_do_there(thing: Blocking) -> None:
    with pytest.raises(TypeError, match=r"a blocking Blocking stays in its process; call get_llm_manager\(\) in the"):
        pickle.dumps(thing)
