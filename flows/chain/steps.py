"""The stages as steps: which parts are to be made, how to make them, and what to show of the result.

The commands, the chain and the Prefect flows run these same steps, so they can't differ.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from dreamloom.base.files.remote import address_of
from dreamloom.base.progress import Progress
from dreamloom.base.stage import StageConfig, Summary
from dreamloom.caption import stage as captioning
from dreamloom.caption.config import CaptionConfig
from dreamloom.caption.sidecar import read_caption
from dreamloom.curate import assemble, choose, score
from dreamloom.curate.config import BalanceConfig, ChooseConfig, ScoreConfig
from dreamloom.curate.source import Source
from dreamloom.flows.chain.ray_engine import run_on_ray
from dreamloom.flows.project.ray_config import RayConfig
from dreamloom.flows.report.contents import CaptionedImages, images_of_collection, images_of_training_folder
from dreamloom.flows.terminal.terminal import stage_line
from dreamloom.scrape.collection import Collection, Status, Table
from dreamloom.scrape.collection.parts import stale_parts
from dreamloom.scrape.datasets.source_kind import SourceKind
from dreamloom.scrape.index import filter as laion
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.web import scrape as download
from dreamloom.scrape.web.config import ScrapeConfig

WHOLE = "all"
"""The name of the only part of a step that is made in one piece."""


@dataclass(frozen=True)
class Outcome:
    """The result of a step."""

    message: str
    """One line for people."""
    changed: bool
    """Whether anything was made; False: all was there already."""
    summary: Summary | None = None
    """Set by stages that count rows."""
    finished: bool = True
    """False: the step was asked to stop and saved its work, so nothing after it can begin."""
    ends_branch: bool = False
    """Whether what follows has nothing to do, as the step had not."""


class Step(ABC):
    """One stage over one collection, or over all of them."""

    stage: ClassVar[str]

    @property
    def source(self) -> str:
        """The collection's name; empty where the step is over all sources."""
        return ""

    @property
    def title(self) -> str:
        """The stage and the source: "scrape people"."""
        return f"{self.stage} {self.source}".rstrip()

    def stale_parts(self) -> list[str]:
        """Returns the parts that are missing or were made by another recipe. Valid when all earlier steps are done.

        By default the one part, of a step that finds out what is missing while it runs.
        """
        return [WHOLE]

    @abstractmethod
    def run(self, progress: Progress, parts: Sequence[str] | None = None) -> Outcome:
        """Makes these parts; None: all that are stale."""

    def existing(self) -> Summary:
        """Returns what was made so far, by whatever config: its rows, its parts, and how long they took."""
        return Summary()

    def remaining_share(self, parts: Sequence[str]) -> float:
        """Returns the share of the parts' work that is left, where a new part takes over work of the old one."""
        return 1.0

    def images(self) -> CaptionedImages:
        """Returns some images of the result, to look at."""
        return []

    def charts(self) -> Mapping[str, Path]:
        """Returns image files, by name, that show the progress and are renewed while the step runs."""
        return {}

    @property
    def log_folder(self) -> Path | None:
        """Where the log of the step lies if it runs alone; None where it writes into no folder of ours."""
        return None


@dataclass(frozen=True)
class CollectionStep(Step):
    """A step over one collection that makes one of its tables."""

    collection: Collection
    ray: RayConfig | None = field(default=None, kw_only=True)
    """Where Ray makes it; None: this process does."""

    @property
    def source(self) -> str:
        """The collection's name."""
        return self.collection.name

    @property
    @abstractmethod
    def table(self) -> Table:
        """The table that the step makes."""

    @property
    def log_folder(self) -> Path:
        """In the collection's folder."""
        return self.collection.root / "logs"

    def existing(self) -> Summary:
        """Returns the summary of the table as it is."""
        return self.collection.summary(self.table)


@dataclass(frozen=True)
class FilterStep(CollectionStep):
    """Chooses candidates from an index."""

    config: FilterConfig
    stage = "filter"
    table = Table.CANDIDATES

    def stale_parts(self) -> list[str]:
        """Returns the one part, unless the candidates are up to date."""
        return [] if laion.is_current(self.collection, self.config) else [WHOLE]

    def run(self, progress: Progress, parts: Sequence[str] | None = None) -> Outcome:
        """Writes the candidates."""
        make = partial(laion.filter_laion, self.collection, self.config)
        if self.ray is not None and self.stale_parts():
            return counted(self.stage, self.source, run_on_ray(self.title, make, self.stale_parts, self.ray, progress))
        return counted(self.stage, self.source, make(progress))


@dataclass(frozen=True)
class PartsStep(CollectionStep):
    """A step over one collection that makes a table part by part."""

    has_models: ClassVar[bool] = False
    """Whether the parts are made by models, which may want a GPU."""

    @property
    def runs_on_ray(self) -> bool:
        """Whether all that is to be done is to make stale parts."""
        return True

    @abstractmethod
    def recipes(self) -> Mapping[str, str]:
        """Returns the recipe of each part."""

    @abstractmethod
    def make_parts(self, progress: Progress, parts: Sequence[str] | None) -> Summary:
        """Makes these parts; None: all that are stale."""

    def stale_parts(self) -> list[str]:
        """Returns the parts that are missing or were made by another recipe."""
        return stale_parts(self.collection, self.table, self.recipes())

    def run(self, progress: Progress, parts: Sequence[str] | None = None) -> Outcome:
        """Makes these parts; None: all that are stale."""
        make = partial(self.make_parts, parts=parts)
        if self.ray is None or not self.stale_parts() or not self.runs_on_ray:
            return counted(self.stage, self.source, make(progress))
        summary = run_on_ray(self.title, make, self.stale_parts, self.ray, progress, has_models=self.has_models)
        return counted(self.stage, self.source, summary)


