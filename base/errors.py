"""The exceptions that are meant for the person at the keyboard, and errors as lines of text."""

import errno


class UserError(Exception):
    """A mistake of the user's, as one sentence: what, where, and how to mend it.

    The command line prints it without a traceback and exits with 2.
    """


class StageFailed(Exception):
    """A stage that did its work with too little result, such as a scrape in which almost no image arrived.

    What it made is committed. The command line prints the sentence and exits with 1.
    """


def leaves(error: BaseException) -> list[BaseException]:
    """Returns the exceptions of a group, of whatever depth; of any other exception, itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


def error_line(error: BaseException) -> str:
    """Returns an error as one line, with the notes that were added to it."""
    message = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.errno in _NOT_ALLOWED and error.filename:
        message = f"{error.filename}: {error.strerror}. Change its permissions, or name another place."
    if not isinstance(error, UserError | StageFailed | OSError):
        message = type(error).__name__ if message == type(error).__name__ else f"{type(error).__name__}: {message}"
    notes = getattr(error, "__notes__", [])
    return " ".join(f"{message} ({'; '.join(notes)})".split()) if notes else message
