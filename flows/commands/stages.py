"""The commands of the stages on collections. Each takes the folders that it works on, and its config as flags."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, Token

from dreamloom.base.errors import UserError
from dreamloom.base.stage import PathKind
from dreamloom.curate.config import BalanceConfig, ChooseConfig, ScoreConfig
from dreamloom.curate.score_folder import score_folder
from dreamloom.curate.source import Role, Source
from dreamloom.flows.chain import steps
from dreamloom.flows.commands.step_command import FLAGS, RAY, collection_at, is_plain_folder, refuse_output, run_step
from dreamloom.flows.project.ray_config import RayConfig
from dreamloom.flows.terminal.terminal import Terminal, print_table, rows_table, rules_rows, stage_line
from dreamloom.scrape.collection import Status
from dreamloom.scrape.index import filter as laion
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.web.config import ScrapeConfig


def _statuses(_: object, tokens: Sequence[Token]) -> tuple[Status, ...]:
    names = [name for token in tokens for name in token.value.replace("-", "_").split(",") if name]
    for name in names:
        if name not in set(Status):
            raise ValueError(f"there is no status {name}; valid: {', '.join(Status)}")
    return tuple(map(Status, names))


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
    workspace: Annotated[Path, PathKind.ADDRESS],
    *,
    training: Annotated[tuple[Path, ...], FOLDERS, PathKind.ADDRESS],
    ground_truth: Annotated[tuple[Path, ...], FOLDERS, PathKind.ADDRESS] = (),
    witness: Annotated[tuple[Path, ...], FOLDERS, PathKind.ADDRESS] = (),
    multiply: Annotated[dict[str, float] | None, Parameter(negative="")] = None,
    share: Annotated[dict[str, float] | None, Parameter(negative="")] = None,
    config: Annotated[BalanceConfig, FLAGS] = BalanceConfig(),
) -> None:
    """Assemble the training folder with ground truth at a ratio, and hold some images out.

    Parameters
    ----------
    workspace
        Folder for dataset/, heldout/ and dataset.parquet. Of collections at addresses, a folder or an address for
        dataset.parquet, as their images stay where they are.
    training
        Folders or addresses of collections that the model is to learn.
    ground_truth
        Folders or addresses of collections that it is to keep.
    witness
        Folders or addresses of collections that it is never trained on, to measure what becomes of what is not
        rehearsed.
    multiply
        How often an epoch shows each image of a training collection: --multiply.NAME 2.
    share
        Weight of a ground truth collection relative to the others: --share.NAME 2.
    """
    sources = _sources(training, ground_truth, witness, multiply or {}, share or {})
    run_step(steps.BalanceStep(sources, config, workspace))


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
