"""Runs the command line as `python -m dreamloom`."""

from dreamloom.flows.cli import main

if __name__ == "__main__":
    main()
