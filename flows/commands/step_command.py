"""What the commands of single steps share: flags of a config, a step that is run, folders that are told apart."""

import logging
from pathlib import Path

from cyclopts import Group, Parameter

from dreamloom.base.cpu import keep_freed_memory
from dreamloom.base.errors import UserError
from dreamloom.base.files.remote import address_of
from dreamloom.base.processes import is_main
from dreamloom.base.stop import Unfinished
from dreamloom.curate.source import is_collection
from dreamloom.flows.chain import steps
from dreamloom.flows.terminal.logs import PRINTED, log_to_file
from dreamloom.flows.terminal.terminal import Terminal
from dreamloom.scrape.collection import Collection

_log = logging.getLogger(__name__)

FLAGS = Parameter(name="*")
"""Makes each field of a config a flag."""
LISTS = Parameter(name="*", consume_multiple=True)
"""The same, where a flag of several values takes all that follow it."""
RAY = Parameter(
    name="--ray",
    negative="",
    show_default=False,
    group=Group(
        "Ray", help="With any of these, Ray makes the parts: --ray.num-workers 0 uses all that there is.", sort_key=98
    ),
)


def run_step(step: steps.Step) -> None:
    """Runs a step, shows its progress, logs beside what it makes, and prints the outcome.

    Raises:
        Unfinished: it was asked to stop, and saved its work.
    """
    keep_freed_memory()
    with log_to_file(step.log_folder if is_main() else None):
        with Terminal() as terminal, terminal.watch(step.title) as progress:
            outcome = step.run(progress)
        _log.info("%s", outcome.message, extra=PRINTED)
    if is_main():
        print(outcome.message)
    if not outcome.finished:
        raise Unfinished


def is_plain_folder(path: Path) -> bool:
    """Tells whether the user names a folder that is no collection and no workspace."""
    folder = path.expanduser().absolute()
    return folder.is_dir() and not is_collection(folder)


def refuse_output(collection: Path, output: Path | None) -> None:
    """Refuses an output where a collection is named, which takes the result itself.

    Raises:
        UserError: one is named.
    """
    address = address_of(collection)
    if output is not None and (address or collection.exists()):
        raise UserError(f"{address or collection} is a collection, and takes the result itself; leave --output out.")


def collection_at(path: Path) -> Collection:
    """Returns the collection in a folder, or at an address, that the user names; it need not exist."""
    return Collection(path if address_of(path) else path.expanduser().absolute())
