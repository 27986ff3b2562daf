"""Memory is kept where glibc allows it, and the process goes on."""

import platform
import subprocess
import sys

import pytest

from dreamloom.base.cpu import has_bf16

SCRIPT = """
from dreamloom.base.cpu import keep_freed_memory
print(keep_freed_memory(), keep_freed_memory())
blocks = [bytearray(2**24) for _ in range(8)]
print(sum(len(block) for block in blocks))
"""


def test_it_says_whether_it_took_effect_and_memory_still_works() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    effect = str(platform.system() == "Linux" and platform.libc_ver()[0] == "glibc")
    assert done.stdout.split() == [effect, effect, str(2**27)]


FAULTS = """
import resource, sys
from dreamloom.base.cpu import keep_freed_memory
if sys.argv[1] == "keep": keep_freed_memory()
for _ in range(8):
    block = bytearray(2**26)
    block[:: 4096] = b"x" * len(block[:: 4096])
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_memory_that_is_kept_does_not_fault_again() -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert faults("keep") < faults("as it comes") / 3


def test_bf16_is_seen_where_torch_sees_it() -> None:
    torch = pytest.importorskip("torch")
    if torch.cpu._is_avx512_bf16_supported():
        assert has_bf16()