@dataclass(frozen=True)
class ScrapeStep(PartsStep):
    """Downloads candidates: writes records and images."""

    config: ScrapeConfig
    retry: Sequence[Status] = ()
    stage = "scrape"
    table = Table.RECORDS

    @property
    def runs_on_ray(self) -> bool:
        """Not where rows of finished parts are fetched again, which each worker would do."""
        return not self.retry

    def recipes(self) -> Mapping[str, str]:
        """Returns the recipe of each part."""
        return download.recipes(self.collection, self.config)

    def make_parts(self, progress: Progress, parts: Sequence[str] | None) -> Summary:
        """Makes these parts; None: all that are stale."""
        return download.scrape(self.collection, self.config, progress=progress, parts=parts, retry=self.retry)

    def images(self) -> CaptionedImages:
        """Returns some of the downloaded images."""
        return images_of_collection(self.collection)


@dataclass(frozen=True)
class IngestStep(PartsStep):
    """Brings in a source: writes records and images, or candidates where the images are still to be downloaded."""

    kind: SourceKind[Any]
    config: StageConfig
    stage = "ingest"

    @property
    def table(self) -> Table:
        """The table that the step makes."""
        return self.kind.table(self.config)

    def recipes(self) -> Mapping[str, str]:
        """Returns the recipe of each part."""
        return self.kind.recipes(self.collection, self.config)

    def make_parts(self, progress: Progress, parts: Sequence[str] | None) -> Summary:
        """Makes these parts; None: all that are stale."""
        ingest = partial(self.kind.ingest, read_caption=read_caption) if self.kind.reads_captions else self.kind.ingest
        return ingest(self.collection, self.config, progress=progress, parts=parts)

    def images(self) -> CaptionedImages:
        """Returns some of the images."""
        return images_of_collection(self.collection)


def source_step(
    collection: Collection, kind: SourceKind[Any], config: StageConfig, ray: RayConfig | None = None
) -> Step:
    """Returns the first step of a source: it fills the collection with records, or with candidates to download."""
    if kind.stage == "filter":
        assert isinstance(config, FilterConfig)
        return FilterStep(collection, config, ray=ray)
    return IngestStep(collection, kind, config, ray=ray)


@dataclass(frozen=True)
class ScoreStep(PartsStep):
    """Scores the images."""

    config: ScoreConfig
    stage = "score"
    table = Table.SCORES
    has_models = True

    def recipes(self) -> Mapping[str, str]:
        """Returns the recipe of each part."""
        return score.recipes(self.collection, self.config)

    def make_parts(self, progress: Progress, parts: Sequence[str] | None) -> Summary:
        """Makes these parts; None: all that are stale."""
        return score.score(self.collection, self.config, progress, parts)


@dataclass(frozen=True)
class ChooseStep(Step):
    """Decides, over all sources at once, which images go on."""

    sources: Sequence[Source]
    config: ChooseConfig
    stage = "choose"

    def stale_parts(self) -> list[str]:
        """Returns the one part, unless the choices are up to date."""
        return [] if choose.is_current(self.sources, self.config) else [WHOLE]

    def run(self, progress: Progress, parts: Sequence[str] | None = None) -> Outcome:
        """Writes the choices of all sources."""
        return counted(self.stage, "", choose.choose(self.sources, self.config, progress))

    def existing(self) -> Summary:
        """Returns the summary of the choices of all sources."""
        return sum((source.collection.summary(Table.CHOICES) for source in self.sources), start=Summary())


@dataclass(frozen=True)
class CaptionStep(PartsStep):
    """Captions the chosen images."""

    config: CaptionConfig
    stage = "caption"
    table = Table.CAPTIONS
    has_models = True

    def recipes(self) -> Mapping[str, str]:
        """Returns the recipe of each part."""
        return captioning.recipes(self.collection, self.config)

    def make_parts(self, progress: Progress, parts: Sequence[str] | None) -> Summary:
        """Makes these parts; None: all that are stale."""
        return captioning.caption(self.collection, self.config, progress, parts)

    def remaining_share(self, parts: Sequence[str]) -> float:
        """Returns the share of captions that no earlier run has written."""
        return captioning.remaining_share(self.collection, self.config, parts)

    def images(self) -> CaptionedImages:
        """Returns some of the images with their captions."""
        return images_of_collection(self.collection)


@dataclass(frozen=True)
class BalanceStep(Step):
    """Assembles the training folder, what is held out, and the manifest."""

    sources: Sequence[Source]
    config: BalanceConfig
    workspace: Path
    """A folder; of collections at addresses also an address."""
    store: str | None = None
    """Address at which the manifest is written, too."""
    stage = "balance"

    def stale_parts(self) -> list[str]:
        """Returns the one part, unless the training folder is up to date."""
        return [] if assemble.is_current(self.sources, self.config, self.workspace, self.store) else [WHOLE]

    def run(self, progress: Progress, parts: Sequence[str] | None = None) -> Outcome:
        """Writes the training folder."""
        summary = assemble.balance(self.sources, self.config, self.workspace, progress, self.store)
        return counted(self.stage, "", summary)

    @property
    def log_folder(self) -> Path | None:
        """In the workspace, where that is a folder."""
        return None if address_of(self.workspace) else self.workspace / "logs"

    def images(self) -> CaptionedImages:
        """Returns some images of the training folder."""
        return images_of_training_folder(self.workspace / "dataset")


def counted(stage: str, source: str, summary: Summary) -> Outcome:
    """Returns the outcome of a stage that counts rows."""
    return Outcome(stage_line(stage, source, summary), summary.parts_done > 0, summary)
