"""Completion by the tab key, in a real shell."""

import shutil
import subprocess
from pathlib import Path

import pytest

from dreamloom.flows.commands.cli import run

SCRIPT = """
source "$1"
try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _dreamloom; echo "${COMPREPLY[*]}"; }
try dreamloom pl
try dreamloom train pictures out --lora-k
try dreamloom train pictures out --lora-kind d
try dreamloom run --until sc
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_flags_and_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "bash"]) == 0
    (tmp_path / "dreamloom").write_text(capsys.readouterr().out)
    command = ["bash", "-c", SCRIPT, "bash", str(tmp_path / "dreamloom")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["plan", "--lora-kind", "dora", "scrape score"], done.stderr
