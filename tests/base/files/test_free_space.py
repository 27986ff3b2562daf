"""A run stops before the disk is full, and says how to make room."""

from pathlib import Path

import pytest

from dreamloom.base.errors import UserError
from dreamloom.base.files.free_space import RESERVE, free_bytes, require_free_space


def test_what_would_leave_less_than_the_reserve_is_refused(tmp_path: Path) -> None:
    new = tmp_path / "not" / "there"
    require_free_space(new)
    with pytest.raises(UserError, match=r"GB are to be written, and 1 GB stay free\. Make room \(`dreamloom clean`"):
        require_free_space(new, free_bytes(new) - RESERVE // 2)
    assert not new.parent.exists()
