"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """What the user did wrong, in one sentence: what, where, and how to mend it.

    The command line prints it without a traceback and exits with 2.
    """


class StageFailed(Exception):
    """A stage that did its work and came to too little, such as a scrape that almost no image came from.

    What it made is committed. The command line prints the sentence, and exits with 1.
    """
