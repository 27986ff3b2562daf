"""The commands that decide about single images, and take decisions back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from dreamloom.base.errors import UserError
from dreamloom.base.files.remote import address_of
from dreamloom.base.stage import PathKind
from dreamloom.base.text import printable
from dreamloom.curate.decide import Plan, Word, carry_out, plan_undo, plan_words
from dreamloom.curate.find import FoundImage, find_images
from dreamloom.curate.source import Role, is_collection, is_workspace, workspace_collections
from dreamloom.flows.report.contents import evenly_spaced
from dreamloom.flows.terminal.terminal import print_table, rows_table
from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.collection.decisions import HAND, SUBJECTS, What

SHOWN = 20
"""Decisions that a command shows."""

SWITCH = Parameter(negative="")
Place = Annotated[Path, PathKind.ADDRESS]
"""A project, a workspace or a collection."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Choosing:
    """Flags of all these commands."""

    where: str | None = None
    """Condition on what the tables say, in SQL: "aesthetic < 4 and source = 'web'". It is a rule: what a hand decided
    counts before it."""
    dry_run: Annotated[bool, SWITCH] = False
    """Show the decisions; write nothing."""


@dataclass(frozen=True, kw_only=True)
class Deciding(Choosing):
    """Flags of those that decide."""

    reason: str | None = None
    """Why; shown in the image's history."""

    def word(self, what: What, value: str | None = None) -> Word:
        """Returns what is decided."""
        return Word(what, value, self.reason, HAND if self.where is None else f"where {self.where}")


@dataclass(frozen=True)
class Target:
    """Where images are decided about."""

    name: Path
    """As the user wrote it."""
    collections: Sequence[Collection]
    workspace: Path | None
    """None: of a collection that stands alone."""

    def find(self, images: Sequence[str], where: str | None = None) -> list[FoundImage]:
        """Returns the images that are asked for; see `find_images`."""
        return find_images(self.collections, self.workspace, images, where)


def find_target(name: Path) -> Target:
    """Returns the collections of a project, of its workspace, or one.

    Raises:
        UserError: it is none of these, or the project is wrong.
    """
    if address_of(name):
        there = Collection(name)
        if not any(map(there.parts, Table)):
            raise UserError(f"{there.where} is no collection; name one, and then the images.")
        return Target(name, [there], None)
    folder = name.expanduser().absolute()
    if is_workspace(folder):
        return Target(name, workspace_collections(folder), folder)
    if folder.is_dir() and is_collection(folder):
        above = folder.parent.parent
        return Target(name, [Collection(folder)], above if folder.parent.name == "collections" else None)
    if folder.suffix in (".yaml", ".yml") or (folder / "project.yaml").is_file():
        # here, as it imports the configs of all stages, which a workspace needs not
        from dreamloom.flows.project.project import load_project

        project = load_project(folder)
        return Target(name, [project.collection(source) for source in project.sources], project.workspace)
    raise UserError(
        f"{name} is no project, workspace or collection; name one, and then the images: dreamloom drop project.yaml "
        "IMAGE."
    )


def drop(project: Place, *images: str, flags: Deciding = Deciding()) -> None:
    """Leave images out, whatever the rules of choose say.

    Parameters
    ----------
    project
        Project, its workspace, or a collection, which may be at an address (s3://bucket/people).
    images
        Files of the dataset, of a source or of a collection, keys or their beginnings, or patterns such as "*night*".
    """
    _decide(project, images, flags, [flags.word(What.DROP)])


def keep(project: Place, *images: str, flags: Deciding = Deciding()) -> None:
    """Keep images, whatever the rules of choose say; takes the place of a drop.

    Parameters
    ----------
    project
        Project, its workspace, or a collection, which may be at an address (s3://bucket/people).
    images
        See drop.
    """
    _decide(project, images, flags, [flags.word(What.KEEP)])


def recaption(project: Place, *images: str, caption: str, flags: Deciding = Deciding()) -> None:
    """Give images another caption, word by word: rules of the caption section don't edit it.

    Parameters
    ----------
    project
        Project, its workspace, or a collection, which may be at an address (s3://bucket/people).
    images
        See drop.
    caption
        The caption; it may be empty.
    """
    _decide(project, images, flags, [flags.word(What.CAPTION, caption)])


