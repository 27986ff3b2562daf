"""The entry of the command line: `dreamloom`, and `python -m dreamloom`."""

import gc
import os
import signal


def main() -> None:
    """Runs the command line. Until it is imported and can answer Ctrl-C itself, Ctrl-C ends the process, silently."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.disable()  # imports leave no garbage, and the search for it was a fifth of `status`; run enables it again
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # it would read what each installed package declares
    from dreamloom.flows.commands.cli import main as run

    run()


if __name__ == "__main__":
    main()
