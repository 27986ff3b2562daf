"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """What the user did wrong, in one sentence: what, where, and how to mend it.

    The command line prints it without a traceback and exits with 2.
    """
