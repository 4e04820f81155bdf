"""`manifold batch` through a vendor's batch API, from its options to its exit status."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from llm import LLMInvalidRequestError
from llm.batch.remote.ledger import Ledger, Plan
from llm.cli.foretelling import foretell
from llm.cli.job import Job
from llm.cli.remote import run
from llm.cli.shell import Shell
from llm.testing import Fault, MockUpstream

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    Served = Callable[..., AbstractContextManager[MockUpstream]]


def job(folder: Path, base_url: str, **options: Any) -> Job:  # noqa: ANN401 - those of a job
    section = f"{{base_url: '{base_url}', api_keys: [k], models: [gpt-4o-mini]}}"
    (folder / "llm.yaml").write_text(f"providers: {{openai: {section}}}\n")
    rows = [
        {
            "custom_id": f"r{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9},
        }
        for number in range(3)
    ]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given: dict[str, Any] = {
        "shell": Shell(folder / "llm.yaml", json=False, quiet=False),
        "source": str(folder / "in.jsonl"),
        "output": str(folder / "out.jsonl"),
        "engine": "openai-batch",
        "concurrency": 64,
        "restart": False,
        "ordered": False,
        "cancel": False,
    }
    names = ("errors", "provider", "model", "prompt", "system", "id_column")
    absent: dict[str, Any] = dict.fromkeys(names)
    return Job(**{**absent, **given, **options})


def test_a_run_ends_with_its_counts(tmp_path: Path, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    with served() as up:
        asked = job(tmp_path, up.base_url)
        asked.check(dry_run=False)
        assert asyncio.run(foretell(asked)) == 0
        assert "It goes over in 1 batch, at the price of batches" in capsys.readouterr().err
        assert asyncio.run(run(asked)) == 0
        assert "rows: 3 answered\n" in capsys.readouterr().err
        assert asyncio.run(run(asked)) == 0
        assert "3 of 3 rows done already\n" in capsys.readouterr().err
        assert asyncio.run(run(job(tmp_path, up.base_url, cancel=True))) == 0
        assert "out.jsonl is at a vendor\n" in capsys.readouterr().err


def test_a_run_that_stops_says_how_to_go_on(tmp_path: Path, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    with served(faults=[Fault("invalid", route="GET */batches/*")]) as up:
        assert asyncio.run(run(job(tmp_path, up.base_url))) == 2
        said = capsys.readouterr().err
        assert "and 1 batch goes on at the vendor with 3 rows: run the same command again to collect" in said
        told = job(tmp_path, up.base_url)
        assert asyncio.run(foretell(told)) == 0
        assert "Done already: 3 rows." in capsys.readouterr().err
        assert asyncio.run(run(told)) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "local"}, "10 rows for .* are in batches of openai-batch"),
        ({"engine": "local", "cancel": True}, "name whose: --engine openai-batch"),
        ({"cancel": True, "restart": True}, "neither --dry-run nor --restart"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    ledger = Ledger(tmp_path / "out.jsonl", "openai-batch")
    ledger.open()
    asyncio.run(ledger.planned([Plan(1, "openai", "/v1/x", "m", 10)]))
    ledger.close()
    with pytest.raises(LLMInvalidRequestError, match=said):
        job(tmp_path, "http://127.0.0.1:9", **options).check(dry_run=False)
