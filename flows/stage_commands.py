"""The commands of single stages. Each takes the folders that it works on, and its stage's config as flags."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter, Token, validators

from dreamloom.base.cpu import keep_freed_memory
from dreamloom.base.errors import UserError
from dreamloom.base.processes import is_main
from dreamloom.base.remote import address_of
from dreamloom.base.stage import PathKind
from dreamloom.base.stop import Unfinished
from dreamloom.curate.config import BalanceConfig, ChooseConfig, ScoreConfig
from dreamloom.curate.score_folder import score_folder
from dreamloom.curate.source import Role, Source, is_collection
from dreamloom.flows import command_steps, steps, train_steps
from dreamloom.flows.logs import PRINTED, log_to_file
from dreamloom.flows.ray_config import RayConfig
from dreamloom.flows.run_folders import continuation_folder
from dreamloom.flows.terminal import Terminal, print_table, rows_table, rules_rows, stage_line
from dreamloom.scrape.collection import Collection, Status
from dreamloom.scrape.index import filter as laion
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.train.audit.config import AuditConfig
from dreamloom.train.config import DreamBoothConfig, TrainConfig
from dreamloom.train.evaluate.config import EvaluateConfig, SampleConfig
from dreamloom.train.export.config import ExportConfig

_log = logging.getLogger(__name__)

FLAGS = Parameter(name="*")
"""Makes each field of a config a flag."""
LISTS = Parameter(name="*", consume_multiple=True)
"""The same, where a flag of several values takes all that follow it."""


def _statuses(_: object, tokens: Sequence[Token]) -> tuple[Status, ...]:
    names = [name for token in tokens for name in token.value.replace("-", "_").split(",") if name]
    for name in names:
        if name not in set(Status):
            raise ValueError(f"there is no status {name}; valid: {', '.join(Status)}")
    return tuple(map(Status, names))


RAY = Parameter(
    name="--ray",
    negative="",
    show_default=False,
    group=Group(
        "Ray", help="With any of these, Ray makes the parts: --ray.num-workers 0 uses all that there is.", sort_key=98
    ),
)
STATUSES = Parameter(consume_multiple=True, negative="", converter=_statuses, show_choices=False)
FOLDERS = Parameter(consume_multiple=True, negative="")


def filter_(
    collection: Annotated[Path, PathKind.ADDRESS],
    *,
    explain: bool = False,
    ray: Annotated[RayConfig | None, RAY] = None,
    config: Annotated[FilterConfig, FLAGS],
) -> None:
    """Choose candidates from a LAION index.

    Parameters
    ----------
    collection
        Folder of the collection to fill, or its address (s3://bucket/people).
    explain
        Show how many rows each rule would drop; write nothing.
    """
    if explain:
        with Terminal() as terminal, terminal.watch("filter") as progress:
            summary = laion.explain(config, progress)
        print_table(rows_table(f"Rows that filter would keep for {collection.name}", rules_rows(summary)))
    else:
        run_step(steps.FilterStep(collection_at(collection), config, ray=ray))


def scrape(
    collection: Annotated[Path, PathKind.ADDRESS],
    *,
    retry: Annotated[tuple[Status, ...], STATUSES] = (),
    ray: Annotated[RayConfig | None, RAY] = None,
    config: Annotated[ScrapeConfig, FLAGS] = ScrapeConfig(),
) -> None:
    """Download the candidates' images.

    Parameters
    ----------
    collection
        Folder of a collection with candidates, or its address (s3://bucket/people).
    retry
        Retry images with these statuses, such as timeout,http_429 (comma- or space-separated).
    """
    run_step(steps.ScrapeStep(collection_at(collection), config, retry, ray=ray))


def score(
    folder: Annotated[Path, PathKind.ADDRESS],
    *,
    output: Path | None = None,
    ray: Annotated[RayConfig | None, RAY] = None,
    config: Annotated[ScoreConfig, FLAGS] = ScoreConfig(),
) -> None:
    """Score each image: CLIP embedding, aesthetic score, similarity to its text, perceptual hash.

    Parameters
    ----------
    folder
        Collection with images (its folder, or its address, such as s3://bucket/people), or any folder of images.
    output
        For folders: table to make (.csv, .jsonl; .parquet has the embeddings, too); by default
        dreamloom-FOLDER-scores.csv in the current folder.
    """
    if is_plain_folder(folder):
        name = folder.absolute().name
        table = output or Path(f"dreamloom-{name}-scores.csv")
        with Terminal() as terminal, terminal.watch(f"score {name}") as progress:
            summary = score_folder(folder.expanduser(), config, table, progress)
        print(stage_line("score", name, summary))
        print(f"table: {table}")
        return
    refuse_output(folder, output)
    run_step(steps.ScoreStep(collection_at(folder), config, ray=ray))


def choose(
    *,
    training: Annotated[tuple[Path, ...], FOLDERS, PathKind.ADDRESS],
    ground_truth: Annotated[tuple[Path, ...], FOLDERS, PathKind.ADDRESS] = (),
    witness: Annotated[tuple[Path, ...], FOLDERS, PathKind.ADDRESS] = (),
    config: Annotated[ChooseConfig, FLAGS] = ChooseConfig(),
) -> None:
    """Choose the images to use, over all collections at once: thresholds, licences, duplicates.

    Parameters
    ----------
    training
        Folders or addresses of collections that the model is to learn.
    ground_truth
        Folders or addresses of collections that it is to keep.
    witness
        Folders or addresses of collections that it is never trained on, to measure what becomes of what is not
        rehearsed.
    """
    run_step(steps.ChooseStep(_sources(training, ground_truth, witness, {}, {}), config))


def balance(
    workspace: Path,
    *,
    training: Annotated[tuple[Path, ...], FOLDERS],
    ground_truth: Annotated[tuple[Path, ...], FOLDERS] = (),
    witness: Annotated[tuple[Path, ...], FOLDERS] = (),
    multiply: Annotated[dict[str, float] | None, Parameter(negative="")] = None,
    share: Annotated[dict[str, float] | None, Parameter(negative="")] = None,
    config: Annotated[BalanceConfig, FLAGS] = BalanceConfig(),
) -> None:
    """Assemble the training folder with ground truth at a ratio, and hold some images out.

    Parameters
    ----------
    workspace
        Folder for dataset/, heldout/ and dataset.parquet.
    training
        Folders of collections that the model is to learn.
    ground_truth
        Folders of collections that it is to keep.
    witness
        Folders of collections that it is never trained on, to measure what becomes of what is not rehearsed.
    multiply
        How often an epoch shows each image of a training collection: --multiply.NAME 2.
    share
        Weight of a ground truth collection relative to the others: --share.NAME 2.
    """
    sources = _sources(training, ground_truth, witness, multiply or {}, share or {})
    run_step(steps.BalanceStep(sources, config, workspace))


def dreambooth(
    subjects: Path, target: Path, *, config: Annotated[DreamBoothConfig, FLAGS] = DreamBoothConfig()
) -> None:
    """Make a training folder of subjects, and of class images that the base model generates.

    Parameters
    ----------
    subjects
        Folder with a folder per subject: its images, and a prompt in each of instance.txt and class.txt.
    target
        Training folder to make.
    """
    run_step(command_steps.DreamBoothStep(subjects, target, config))


def train(
    folder: Annotated[Path, PathKind.ADDRESS],
    run: Path,
    *,
    heldout: Annotated[Path | None, PathKind.ADDRESS] = None,
    plan: Annotated[bool, Parameter(negative="")] = False,
    config: Annotated[TrainConfig, FLAGS] = TrainConfig(),
) -> None:
    """Fine-tune a Stable Diffusion model on a training folder, or continue a run.

    Parameters
    ----------
    folder
        Training folder in EveryDream's format, as balance makes it; a webdataset's .tar; a table of images (.jsonl,
        .csv, .parquet); or an address of webdataset shards (s3://bucket/set).
    run
        Folder for checkpoints, samples, logs and evaluations. An unfinished run in it is continued.
    heldout
        Folder of images for evaluation, in training/, ground_truth/ and witness/, as balance makes it.
    plan
        Show which images, buckets and steps there would be; train nothing.
    """
    if plan:
        from dreamloom.flows.caption_lengths import caption_lengths, print_lengths
        from dreamloom.flows.plan import print_training
        from dreamloom.train.plan import plan as plan_training

        planned = plan_training(folder, config, heldout=heldout)
        print_training(planned)
        print_lengths(caption_lengths(lambda: list(planned.captions), config.base, t5_length=config.t5_length))
        return
    run_step(train_steps.TrainStep(folder, run, config, heldout))


def continue_(
    run: Path,
    *,
    max_train_steps: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    epochs: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    output: Path | None = None,
) -> None:
    """Train a finished run on, in a run folder of its own; the finished one stays as it is.

    With a constant learning rate it ends with the same bits as a run that is asked for at once, where no epoch was cut
    short. Else it is a warm start with the optimizer's state, and says so.

    Parameters
    ----------
    run
        Folder of the finished run, such as WORKSPACE/runs/TIME.
    max_train_steps
        Optimizer steps of the whole run, those that were taken among them.
    epochs
        Epochs of the whole run, instead.
    output
        Folder for the longer run; by default one named by the time, beside the finished one.
    """
    target = output or continuation_folder(run, max_train_steps, epochs)
    run_step(command_steps.ContinueStep(run, target, max_train_steps, epochs))


def evaluate(
    model: Annotated[str, PathKind.MODEL],
    *,
    base: Annotated[str, PathKind.MODEL],
    heldout: Annotated[Path, PathKind.ADDRESS],
    output: Path = Path("evaluation.json"),
    config: Annotated[EvaluateConfig, FLAGS] = EvaluateConfig(),
) -> None:
    """Measure what a model learned and what it forgot, compared with its base model.

    Parameters
    ----------
    model
        Run, checkpoint of a run, diffusers folder or hub ID.
    base
        Diffusers folder or hub ID of the base model.
    heldout
        Folder of images for evaluation, in training/, ground_truth/ and witness/, as balance makes it.
    output
        JSON file for the results.
    """
    run_step(train_steps.EvaluateStep(lambda: model, base, heldout, config, output))


def audit(
    model: Annotated[str, PathKind.MODEL],
    *,
    base: Annotated[str, PathKind.MODEL],
    output: Path,
    images: Path | None = None,
    config: Annotated[AuditConfig, FLAGS] = AuditConfig(),
) -> None:
    """Say what became of each concept between two models, also where nobody knows how the second was trained.

    Parameters
    ----------
    model
        Run, checkpoint of a run, diffusers folder, .safetensors or .ckpt file, or hub ID.
    base
        The model that it comes from: diffusers folder, file or hub ID.
    output
        Folder for audit.json, index.html and pictures; a killed audit goes on in it.
    images
        Real images to classify: a folder with a subfolder for each class, or of held-out images, as balance makes it.
    """
    from dreamloom.flows.audit_step import AuditStep  # imports torch

    step = AuditStep(model, base, output, images, config)
    run_step(step)
    for table in step.tables():
        print_table(table)


def sample(
    model: Annotated[str, PathKind.MODEL],
    *,
    output: Path | None = None,
    config: Annotated[SampleConfig, LISTS] = SampleConfig(),
) -> None:
    """Draw prompts with a trained model, below what its base draws in the same noise.

    Parameters
    ----------
    model
        Run, of which each kept checkpoint is a row; checkpoint; diffusers folder, single file or hub ID.
    output
        PNG to write: prompts and seeds side by side, models below each other; by default dreamloom-sample-MODEL.png in
        the current folder.
    """
    run_step(command_steps.SampleStep(model, output or Path(f"dreamloom-sample-{Path(model).name}.png"), config))


def export(checkpoint: Path, target: Path, *, config: Annotated[ExportConfig, FLAGS] = ExportConfig()) -> None:
    """Write a trained model in the formats of other programs.

    Parameters
    ----------
    checkpoint
        Run, or one of its checkpoints.
    target
        Folder to write.
    """
    run_step(train_steps.ExportStep(lambda: checkpoint, target, config))


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


def _sources(
    training: tuple[Path, ...],
    ground_truth: tuple[Path, ...],
    witness: tuple[Path, ...],
    multiply: dict[str, float],
    share: dict[str, float],
) -> list[Source]:
    learned, kept = map(collection_at, training), map(collection_at, ground_truth)
    sources = [Source(c, Role.TRAINING, multiply=multiply.pop(c.name, 1.0)) for c in learned]
    sources += [Source(c, Role.GROUND_TRUTH, share=share.pop(c.name, 1.0)) for c in kept]
    sources += [Source(collection_at(path), Role.WITNESS) for path in witness]
    for name in (*multiply, *share):
        raise UserError(
            f"--multiply.{name} or --share.{name} names no collection of its role; multiply is for training, share for "
            "ground truth."
        )
    return sources
