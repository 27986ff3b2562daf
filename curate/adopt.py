"""Makes decisions of what a person changed in dataset/ and heldout/, or puts these back as they were."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit, copy, remove
from dreamloom.base.files.folder_names import FolderNames
from dreamloom.base.files.tree_state import TreeLook
from dreamloom.base.images.pixels import ImageError, decode
from dreamloom.curate.decide import carry_out
from dreamloom.curate.hand_changes import HandChange, look_for_hand_changes
from dreamloom.curate.manifest import manifest_path
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.collection.decisions import HAND, Decision, What, next_time, read_decisions
from dreamloom.scrape.datasets.sidecar_files import find_sidecars

REFUSED = "refused"
"""The folder in a workspace for files of a person's that were not adopted."""
_REASON = "in the training folder"


def describe_hand_changes(changes: Sequence[HandChange]) -> str:
    """Returns what was changed in words: "2 deleted, 1 renamed"."""
    counts = Counter(change.how for change in changes)
    return ", ".join(f"{count:,} {how}" for how, count in counts.items())


def refuse_hand_changes(workspace: Path, anew: bool = False) -> TreeLook | None:
    """Refuses to go on where a person changed the training folder, so that nothing of theirs is overwritten.

    Args:
        workspace: where the training folder is.
        anew: see `dreamloom.curate.hand_changes.look_for_hand_changes`.

    Returns:
        What was seen, where all is as balance made it; None also where there is nothing, or what changed is decided.

    Raises:
        UserError: they did.
    """
    seen, changes = look_for_hand_changes(workspace, anew)
    if changes:
        raise UserError(
            f"{changes[0].file} and its like were changed by hand in {workspace} ({describe_hand_changes(changes)}): "
            f"`dreamloom adopt {workspace}` makes decisions of it, and `dreamloom adopt {workspace} --refuse` puts all "
            "back as it was."
        )
    return seen


def adopt_hand_changes(workspace: Path, changes: Sequence[HandChange]) -> Counter[str]:
    """Takes the decisions that say what a person changed, and counts them by source.

    An image that took another's place is kept in the collection (decisions.images_folder).

    Args:
        workspace: where the changes are.
        changes: those of `find_hand_changes`; those that no decision can say are left alone.

    Raises:
        UserError: an image that took another's place can't be decoded.
    """
    said = [change for change in changes if change.says]
    now = next_time(read_decisions(root) for root in {change.root for change in said})
    for change in said:
        for what, value in change.says:
            if what is What.IMAGE and value is not None:
                _keep_image(workspace / change.file, change.root / value)
    plan: dict[Collection, list[Decision]] = {}
    for change in said:
        for what, value in change.says:
            plan.setdefault(Collection(change.root), []).append(Decision(change.key, now, what, value, _REASON, HAND))
    counts = carry_out(plan)
    _restore_images(changes)
    return counts


def put_back(workspace: Path, changes: Sequence[HandChange]) -> Path | None:
    """Makes the next run put the training folder back as it was. What a person changed or added is kept aside.

    Returns:
        The folder of what was kept; None: there was nothing to keep, as they only deleted.
    """
    aside = workspace / REFUSED / time.strftime("%Y-%m-%d_%H-%M-%S")
    kept = _files_of(workspace, changes)
    for file in kept:
        with commit(aside / file) as temporary:
            copy(workspace / file, temporary)
    _restore_images(changes)
    remove(manifest_path(workspace))
    return aside if kept else None


def _files_of(workspace: Path, changes: Sequence[HandChange]) -> list[str]:
    """Returns the files that are there of what was changed: images, and all that lies beside them under their name."""
    files, changed = list[str](), {change.file for change in changes}
    stems = {os.path.splitext(file)[0] for file in changed}
    for folder in sorted({os.path.dirname(file) for file in changed}):
        with_folders = os.listdir(workspace / folder) if (workspace / folder).is_dir() else []
        names = FolderNames(name for name in with_folders if (workspace / folder / name).is_file())
        images = (name for name in names if f"{folder}/{name}" in changed)
        sidecars = {sidecar for image in images for _, sidecar in find_sidecars(image, names)}
        inside = (f"{folder}/{name}" for name in sorted(names))
        files += [file for file in inside if os.path.basename(file) in sidecars or os.path.splitext(file)[0] in stems]
    return files


def _keep_image(file: Path, target: Path) -> None:
    try:
        decode(file)
    except ImageError as error:
        raise UserError(
            f"{file} took the place of another image, and can't be decoded ({error}); replace it with one that can, or "
            "put all back with dreamloom adopt --refuse."
        ) from None
    if not target.exists():
        with commit(target) as temporary:
            copy(file, temporary)


def _restore_images(changes: Sequence[HandChange]) -> None:
    """Has ingest take originals in again that were changed together with their link in the training folder."""
    for root in {change.root for change in changes if change.in_place}:
        collection = Collection(root)
        keys = {change.key for change in changes if change.in_place and change.root == root}
        for part in collection.parts(Table.RECORDS):
            rows = collection.read(Table.RECORDS, part, ["key", "path"]).to_pylist()
            paths = [row["path"] for row in rows if row["key"] in keys]
            if paths and all(paths):  # of files of this machine; others would be downloaded again
                collection.part_path(Table.RECORDS, part).unlink()