def crop(
    project: Place,
    *images: str,
    box: str | None = None,
    focus: str | None = None,
    flip: bool | None = None,
    flags: Deciding = Deciding(),
) -> None:
    """Show only a part of images, keep a point of them in sight, or forbid to mirror them. The originals stay.

    Parameters
    ----------
    project
        Project, its workspace, or a collection, which may be at an address (s3://bucket/people).
    images
        See drop.
    box
        LEFT,TOP,RIGHT,BOTTOM in pixels of the collection's image, or in shares of its sides, where all are at most 1.
    focus
        X,Y in shares of the sides (of the box, where there is one): the point that stays as near to the middle as can
        be where training cuts the image to its shapes, such as 0.5,0.2 for a head near the top.
    flip
        Whether training may mirror them, where flip_p says so.
    """
    words = [] if box is None else [flags.word(What.CROP, box)]
    words += [] if focus is None else [flags.word(What.FOCUS, focus)]
    words += [] if flip is None else [flags.word(What.FLIP, "yes" if flip else "no")]
    if not words:
        raise UserError(
            "Name what is shown with --box LEFT,TOP,RIGHT,BOTTOM or --focus X,Y; or say --no-flip or --flip."
        )
    _decide(project, images, flags, words)


def rate(
    project: Place,
    *images: str,
    multiply: str | None = None,
    loss_scale: str | None = None,
    witness: Annotated[bool, SWITCH] = False,
    flags: Deciding = Deciding(),
) -> None:
    """Show images more or less often than the others of their source, or never; or weigh their loss.

    Parameters
    ----------
    project
        Project, its workspace, or a collection, which may be at an address (s3://bucket/people).
    images
        See drop.
    multiply
        How often an image is shown for each time that another of its source is: 2 is twice as often. The ratio of
        ground truth stays as it is.
    loss_scale
        Factor of the loss.
    witness
        Never train on it: it measures what becomes of what is not rehearsed.
    """
    words = [] if multiply is None else [flags.word(What.MULTIPLY, multiply)]
    words += [] if loss_scale is None else [flags.word(What.LOSS_SCALE, loss_scale)]
    words += [flags.word(What.ROLE, Role.WITNESS)] if witness else []
    if not words:
        raise UserError("Name --multiply, --loss-scale or --witness, such as --multiply 2.")
    _decide(project, images, flags, words)


def undo(project: Place, *images: str, what: What | None = None, flags: Choosing = Choosing()) -> None:
    """Take the last decision about images back; without images, all that the last command decided.

    Parameters
    ----------
    project
        Project, its workspace, or a collection, which may be at an address (s3://bucket/people).
    images
        See drop.
    what
        Take back only this; else whatever was decided last of each image.
    """
    target = find_target(project)
    found = target.find(images, flags.where) if images or flags.where is not None else None
    _carry_out(target, plan_undo(target.collections, found, [what] if what else []), flags.dry_run, "taken back")


def _decide(project: Path, images: Sequence[str], flags: Deciding, words: Sequence[Word]) -> None:
    target = find_target(project)
    found = target.find(images, flags.where)
    if not found:
        print("no image meets the condition; nothing was decided")
        return
    _carry_out(target, plan_words(found, words), flags.dry_run, "decided")


def _carry_out(target: Target, plan: Plan, dry_run: bool, done: str) -> None:
    rows = [
        {"source": collection.name, "key": decision.key[:12], "decision": str(decision)}
        for collection, decisions in plan.items()
        for decision in decisions
    ]
    if not rows:
        print("that is decided already")
        return
    if dry_run:
        print_table(rows_table(f"Decisions (at most {SHOWN} of {len(rows):,})", evenly_spaced(rows, SHOWN)))
        print("nothing was written")
        return
    overruled = sum(map(len, plan.values())) - _count_standing(plan)
    counts = carry_out(plan)
    print(f"{done}: {', '.join(f'{count:,} of {printable(source)}' for source, count in counts.items())}")
    if overruled and done == "decided":
        print(f"{overruled:,} of them do not count, as a hand decided otherwise")
    if target.name.suffix in (".yaml", ".yml"):
        print(f"dreamloom run {target.name} makes what hangs on it")


def _count_standing(plan: Plan) -> int:
    """Counts the planned decisions that will count: those by hand, and those of rules where no hand decided."""
    counted = 0
    for collection, decisions in plan.items():
        said = collection.decisions().words
        for decision in decisions:
            by_hand = any(word.who == HAND for word in said.get((decision.key, SUBJECTS[decision.what]), ()))
            counted += decision.who == HAND or not by_hand
    return counted
