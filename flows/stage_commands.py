"""The commands of single stages. Each takes what it works on, and its stage's config as flags."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, Token

from dreamloom.base.cpu import keep_freed_memory
from dreamloom.base.errors import UserError
from dreamloom.base.processes import is_main
from dreamloom.caption.config import CaptionConfig
from dreamloom.curate.config import BalanceConfig, ChooseConfig, ScoreConfig
from dreamloom.curate.source import Role, Source
from dreamloom.flows import steps, train_steps
from dreamloom.flows.logs import PRINTED, log_to_file
from dreamloom.flows.terminal import Terminal, print_table, rows_table, rules_rows
from dreamloom.scrape.collection import Collection, Status
from dreamloom.scrape.index import filter as laion
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.train.config import DreamBoothConfig, TrainConfig
from dreamloom.train.evaluate.config import EvaluateConfig
from dreamloom.train.export.config import ExportConfig

_log = logging.getLogger(__name__)

FLAGS = Parameter(name="*")
"""The fields of a config as flags of their own."""


def _statuses(_: object, tokens: Sequence[Token]) -> tuple[Status, ...]:
    names = [name for token in tokens for name in token.value.replace("-", "_").split(",") if name]
    for name in names:
        if name not in set(Status):
            raise ValueError(f"there is no status {name}; those that can be retried: {', '.join(Status)}")
    return tuple(map(Status, names))


STATUSES = Parameter(consume_multiple=True, negative="", converter=_statuses, show_choices=False)
FOLDERS = Parameter(consume_multiple=True, negative="")


def filter_(collection: Path, *, explain: bool = False, config: Annotated[FilterConfig, FLAGS]) -> None:
    """Choose candidates from a LAION index.

    Parameters
    ----------
    collection
        The collection to fill.
    explain
        Say what each rule drops and how many rows would be chosen; write nothing.
    """
    if explain:
        with Terminal() as terminal, terminal.watch("filter") as progress:
            summary = laion.explain(config, progress)
        print_table(rows_table(f"What filter would keep for {collection.name}", rules_rows(summary)))
    else:
        run_step(steps.FilterStep(collection_at(collection), config))


def scrape(
    collection: Path,
    *,
    retry: Annotated[tuple[Status, ...], STATUSES] = (),
    config: Annotated[ScrapeConfig, FLAGS] = ScrapeConfig(),
) -> None:
    """Download the candidates' images.

    Parameters
    ----------
    collection
        The collection whose candidates filter has chosen.
    retry
        Try images again of which this became, such as timeout,http_429; parted by commas or spaces.
    """
    run_step(steps.ScrapeStep(collection_at(collection), config, retry))


def score(collection: Path, *, config: Annotated[ScoreConfig, FLAGS] = ScoreConfig()) -> None:
    """Look at each image with CLIP: embedding, aesthetic, likeness to its text, perceptual hash.

    Parameters
    ----------
    collection
        The collection whose images are there.
    """
    run_step(steps.ScoreStep(collection_at(collection), config))


def choose(
    *,
    training: Annotated[tuple[Path, ...], FOLDERS],
    ground_truth: Annotated[tuple[Path, ...], FOLDERS] = (),
    config: Annotated[ChooseConfig, FLAGS] = ChooseConfig(),
) -> None:
    """Decide which images go on, over all collections at once: duplicates, thresholds, licences.

    Parameters
    ----------
    training
        Collections of what the model shall learn.
    ground_truth
        Collections of what it shall keep knowing.
    """
    run_step(steps.ChooseStep(_sources(training, ground_truth, {}, {}), config))


def caption(collection: Path, *, config: Annotated[CaptionConfig, FLAGS] = CaptionConfig()) -> None:
    """Write captions with BLIP where an image came with none that is to be kept.

    Parameters
    ----------
    collection
        The collection whose images are there, and perhaps chosen.
    """
    run_step(steps.CaptionStep(collection_at(collection), config))


def balance(
    workspace: Path,
    *,
    training: Annotated[tuple[Path, ...], FOLDERS],
    ground_truth: Annotated[tuple[Path, ...], FOLDERS] = (),
    multiply: Annotated[dict[str, float] | None, Parameter(negative="")] = None,
    share: Annotated[dict[str, float] | None, Parameter(negative="")] = None,
    config: Annotated[BalanceConfig, FLAGS] = BalanceConfig(),
) -> None:
    """Assemble the training folder, with ground truth at a ratio, and hold some images out.

    Parameters
    ----------
    workspace
        Where dataset/, heldout/ and dataset.parquet are written.
    training
        Collections of what the model shall learn.
    ground_truth
        Collections of what it shall keep knowing.
    multiply
        How often each image of a training collection is shown in an epoch: --multiply.NAME 2.
    share
        How much of the ground truth comes from a collection, relative to the others: --share.NAME 2.
    """
    sources = _sources(training, ground_truth, multiply or {}, share or {})
    run_step(steps.BalanceStep(sources, config, workspace))


def dreambooth(
    subjects: Path, target: Path, *, config: Annotated[DreamBoothConfig, FLAGS] = DreamBoothConfig()
) -> None:
    """Make a training folder of subjects and, drawn by the base model, of what else is of their class.

    Parameters
    ----------
    subjects
        A folder with a folder for each subject: its images, instance.txt and class.txt with a prompt each.
    target
        The training folder to make, for train.
    """
    run_step(train_steps.DreamBoothStep(subjects, target, config))


def train(
    folder: Path,
    run: Path,
    *,
    heldout: Path | None = None,
    plan: Annotated[bool, Parameter(negative="")] = False,
    config: Annotated[TrainConfig, FLAGS] = TrainConfig(),
) -> None:
    """Fine-tune a Stable Diffusion model on a training folder; go on where the run stopped.

    Parameters
    ----------
    folder
        A training folder in EveryDream's format, as balance makes it; a webdataset's .tar; or a table of images
        (.jsonl, .csv, .parquet).
    run
        The run's folder: checkpoints, samples, logs, measurements.
    heldout
        Images to measure by, in folders training/ and ground_truth/, as balance makes it.
    plan
        Only say what would be done: which images, in which buckets, how many steps.
    """
    if plan:
        from dreamloom.flows.commands import print_caption_lengths
        from dreamloom.flows.plan import print_training
        from dreamloom.train.plan import plan as plan_training

        planned = plan_training(folder, config)
        print_training(planned)
        print_caption_lengths(list(planned.captions), config.base)
        return
    run_step(train_steps.TrainStep(folder, run, config, heldout))


def evaluate(
    model: str,
    *,
    base: str,
    heldout: Path,
    output: Path = Path("evaluation.json"),
    config: Annotated[EvaluateConfig, FLAGS] = EvaluateConfig(),
) -> None:
    """Measure what a model learned, and what it forgot, against the model it comes from.

    Parameters
    ----------
    model
        A run, a checkpoint of a run, or a diffusers folder or hub id.
    base
        The diffusers folder or hub id of the model it comes from.
    heldout
        Images to measure by, in folders training/ and ground_truth/, as balance makes it.
    output
        The file for all figures.
    """
    run_step(train_steps.EvaluateStep(lambda: model, base, heldout, config, output))


def export(checkpoint: Path, target: Path, *, config: Annotated[ExportConfig, FLAGS] = ExportConfig()) -> None:
    """Write a trained model as other programs read it.

    Parameters
    ----------
    checkpoint
        A run, or one of its checkpoints.
    target
        The folder to write.
    """
    run_step(train_steps.ExportStep(lambda: checkpoint, target, config))


def run_step(step: steps.Step) -> None:
    """Runs a step to its end, with its progress on the terminal, and prints the outcome."""
    keep_freed_memory()
    with log_to_file(step.log_folder if is_main() else None):
        with Terminal() as terminal, terminal.watch(step.title) as progress:
            outcome = step.run(progress)
        _log.info("%s", outcome.message, extra=PRINTED)
    if is_main():
        print(outcome.message)


def collection_at(path: Path) -> Collection:
    """Returns the collection in a folder that the user names; it need not exist."""
    return Collection(path.expanduser().absolute())


def _sources(
    training: tuple[Path, ...], ground_truth: tuple[Path, ...], multiply: dict[str, float], share: dict[str, float]
) -> list[Source]:
    learn = [Source(c, Role.TRAINING, multiply=multiply.pop(c.name, 1.0)) for c in map(collection_at, training)]
    keep = [Source(c, Role.GROUND_TRUTH, share=share.pop(c.name, 1.0)) for c in map(collection_at, ground_truth)]
    for name in (*multiply, *share):
        raise UserError(f"--multiply.{name} or --share.{name} names no collection that is given with the right role.")
    return learn + keep
