"""How the process of a tracked run ends."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """
import sys
from rich.console import Console
from dreamloom.flows.server.ending import survive_closed_streams
kept = Console(file=sys.stderr)  # as a handler of logs keeps it
survive_closed_streams()
print("begun", flush=True)
sys.stdin.read(1)
print("nobody reads this", flush=True)
kept.print("nor this")
sys.exit(7)
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks where descriptors lead")
def test_a_process_goes_on_when_nobody_reads_its_output_any_more() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=pipe, stdout=pipe, stderr=pipe) as child:
        assert child.stdin and child.stdout and child.stderr
        assert child.stdout.readline() == b"begun\n"
        child.stdout.close()
        child.stderr.close()
        outputs = [Path(f"/proc/{child.pid}/fd/{descriptor}") for descriptor in (1, 2)]
        deadline = time.monotonic() + 60
        while any(os.readlink(output) != os.devnull for output in outputs) and time.monotonic() < deadline:
            time.sleep(0.01)
        child.stdin.write(b"!")
        child.stdin.close()
        assert child.wait(60) == 7
