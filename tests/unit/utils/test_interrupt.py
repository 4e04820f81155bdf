"""Ctrl-C while the command line loads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from llm.utils.interrupt import hush, is_command_line, speak

if TYPE_CHECKING:
    from pathlib import Path

# Presses Ctrl-C as a module is looked for.
_PRESS = """
import os, signal, sys

class Press:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Press())
"""


def run(root: Path, folder: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "sitecustomize.py").write_text(_PRESS.format(module=module), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(root / "src")])}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False, timeout=30)  # noqa: S603 - our own code


@pytest.mark.parametrize("module", ["llm.core.choices", "llm.core.manager", "llm.runtime", "llm.cli.main", "typer"])
def test_ctrl_c_while_the_command_line_loads_is_130_and_says_nothing(root: Path, tmp_path: Path, module: str) -> None:
    done = run(root, tmp_path, module, "-m", "llm", "chat", "hello")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_while_somebody_elses_program_loads_us_is_theirs(root: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(
        "try:\n    import llm\nexcept KeyboardInterrupt:\n    print('theirs')\n", encoding="utf-8"
    )
    for arguments in (["theirs.py", "-m", "llm"], ["-m", "theirs"]):
        assert run(root, tmp_path, "llm.core.manager", *arguments).stdout == "theirs\n"


@pytest.mark.parametrize(
    ("argv", "orig_argv", "ours"),
    [
        (["-m"], ["python", "-X", "dev", "-m", "llm", "chat"], True),
        (["-m"], ["python", "-mllm"], True),
        (["-m"], ["python", "-m", "myapp", "-m", "llm"], False),
        (["-m"], ["python", "-m"], False),
        (["/opt/bin/manifold", "chat"], ["python", "/opt/bin/manifold", "chat"], True),
        (["manifold.exe"], ["manifold.exe"], True),
        (["server.py", "-m", "llm"], ["python", "server.py", "-m", "llm"], False),
        ([], ["python"], False),
    ],
)
def test_only_the_command_line_is_meant(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], orig_argv: list[str], *, ours: bool
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", orig_argv)
    assert is_command_line() is ours


def test_it_is_hushed_and_speaks_again_and_what_another_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    statuses: list[int] = []
    monkeypatch.setattr(os, "_exit", statuses.append)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        hush()
        signal.raise_signal(signal.SIGINT)
        assert statuses == [130]
        speak()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        hush()
        speak()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.signal(signal.SIGINT, signal.default_int_handler)
        thread = threading.Thread(target=hush)
        thread.start()
        thread.join()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
