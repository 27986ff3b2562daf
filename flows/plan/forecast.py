"""What a run would train on, before its dataset is made: from headers and counts of the sources. Writes nothing."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Literal

import pyarrow.compute as pc

from dreamloom.base.errors import UserError
from dreamloom.base.files.file_index import WholeFile, content_hashes
from dreamloom.base.images.buckets import find_bucket
from dreamloom.base.images.pixels import ImageError, read_header
from dreamloom.base.stage import reasons
from dreamloom.base.threads import map_ordered
from dreamloom.caption.sidecar import read_caption
from dreamloom.curate.balance import solve_multiplies
from dreamloom.curate.held_out import at_most, count_held_out
from dreamloom.curate.source import Role
from dreamloom.flows.project.project import Project
from dreamloom.flows.project.sources import kind_of
from dreamloom.scrape.collection import Choice, Collection, Status, Table
from dreamloom.scrape.collection.decisions import What
from dreamloom.scrape.datasets.folder import FolderConfig, read_captions
from dreamloom.scrape.datasets.image_files import find_images
from dreamloom.scrape.datasets.source_kind import SourceSize
from dreamloom.train.families.memory import MemoryEstimate, estimate_disk, estimate_memory

Sizes = Mapping[str, SourceSize]
"""Source → how much it has to offer."""

MAX_HEADERS = 20_000
"""Images of a source whose headers are read."""


@dataclass(frozen=True)
class SourceForecast:
    """What becomes of a source's images, as far as that is sure."""

    name: str
    role: Role
    images: int
    """That the source has, or that are left of it where the next stage is done."""
    drops: Mapping[str, int]
    """Reason → images that will surely be left out."""
    held_out: int
    basis: str
    """Where the count comes from."""
    multiply: Fraction = Fraction(0)

    @property
    def trained(self) -> int:
        """Images that are trained on; of a witness, none."""
        return 0 if self.role is Role.WITNESS else max(0, self.images - sum(self.drops.values()) - self.held_out)


@dataclass(frozen=True)
class Forecast:
    """A training run whose dataset is not made yet."""

    sources: tuple[SourceForecast, ...]
    images_per_epoch: Fraction
    total_images: int
    steps: int
    memory: MemoryEstimate | None
    disk: int
    """Bytes of the checkpoints; 0 where the base is not on this machine."""


def measure_sources(project: Project) -> Sizes:
    """Returns how much each source has. Their files and annotations are read for it."""
    return {name: kind_of(source).measure(source) for name, source in project.sources.items()}


def most_images(project: Project, name: str, size: SourceSize) -> int | None:
    """Returns how many images a source gives at most; None where that is not known before it was read."""
    limit = getattr(project.sources[name], "limit", None)
    if size.unit == "shards":
        return None
    return size.count if limit is None else min(size.count, limit)


def surplus(project: Project, name: str, images: int) -> int:
    """Counts the images of a source that `max_ground_truth` leaves out."""
    limit = project.choose_config().max_ground_truth
    if limit is None or project.sources[name].role is not Role.GROUND_TRUTH:
        return 0
    return max(0, images - limit)


def held_out_counts(project: Project, images: Mapping[str, int]) -> dict[str, int]:
    """Counts the images of each source that are held out, of those that are left of it (dreamloom.curate.split)."""
    balance = project.balance
    of_role = {role: {name: images[name] for name in project.sources_of(role)} for role in Role}
    return {
        **count_held_out(of_role[Role.TRAINING], balance.held_out, balance.held_out_max_training),
        **count_held_out(of_role[Role.GROUND_TRUTH], balance.held_out, balance.held_out_max_ground_truth),
        **at_most(of_role[Role.WITNESS], balance.held_out_max_witness),
    }


def source_multiplies(project: Project, images: Mapping[str, int]) -> dict[str, Fraction]:
    """Returns how often an epoch shows each image of a source, by the images that are trained on.

    Raises:
        UserError: no such ratio can be shown.
    """
    sources = project.sources
    taught = {name: (images[name], sources[name].multiply) for name in project.sources_of(Role.TRAINING)}
    kept = {name: (images[name], sources[name].share) for name in project.sources_of(Role.GROUND_TRUTH)}
    has_ground_truth = any(count for count, _ in kept.values())
    return solve_multiplies(taught, kept if has_ground_truth else {}, project.balance.ratio_of_folder)


def forecast(project: Project, done: Mapping[str, bool], sizes: Sizes) -> Forecast | None:
    """Computes what a run would train on, at most; None where the size of a source is not known.

    Args:
        project: the project.
        done: title of a step → whether it is up to date.
        sizes: of its sources.
    """
    counted = {name: _count(project, name, done, sizes[name]) for name in project.sources}
    known = {name: each for name, each in counted.items() if each is not None}
    if len(known) < len(counted):
        return None
    held = held_out_counts(project, {name: images - sum(drops.values()) for name, (images, drops, _) in known.items()})
    found = [
        SourceForecast(name, project.sources[name].role, images, drops, held[name], basis)
        for name, (images, drops, basis) in known.items()
    ]
    try:
        multiplies = source_multiplies(project, {source.name: source.trained for source in found})
    except UserError:
        return None
    sources = tuple(replace(source, multiply=multiplies.get(source.name, Fraction(0))) for source in found)
    per_epoch = sum((source.trained * source.multiply for source in sources), Fraction(0))
    train = project.train_config()
    step_size = train.batch_size * train.gradient_accumulation_steps
    total = train.max_train_steps * step_size if train.max_train_steps else int(train.epochs * per_epoch)
    memory = estimate_memory(train)
    disk = estimate_disk(train, memory) if memory else 0
    return Forecast(sources, per_epoch, total, ceil(total / step_size), memory, disk)


