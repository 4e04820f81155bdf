"""The one blocking manager of the process."""

from __future__ import annotations

import os
import threading
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMConfigurationError
from llm.sync import LLMManager, close_llm_manager, get_llm_manager

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm.testing import MockUpstream

    Of = Callable[..., dict[str, Any]]
    Upstream = Callable[..., MockUpstream]

PLANTED = "plain_planted_key_DELTA"
pytestmark = pytest.mark.usefixtures("nobodys")


def test_however_many_threads_ask_at_once_there_is_one_manager(upstream: Upstream, of: Of) -> None:
    config, made = of(upstream()), list[LLMManager]()
    ready = threading.Barrier(20)

    def ask() -> None:
        ready.wait()
        made.append(get_llm_manager(config))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(made) == 20
    assert len(set(map(id, made))) == 1
    assert get_llm_manager() is made[0]
    assert made[0].get_client().chat("Hello").content == "Hello"


def test_another_configuration_is_refused_and_after_closing_there_is_a_new_one(upstream: Upstream, of: Of) -> None:
    up = upstream()
    first = get_llm_manager(of(up))
    with pytest.raises(LLMConfigurationError, match="close_llm_manager"):
        get_llm_manager(of(up, cache={"backend": "memory"}))
    close_llm_manager()
    close_llm_manager()
    assert first.closed
    second = get_llm_manager(of(up, cache={"backend": "memory"}))
    assert second is not first
    second.close()
    third = get_llm_manager(of(up))
    assert third is not second
    assert third.get_client().chat("Hello").content == "Hello"


def test_no_key_of_a_plain_mapping_is_in_a_traceback() -> None:
    with pytest.raises(LLMConfigurationError, match="zzz") as caught:
        get_llm_manager({"providers": {"openai": {"api_keys": [PLANTED], "models": ["m"], "zzz": 1}}})
    frames = traceback.StackSummary.extract(traceback.walk_tb(caught.value.__traceback__), capture_locals=True)
    assert PLANTED not in "".join(repr(frame.locals) for frame in frames if frame.filename != __file__)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_gets_a_fresh_one_and_is_told_so_by_the_parents(upstream: Upstream, of: Of) -> None:
    config = of(upstream())
    manager = get_llm_manager(config)
    client = manager.get_client()
    assert client.chat("parent").content == "parent"
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            fresh = get_llm_manager(config)
            told = [str(fresh is manager), fresh.get_client().chat("child").content]
            try:
                client.chat("never")
            except RuntimeError as error:
                told.append(str(error))
            os.write(writing, "|".join(told).encode())
        finally:
            os._exit(0)
    os.close(writing)
    told = os.read(reading, 1000).decode().split("|")
    os.close(reading)
    assert os.waitpid(child, 0)[1] == 0
    assert told[:2] == ["False", "child"]
    assert "before the process forked" in told[2]
    assert client.chat("parent again").content == "parent again"
