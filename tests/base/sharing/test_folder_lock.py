import subprocess
import sys
from pathlib import Path

from dreamloom.base.sharing.folder_lock import is_locked, lock


def test_a_folder_stays_locked_until_the_last_block_ends(tmp_path: Path) -> None:
    with_lock = f"with lock(Path({str(tmp_path)!r})): pass"
    other = f"from pathlib import Path; from dreamloom.base.sharing.folder_lock import lock\n{with_lock}"

    def is_free() -> bool:
        return subprocess.run([sys.executable, "-c", other], capture_output=True).returncode == 0

    with lock(tmp_path):
        with lock(tmp_path):
            assert not is_free()
        assert not is_free() and is_locked(tmp_path / ".lock")
    assert is_free() and is_locked(tmp_path / ".lock") is False and is_locked(tmp_path / "none") is None