def _count(
    project: Project, name: str, done: Mapping[str, bool], size: SourceSize
) -> tuple[int, Mapping[str, int], str] | None:
    """Counts a source's images and its sure drops, by the last stage that is up to date; None: not known."""
    collection = project.collection(name)
    if done.get("choose"):
        return collection.summary(Table.CHOICES).kept, _decided_drops(collection, "choice"), "chosen"
    counted = _count_brought_in(project, name, done, size)
    if counted is None:
        return None
    images, drops, basis = counted
    left_out = surplus(project, name, images - sum(drops.values()))
    return images, {**drops, str(Choice.SURPLUS): left_out} if left_out else drops, basis


def _count_brought_in(
    project: Project, name: str, done: Mapping[str, bool], size: SourceSize
) -> tuple[int, Mapping[str, int], str] | None:
    """Does so before it is chosen."""
    collection, source = project.collection(name), project.sources[name]
    if all(
        is_done for title, is_done in done.items() if title in (f"ingest {name}", f"filter {name}", f"scrape {name}")
    ):
        return collection.summary(Table.RECORDS).kept, _decided_drops(collection, "status"), "brought in"
    images = most_images(project, name, size)
    if images is None:
        return None
    if isinstance(source, FolderConfig) and images <= MAX_HEADERS:
        return images, _sure_drops(project, name), "headers"
    return images, {}, f"{size.unit} at most"


def expected_captions(project: Project, sizes: Sizes) -> list[tuple[str, str]]:
    """Returns file and caption of the images of folders that are not brought in yet; of large ones, none."""
    captions: list[tuple[str, str]] = []
    for name, source in project.sources.items():
        is_new = not project.collection(name).parts(Table.RECORDS)
        if isinstance(source, FolderConfig) and is_new and sizes[name].count <= MAX_HEADERS:
            captions += [(f"{name}/{file}", caption) for file, caption in read_captions(source, read_caption)]
    return captions


def _decided_drops(collection: Collection, column: Literal["status", "choice"]) -> dict[str, int]:
    """Counts the images that decisions leave out, of those that a stage kept, by its column."""
    decisions = collection.decisions()
    if not decisions.rows:
        return {}
    table, kept = (Table.RECORDS, Status.OK) if column == "status" else (Table.CHOICES, Choice.KEPT)
    rows = collection.read(table, columns=["key", column])
    keys = set(rows["key"].filter(pc.equal(rows[column], str(kept))).to_pylist())
    choices = decisions.standing(What.KEEP, What.DROP).items()
    dropped = keys & {key for key, decision in choices if decision.what is What.DROP}
    witnesses = keys & decisions.standing(What.ROLE).keys() - dropped
    counts = {str(Choice.DECIDED): len(dropped), str(Role.WITNESS): len(witnesses)}
    return {reason: count for reason, count in counts.items() if count}


def _sure_drops(project: Project, name: str) -> dict[str, int]:
    """Counts the images of a folder that can't be read, are too small, or have the bytes of another one."""
    source, choose = project.sources[name], project.choose_config()
    assert isinstance(source, FolderConfig)
    paths = [path for path, _ in find_images(source.path, None, source.follow_links)]
    resolution = choose.resolution_of(name)

    def fault(path: Path) -> str | None:
        try:
            header = read_header(path)
        except ImageError as error:
            return None if error.reason == "too_many_pixels" else str(error.reason)  # it is shrunk as it comes in
        size = (header.width, header.height)
        fits = find_bucket(size, resolution, choose.bucket_reso_steps, choose.upscale)
        return None if fits else "too_small"

    faults = list(map_ordered(fault, paths, 4, 64))
    drops = Counter(reason for reason in faults if reason)
    sound = [path for path, reason in zip(paths, faults, strict=True) if reason is None]
    sizes = Counter(path.stat().st_size for path in sound)
    alike = [WholeFile(path) for path in sound if sizes[path.stat().st_size] > 1]
    copies = len(alike) - len(set(content_hashes(alike)))
    return dict(drops) | ({"same bytes as another": copies} if copies else {})


def source_row(source: SourceForecast) -> dict[str, object]:
    """Returns a forecast as a row of a table."""
    return {
        "source": source.name,
        "images": source.images,
        "by": source.basis,
        "sure to be left out": reasons(source.drops),
        "held out": source.held_out,
        "trained on": source.trained,
        "multiply": float(source.multiply) if source.role is not Role.WITNESS else None,
        "shown per epoch": float(source.trained * source.multiply),
    }
