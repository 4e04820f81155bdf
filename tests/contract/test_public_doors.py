"""Each door's public names, as a literal: what is not here may change, what is here may not."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]

FRONT_DOOR = [
    "Admission",
    "CachePolicy",
    "CallNext",
    "EmbeddingResponse",
    "HealthStatus",
    "ImagePart",
    "LLMAuthenticationError",
    "LLMCircuitOpenError",
    "LLMClient",
    "LLMConfig",
    "LLMConfigurationError",
    "LLMConnectionError",
    "LLMContentFilterError",
    "LLMContextLengthError",
    "LLMException",
    "LLMInvalidRequestError",
    "LLMManager",
    "LLMOverloadedError",
    "LLMPoolExhaustedError",
    "LLMProvider",
    "LLMProviderError",
    "LLMQuotaExceededError",
    "LLMRateLimitError",
    "LLMRequest",
    "LLMResponse",
    "LLMResult",
    "LLMServerError",
    "LLMStream",
    "LLMStreamInterruptedError",
    "LLMTimeoutError",
    "LLMValidationError",
    "Message",
    "MessageRole",
    "Middleware",
    "Provider",
    "StreamChunk",
    "TextPart",
    "ThinkingPart",
    "TokenStats",
    "TokenUsage",
    "ToolCall",
    "ToolDefinition",
    "close_llm_manager",
    "get_llm_manager",
    "register_provider",
]
# Public too, where the contract leaves the names open.
OF_OUR_OWN = [
    "AudioPart",
    "CachePoint",
    "Choice",
    "ConfigProblem",
    "DocumentPart",
    "Part",
    "ProviderSettings",
    "TokenLogprob",
    "ToolCallDelta",
    "VendorPart",
    "__version__",
]

DOORS = {
    "llm": sorted([*FRONT_DOOR, *OF_OUR_OWN]),
    "llm.batch": [
        "Forecast",
        "RequestBatch",
        "RequestManager",
        "ResponseWrapper",
        "Summary",
        "Tally",
        "cancel_remote",
        "count_records",
        "read_table",
        "run_file",
        "run_remote",
    ],
    "llm.middleware": [
        "CacheMiddleware",
        "LoggingMiddleware",
        "MetricsMiddleware",
        "RateLimitMiddleware",
        "RetryMiddleware",
    ],
    "llm.cache": ["CacheBackend", "DiskCache", "InMemoryCache", "RedisCache", "compute_request_hash"],
    "llm.providers": ["Flavor", "OpenAICompatible", "SERVERS", "Server", "Way", "shaped"],
    "llm.progress": ["Progress", "ProgressTracker", "show"],
    "llm.sync": ["LLMClient", "LLMManager", "close_llm_manager", "get_llm_manager"],
    "llm.testing": ["BatchScript", "FakeClock", "FakeProvider", "Fault", "MockUpstream", "RecordingMiddleware"],
}


@pytest.mark.parametrize("door", DOORS)
def test_a_door_shows_exactly_these_names(door: str) -> None:
    assert sorted(import_module(door).__all__) == DOORS[door]


@pytest.mark.parametrize(("door", "name"), [(door, name) for door, names in DOORS.items() for name in names])
def test_each_name_of_a_door_is_there(door: str, name: str) -> None:
    assert getattr(import_module(door), name) is not None


def test_dir_lists_the_front_doors_names_for_notebooks() -> None:
    assert set(DOORS["llm"]) <= set(dir(import_module("llm")))


@pytest.mark.parametrize("door", DOORS)
def test_each_public_name_has_a_docstring(door: str) -> None:
    module = import_module(door)
    undocumented = [name for name in DOORS[door] if callable(found := getattr(module, name)) and not found.__doc__]
    assert (module.__doc__ or "") != ""
    assert undocumented == []


def test_the_local_provider_has_its_engine(named: Callable[[str], Any]) -> None:
    assert isinstance(named("llm.providers.local:InferenceEngine"), type)


def test_a_name_that_is_not_there_is_an_attribute_error_that_says_so() -> None:
    with pytest.raises(AttributeError, match="LLMManger"):
        _ = import_module("llm").LLMManger


def test_the_console_script_is_python_m_llm() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "llm-manifold"
    assert project["scripts"] == {"manifold": "llm.__main__:main"}
    assert callable(import_module("llm.__main__").main)


def test_pytest_finds_the_doubles_by_its_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"llm": "llm.testing.plugin"}
    assert import_module("llm.testing.plugin").__doc__


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "src" / "llm" / "py.typed").is_file()


SAME_OBJECTS = """
import src.llm
from src.llm import LLMException, get_llm_manager
from src.llm.core.exceptions import LLMException as deep
import llm
assert src.llm is llm, (src.llm, llm)
assert get_llm_manager is llm.get_llm_manager
assert deep is LLMException is llm.LLMException
"""


def test_src_llm_from_a_checkouts_root_is_the_same_module() -> None:
    done = subprocess.run(  # noqa: S603 - our own interpreter on our own text
        [sys.executable, "-c", SAME_OBJECTS],
        cwd=ROOT,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
