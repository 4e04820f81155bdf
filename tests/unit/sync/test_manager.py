"""The life of a blocking manager."""

from __future__ import annotations

import json
import threading
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from tests.patience import PATIENCE

from llm import LLMConfigurationError, LLMConnectionError, LLMPoolExhaustedError
from llm.sync import LLMManager
from llm.testing import FakeClock, RecordingMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llm.testing import MockUpstream

    Of = Callable[..., dict[str, Any]]
    Upstream = Callable[..., MockUpstream]

PLANTED = "plain_planted_key_GAMMA"


def test_a_manager_is_opened_from_a_file_used_and_closed_by_with(upstream: Upstream, of: Of, tmp_path: Path) -> None:
    path = tmp_path / "llm.yaml"
    path.write_text(json.dumps(of(upstream())), encoding="utf-8")
    with LLMManager.open(path) as manager:
        assert manager.get_client("openai", model="gpt-4o-mini", user="ada").chat("Hello").content == "Hello"
        assert manager.config.default_provider == "openai"
        assert not manager.closed
    assert manager.closed
    with pytest.raises(LLMPoolExhaustedError, match="closed"):
        manager.get_client().chat("Hello")
    manager.close()


def test_a_manager_that_is_kept_is_closed_by_hand(upstream: Upstream, of: Of) -> None:
    manager = LLMManager.open(of(upstream()))
    assert manager.get_client().chat("Hello").content == "Hello"
    manager.close(drain=0.0)
    assert manager.closed


def test_it_tells_what_it_did_and_would_do(upstream: Upstream, of: Of) -> None:
    with LLMManager.open(of(upstream(), cache={"backend": "memory"})) as manager:
        client = manager.get_client()
        assert [client.chat("Hello").cached for _ in range(2)] == [False, True]
        metrics = manager.get_status()["metrics"]
        assert (metrics["total_requests"], metrics["cache"]["hits"]) == (2, 1)
        assert [sum(each.calls.values()) for each in manager.measured().models if each.model] == [2]
        assert manager.explain("Hello").admitted
        assert manager.health_check()["openai"].healthy
        assert manager.invalidate_cache(model="gpt-4o-mini") == 1
        manager.clear_cache()
        assert not client.chat("Hello").cached


def test_a_reload_is_in_force_for_the_clients_that_there_are(upstream: Upstream, of: Of) -> None:
    one, other = upstream(), upstream()
    with LLMManager.open(of(one)) as manager:
        client = manager.get_client()
        client.chat("first")
        manager.reload(of(other))
        client.chat("second")
        assert (len(one.requests), len(other.requests)) == (1, 1)


def test_layers_and_transport_and_clock_go_along(upstream: Upstream, of: Of) -> None:
    up = upstream()
    events: list[str] = []
    layer = RecordingMiddleware("mine", events)
    with LLMManager.open(of(up), transport=up.transport(), clock=FakeClock(auto=True)) as manager:
        assert manager.get_client(middleware=[layer]).chat("Hello").content == "Hello"
    assert events[0] == "mine:in"


def test_after_an_exception_calls_are_not_waited_for(
    upstream: Upstream, of: Of, soon: Callable[[Callable[[], bool]], bool]
) -> None:
    up, failures = upstream(service=60.0), list[BaseException]()

    def wait(manager: LLMManager) -> None:
        try:
            manager.get_client().chat("never")
        except LLMConnectionError as error:
            failures.append(error)

    manager = LLMManager.open(of(up))
    thread = threading.Thread(target=wait, args=(manager,))
    thread.start()
    assert soon(lambda: up.active == 1)
    with pytest.raises(ZeroDivisionError), manager:
        _ = 1 / 0
    thread.join(PATIENCE)
    assert len(failures) == 1


@pytest.mark.parametrize("way", ["open", "reload"])
def test_no_key_of_a_plain_mapping_is_in_a_traceback(way: str, upstream: Upstream, of: Of) -> None:
    bad = {"providers": {"openai": {"api_keys": [PLANTED], "models": ["m"], "zzz": 1}}}
    with LLMManager.open(of(upstream())) as manager, pytest.raises(LLMConfigurationError, match="zzz") as caught:
        getattr(manager, way)(bad)
    frames = traceback.StackSummary.extract(traceback.walk_tb(caught.value.__traceback__), capture_locals=True)
    assert PLANTED not in "".join(repr(frame.locals) for frame in frames if frame.filename != __file__)
