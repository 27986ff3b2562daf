"""What `plan` warns of: ground truth too small or too narrow, what will hardly be measured, and a full disk."""

from collections import Counter
from collections.abc import Mapping, Sequence

from dreamloom.base.files.free_space import RESERVE, free_bytes
from dreamloom.curate.manifest import manifest_path
from dreamloom.curate.rehearsal import Shown, warnings
from dreamloom.curate.source import Role
from dreamloom.flows.chain.train_steps import SAMPLES
from dreamloom.flows.plan.forecast import Sizes, held_out_counts, most_images, source_multiplies, surplus
from dreamloom.flows.plan.planned_steps import PlannedStep
from dreamloom.flows.project.project import Project
from dreamloom.flows.terminal.tables import balance_rows
from dreamloom.flows.terminal.terminal import size
from dreamloom.train.evaluate.statistics import MIN_UNITS
from dreamloom.train.families.memory import estimate_disk, estimate_memory
from dreamloom.train.plan import Plan


def rehearsal_warnings(project: Project, plan: Plan) -> list[str]:
    """Returns what of the training folder is too small or too narrow (dreamloom.curate.rehearsal)."""
    captions: dict[str, Counter[str]] = {}
    for name, caption in plan.captions:
        captions.setdefault(name.partition("/")[0], Counter())[caption] += 1
    training = project.sources_of(Role.TRAINING)
    return warnings(
        [
            Shown(f.name, f.name in training, f.images, f.images_per_epoch, captions.get(f.name, {}))
            for f in plan.folders
            if f.name in project.sources
        ]
    )


def expected_warnings(project: Project, sizes: Sizes) -> list[str]:
    """Returns the same before there is a training folder, by the images that each source gives at most."""
    images = _all_images(project, sizes)
    training, ground_truth = project.sources_of(Role.TRAINING), project.sources_of(Role.GROUND_TRUTH)
    shown = sum(images.get(name, 0) * project.sources[name].multiply for name in training)
    if shown < 1 or not any(images.get(name) for name in ground_truth):
        return []
    multiplies = source_multiplies(project, images)
    return warnings(
        [Shown(name, name in training, images[name], images[name] * m, {}) for name, m in multiplies.items()]
    )


def measurement_warnings(project: Project, sizes: Sizes) -> list[str]:
    """Returns what will not be measured, or hardly, and what would do; by the dataset as it is, else by the sources."""
    warned = []
    if not project.sources_of(Role.GROUND_TRUTH):
        warned.append(
            "no source has role: ground_truth, so nothing of what the base model knows is rehearsed, and what it "
            "forgets is not measured; add one, such as COCO or a folder of photos."
        )
    if project.balance.held_out == 0:
        return [
            *warned,
            "balance.held_out is 0, so neither learned nor forgotten is measured, and the last checkpoint is exported, "
            "not the best; 0.1 holds out a tenth.",
        ]
    counts, images = _count_held_out(project, sizes), _all_images(project, sizes)
    for role, measured in ((Role.TRAINING, "learned"), (Role.GROUND_TRUTH, "forgotten")):
        names = project.sources_of(role)
        count = sum(counts.get(name, 0) for name in names)
        if counts and names and count < MIN_UNITS:
            warned.append(
                f"too few images of role {role} are held out ({count}) for an interval of what is {measured}; "
                f"{MIN_UNITS} would do: raise balance.held_out, or add images."
            )
        if count > sum(images.get(name, 0) for name in names) / 2 > 0:
            warned.append(
                f"more images of role {role} are held out ({count}) than are left to train on; lower balance.held_out: "
                "0.1 holds out a tenth."
            )
    return warned


def _count_held_out(project: Project, sizes: Sizes) -> Mapping[str, int]:
    """Counts the held-out images of each source; nothing where a source's size is not known before it was read."""
    if manifest_path(project.workspace).exists():
        return {row["source"]: row["held out"] for row in balance_rows(project.workspace)[:-1]}
    images = _all_images(project, sizes)
    return held_out_counts(project, images) if images else {}


def _all_images(project: Project, sizes: Sizes) -> dict[str, int]:
    """Returns how many images each source gives at most; nothing where one is not known."""
    counts = {name: most_images(project, name, size) for name, size in sizes.items()}
    known = {name: count - surplus(project, name, count) for name, count in counts.items() if count is not None}
    return known if len(known) == len(counts) else {}


def disk_warnings(project: Project, steps: Sequence[PlannedStep]) -> list[str]:
    """Returns a warning where the steps, as far as that is known, will write more than the disk has room for."""
    needed = sum(step.bytes or 0 for step in steps) + _checkpoint_bytes(project, steps)
    free = free_bytes(project.workspace)
    if needed + RESERVE <= free:
        return []
    return [
        f"the run will write about {size(needed)}, and the disk of {project.workspace} has {size(free)} free, of which "
        f"{size(RESERVE)} stay free: it will stop there. `dreamloom clean` and `dreamloom prune` make room."
    ]


def _checkpoint_bytes(project: Project, steps: Sequence[PlannedStep]) -> int:
    """Returns what the checkpoints of a run take that is still to be trained; 0 where that is not known."""
    train = project.train_config()
    trains = any(step.step.stage == "train" and step.stale_parts not in ([], [SAMPLES]) for step in steps)
    memory = estimate_memory(train) if trains else None
    return estimate_disk(train, memory) if memory else 0
