"""`dreamloom adopt`, and what `run` does about changes that were made by hand in the training folder."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from dreamloom.base.errors import UserError
from dreamloom.base.files.image_types import is_image_name
from dreamloom.base.sharing.folder_lock import lock
from dreamloom.base.text import printable
from dreamloom.curate.adopt import adopt_hand_changes, describe_hand_changes, put_back
from dreamloom.curate.hand_changes import HandChange, find_hand_changes
from dreamloom.flows.commands.decisions import SHOWN, SWITCH, find_target
from dreamloom.flows.project.workspace import PROJECT, relative_to_cwd
from dreamloom.flows.report.contents import evenly_spaced
from dreamloom.flows.terminal.terminal import print_table, rows_table

_OTHERWISE = {
    "added": "move it into the folder of a source, and it is taken in; or remove it",
    "moved": "move it back; a source is set in project.yaml",
    "set otherwise": "set it in project.yaml (multiply, share, balance.ratio, flip_p); or put it back",
}
"""Change that no decision can say → what to do instead."""


def adopt(
    project: Path = PROJECT, *, refuse: Annotated[bool, SWITCH] = False, dry_run: Annotated[bool, SWITCH] = False
) -> None:
    """Make decisions of what you changed by hand in dataset/ and heldout/: images deleted or replaced, new captions.

    Parameters
    ----------
    project
        Project, or its workspace.
    refuse
        Put all back as it was instead. Files that you changed or added are kept in WORKSPACE/refused.
    dry_run
        Show the changes; write nothing.
    """
    workspace = find_target(project).workspace
    if workspace is None:
        raise UserError(f"{project} is a collection, which has no training folder; name a project or its workspace.")
    changes = find_hand_changes(workspace)
    if not changes:
        print("nothing was changed by hand")
        return
    _show(changes)
    if dry_run:
        print("nothing was written")
    elif refuse:
        with lock(workspace):
            aside = put_back(workspace, changes)
        print(f"put back by the next run{f'; yours is kept in {relative_to_cwd(aside)}' if aside else ''}")
    else:
        _adopt(workspace, changes)


def settle_hand_changes(project: Path, workspace: Path, adopting: bool) -> None:
    """Adopts what was changed by hand, if that is asked for; asks where somebody can answer.

    Raises:
        UserError: nobody can answer, or the answer is no; or something was changed that no decision can say.
    """
    changes = find_hand_changes(workspace)
    if not changes:
        return
    _show(changes)
    told = (
        f"The training folder was changed by hand ({describe_hand_changes(changes)}): `dreamloom adopt {project}` "
        f"makes decisions of it (or run --adopt), and `dreamloom adopt {project} --refuse` puts all back as it was."
    )
    if not adopting and not (_can_answer() and _asks()):
        raise UserError(told)
    _adopt(workspace, changes)


def warn_of_hand_changes(project: Path, workspace: Path) -> list[str]:
    """Returns a sentence where the training folder was changed by hand."""
    changes = find_hand_changes(workspace)
    told = f"the training folder was changed by hand ({describe_hand_changes(changes)}), so run would stop and ask"
    return [f"{told}; see `dreamloom adopt {project} --dry-run`."] if changes else []


def _can_answer() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _asks() -> bool:
    return input("Make decisions of these changes? [y/n] ").strip().lower() in ("y", "yes")


def _adopt(workspace: Path, changes: Sequence[HandChange]) -> None:
    """Takes the decisions.

    Raises:
        UserError: something was changed that no decision can say.
    """
    with lock(workspace):
        counts = adopt_hand_changes(workspace, changes)
    if counts:
        print(f"decided: {', '.join(f'{count:,} of {printable(source)}' for source, count in counts.items())}")
    left = {_otherwise(change): change for change in changes if not change.says}
    if left:
        lines = (f"{workspace / change.file} ({change.how}): {what}." for what, change in left.items())
        raise UserError("\n".join(lines))


def _otherwise(change: HandChange) -> str:
    if change.how == "added" and not is_image_name(change.file):
        return "move it elsewhere, as the training folder is made anew"
    return _OTHERWISE[change.how]


def _show(changes: Sequence[HandChange]) -> None:
    rows = [
        {
            "file": change.file,
            "was": change.how,
            "decision": ", ".join(f"{what}: {value}" if value is not None else str(what) for what, value in change.says)
            or "none says this",
        }
        for change in changes
    ]
    title = f"Changed by hand ({len(rows):,})" if len(rows) <= SHOWN else f"{SHOWN} of {len(rows):,} changed by hand"
    print_table(rows_table(title, evenly_spaced(rows, SHOWN)))
