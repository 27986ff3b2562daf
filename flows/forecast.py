"""What a run would train on, before its dataset is made: from headers and counts of the sources. Writes nothing."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

from dreamloom.base.buckets import find_bucket
from dreamloom.base.errors import UserError
from dreamloom.base.file_index import WholeFile, content_hashes
from dreamloom.base.pixels import ImageError, read_header
from dreamloom.base.stage import reasons
from dreamloom.base.threads import map_ordered
from dreamloom.curate.balance import solve_multiplies
from dreamloom.curate.held_out import count_held_out
from dreamloom.curate.source import Role
from dreamloom.flows.project import Project
from dreamloom.flows.sources import kind_of
from dreamloom.scrape.collection import Table
from dreamloom.scrape.datasets.folder import FolderConfig
from dreamloom.scrape.datasets.image_files import find_images
from dreamloom.train.families.memory import MemoryEstimate, estimate_disk, estimate_memory

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
    multiply: Fraction
    basis: str
    """Where the count comes from."""

    @property
    def trained(self) -> int:
        """Images that are trained on."""
        return self.images - sum(self.drops.values()) - self.held_out


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


def forecast(project: Project, done: Mapping[str, bool]) -> Forecast | None:
    """Computes what a run would train on, at most; None where the size of a source is not known.

    Args:
        project: the project.
        done: title of a step → whether it is up to date.
    """
    counted = {name: _count(project, name, done) for name in project.sources}
    if any(each is None for each in counted.values()):
        return None
    known = {name: each for name, each in counted.items() if each is not None}
    left = {name: images - sum(drops.values()) for name, (images, drops, _) in known.items()}
    held = _held_out(project, left)
    trained = {name: max(0, left[name] - held.get(name, 0)) for name in left}
    roles = {name: source.role for name, source in project.sources.items()}
    taught = {n: (trained[n], s.multiply) for n, s in project.sources.items() if s.role is Role.TRAINING}
    kept = {n: (trained[n], s.share) for n, s in project.sources.items() if s.role is Role.GROUND_TRUTH}
    kept = kept if any(count for count, _ in kept.values()) else {}
    try:
        multiplies = solve_multiplies(taught, kept, project.balance.ratio_of_folder)
    except UserError:
        return None
    per_epoch = sum((trained[name] * multiply for name, multiply in multiplies.items()), Fraction(0))
    train, step_size = project.train, project.train.batch_size * project.train.gradient_accumulation_steps
    total = train.max_train_steps * step_size if train.max_train_steps else int(train.epochs * per_epoch)
    sources = tuple(
        SourceForecast(name, roles[name], images, drops, held.get(name, 0), multiplies.get(name, Fraction(0)), basis)
        for name, (images, drops, basis) in known.items()
    )
    memory = estimate_memory(train)
    disk = estimate_disk(train, memory) if memory else 0
    return Forecast(sources, per_epoch, total, ceil(total / step_size), memory, disk)


def _held_out(project: Project, left: Mapping[str, int]) -> dict[str, int]:
    balance = project.balance
    held: dict[str, int] = {}
    limits = {Role.TRAINING: balance.held_out_max_training, Role.GROUND_TRUTH: balance.held_out_max_ground_truth}
    for role, limit in limits.items():
        of_role = {name: left[name] for name, source in project.sources.items() if source.role is role}
        held |= count_held_out(of_role, balance.held_out, limit)
    return held


def _count(project: Project, name: str, done: Mapping[str, bool]) -> tuple[int, Mapping[str, int], str] | None:
    """Counts a source's images and its sure drops, by the last stage that is up to date; None: not known."""
    collection, source = project.collection(name), project.sources[name]
    if done.get("choose"):
        return collection.summary(Table.CHOICES).kept, {}, "chosen"
    if all(
        is_done for title, is_done in done.items() if title in (f"ingest {name}", f"filter {name}", f"scrape {name}")
    ):
        return collection.summary(Table.RECORDS).kept, {}, "brought in"
    available, limit = kind_of(source).measure(source), getattr(source, "limit", None)
    if available.unit == "shards":
        return None
    images = available.count if limit is None else min(available.count, limit)
    if isinstance(source, FolderConfig) and limit is None and images <= MAX_HEADERS:
        return images, _sure_drops(project, name), "headers"
    return images, {}, f"{available.unit} at most"


def _sure_drops(project: Project, name: str) -> dict[str, int]:
    """Counts the images of a folder that can't be read, are too small, or have the bytes of another one."""
    source, choose = project.sources[name], project.choose_config()
    assert isinstance(source, FolderConfig)
    paths = [path for path, _ in find_images(source.path, None, source.follow_links)]

    def fault(path: Path) -> str | None:
        try:
            header = read_header(path)
        except ImageError as error:
            return str(error.reason)
        size = (header.width, header.height)
        fits = find_bucket(size, choose.resolution, choose.bucket_reso_steps, choose.upscale)
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
