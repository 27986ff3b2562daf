"""Each stage as a step: what of it is to be made, how to make it, and what there is to say and see of it.

The commands, the chain and the Prefect flows all run these steps, so they can't differ.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from dreamloom.base.progress import Progress
from dreamloom.base.stage import StageConfig, Summary
from dreamloom.caption import stage as captioning
from dreamloom.caption.config import CaptionConfig
from dreamloom.caption.sidecar import read_caption
from dreamloom.curate import assemble, choose, score
from dreamloom.curate.balance import BalanceConfig
from dreamloom.curate.source import Source
from dreamloom.flows.pictures import Pictures, of_collection, of_folder
from dreamloom.flows.terminal import stage_line
from dreamloom.scrape.collection import Collection, Status, Table
from dreamloom.scrape.collection.parts import stale_parts
from dreamloom.scrape.datasets import coco, ffhq, folder, huggingface, imagenet, webdataset
from dreamloom.scrape.index import filter as laion
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.web import scrape as download

WHOLE = "all"
"""The one part of a step that is made in one piece."""


@dataclass(frozen=True)
class Outcome:
    """What a step came to."""

    said: str
    """One line for people."""
    made: bool
    """Whether anything had to be made."""
    summary: Summary | None = None
    """Of the stages whose rows are counted."""
    finished: bool = True
    """False: it was asked to stop and has saved what it did, so that nothing after it can begin."""


@dataclass(frozen=True)
class Step:
    """One stage over one source, or over all of them."""

    stage: str
    source: str
    """The collection's name; empty where the step is over all sources."""
    stale: Callable[[], list[str]]
    """The parts that are missing or were made by another recipe. Asked when all before it is done."""
    make: Callable[[Progress, Sequence[str] | None], Outcome]
    """Makes these parts; None: all that are stale."""
    there: Callable[[], Summary] = Summary
    """What was made so far, by whatever config: its parts, and how long they took."""
    left: Callable[[Sequence[str]], float] = lambda _: 1.0
    """Which share of the work of parts is yet to be done, where a part that is made again takes over what it has."""
    pictures: Callable[[], Pictures] = list
    """Some of what it made, to look at."""
    charts: Callable[[], Mapping[str, Path]] = dict
    """Name → image file that shows how it goes, renewed while it works."""

    @property
    def title(self) -> str:
        """ "scrape people"."""
        return f"{self.stage} {self.source}".rstrip()


def filter_step(collection: Collection, config: FilterConfig) -> Step:
    """An index → candidates."""
    return Step(
        "filter",
        collection.name,
        lambda: [] if laion.is_current(collection, config) else [WHOLE],
        lambda progress, _: counted("filter", collection.name, laion.filter_laion(collection, config, progress)),
        lambda: collection.summary(Table.CANDIDATES),
    )


def scrape_step(collection: Collection, config: download.ScrapeConfig, retry: Sequence[Status] = ()) -> Step:
    """Candidates → records and images."""
    recipes = partial(download.recipes, collection, config)
    make = partial(download.scrape, collection, config, retry=retry)
    return _by_parts("scrape", Table.RECORDS, collection, recipes, make, lambda: of_collection(collection))


INGESTS: Mapping[type[StageConfig], tuple[Callable[..., Mapping[str, str]], Callable[..., Summary]]] = {
    folder.FolderConfig: (folder.recipes, partial(folder.ingest_folder, read_caption=read_caption)),
    ffhq.FfhqConfig: (ffhq.recipes, ffhq.ingest_ffhq),
    coco.CocoConfig: (coco.recipes, coco.ingest_coco),
    imagenet.ImagenetConfig: (imagenet.recipes, imagenet.ingest_imagenet),
    huggingface.HuggingfaceConfig: (huggingface.recipes, huggingface.ingest_huggingface),
    webdataset.WebdatasetConfig: (webdataset.recipes, webdataset.ingest_webdataset),
}
"""The config of each kind of images of this machine → its recipes, and how they come in."""


def ingest_step(collection: Collection, config: StageConfig) -> Step:
    """Pictures of this machine → records and images; COCO's without a folder of photos → candidates.

    Args:
        config: of a kind in INGESTS.
    """
    recipes, ingest = INGESTS[type(config)]

    def make(progress: Progress, parts: Sequence[str] | None) -> Summary:
        return ingest(collection, config, progress=progress, parts=parts)

    table = coco.table_of(config) if isinstance(config, coco.CocoConfig) else Table.RECORDS
    pictures = partial(of_collection, collection)
    return _by_parts("ingest", table, collection, partial(recipes, collection, config), make, pictures)


def score_step(collection: Collection, config: score.ScoreConfig) -> Step:
    """Records → scores."""
    recipes = partial(score.recipes, collection, config)
    return _by_parts("score", Table.SCORES, collection, recipes, partial(score.score, collection, config))


def choose_step(sources: Sequence[Source], config: choose.ChooseConfig) -> Step:
    """Records and scores of all sources → choices."""
    return Step(
        "choose",
        "",
        lambda: [] if choose.is_current(sources, config) else [WHOLE],
        lambda progress, _: counted("choose", "", choose.choose(sources, config, progress)),
        lambda: sum((source.collection.summary(Table.CHOICES) for source in sources), start=Summary()),
    )


def caption_step(collection: Collection, config: CaptionConfig) -> Step:
    """Chosen records → captions."""
    recipes = partial(captioning.recipes, collection, config)
    make = partial(captioning.caption, collection, config)
    step = _by_parts("caption", Table.CAPTIONS, collection, recipes, make, lambda: of_collection(collection))
    return replace(step, left=partial(captioning.left, collection, config))


def balance_step(sources: Sequence[Source], config: BalanceConfig, workspace: Path) -> Step:
    """Captioned collections → the training folder, what is held out, and the manifest."""
    return Step(
        "balance",
        "",
        lambda: [] if assemble.is_current(sources, config, workspace) else [WHOLE],
        lambda progress, _: counted("balance", "", assemble.balance(sources, config, workspace, progress)),
        pictures=lambda: of_folder(workspace / "dataset"),
    )


Recipes = Callable[[], Mapping[str, str]]
Make = Callable[[Progress, Sequence[str] | None], Summary]


def _by_parts(
    stage: str,
    table: Table,
    collection: Collection,
    recipes: Recipes,
    make: Make,
    pictures: Callable[[], Pictures] = list,
) -> Step:
    return Step(
        stage,
        collection.name,
        lambda: stale_parts(collection, table, recipes()),
        lambda progress, parts: counted(stage, collection.name, make(progress, parts)),
        lambda: collection.summary(table),
        pictures=pictures,
    )


def counted(stage: str, source: str, summary: Summary) -> Outcome:
    """The outcome of a stage whose rows are counted."""
    return Outcome(stage_line(stage, source, summary), summary.parts_done > 0, summary)
