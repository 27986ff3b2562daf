"""Errors are told as lines that name what is wrong and the mend."""

import errno

from dreamloom.base.errors import error_line


def test_a_place_that_may_not_be_written_is_told_with_the_mend() -> None:
    refused = error_line(OSError(errno.EROFS, "Read-only file system", "/mnt/x"))
    assert refused == "/mnt/x: Read-only file system. Change its permissions, or name another place."
    assert error_line(OSError(errno.EIO, "Input/output error", "/mnt/x")) == "[Errno 5] Input/output error: '/mnt/x'"
