"""The stages as Prefect flows of their own, for deployments. Their steps are those of the chain."""

import logging
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.states import Cancelled
from pydantic import Field

from dreamloom.base.stage import StageConfig
from dreamloom.caption.config import CaptionConfig
from dreamloom.curate.config import BalanceConfig, ChooseConfig, ScoreConfig
from dreamloom.curate.source import Role, Source
from dreamloom.flows import artifacts, steps, train_steps
from dreamloom.flows.logs import PRINTED, log_to_file
from dreamloom.flows.tables import balance_rows
from dreamloom.flows.terminal import Terminal
from dreamloom.flows.tracking import run_parts
from dreamloom.scrape.collection import Collection
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.config import EvaluateConfig
from dreamloom.train.export.config import ExportConfig

_log = logging.getLogger(__name__)


class SourceParameter(StageConfig):
    """A collection and its role, as a form of the dashboard shows them."""

    collection: Path = Field(description="Folder of the collection.")
    role: Role = Field(
        description="training: what the model is to learn; ground_truth: what it is to keep; witness: what "
        "it is never trained on, to measure what becomes of what is not rehearsed."
    )
    share: float = Field(1.0, gt=0, description="Ground truth only: its weight relative to the other sources.")
    multiply: float = Field(1.0, gt=0, description="Training images only: how often an epoch shows each.")

    def source(self) -> Source:
        """Returns the source as choose and balance take it."""
        return Source(Collection(self.collection), self.role, self.share, self.multiply)


@flow(name="filter", flow_run_name="filter {collection.name}")
def filter_flow(collection: Path, config: FilterConfig) -> Any:
    """Chooses candidates from a LAION index."""
    return run_step(steps.FilterStep(Collection(collection), config))


@flow(name="scrape", flow_run_name="scrape {collection.name}")
def scrape_flow(collection: Path, config: ScrapeConfig = ScrapeConfig()) -> Any:
    """Downloads the candidates' images."""
    return run_step(steps.ScrapeStep(Collection(collection), config))


@flow(name="score", flow_run_name="score {collection.name}")
def score_flow(collection: Path, config: ScoreConfig = ScoreConfig()) -> Any:
    """Scores each image with CLIP."""
    return run_step(steps.ScoreStep(Collection(collection), config))


@flow(name="choose")
def choose_flow(sources: list[SourceParameter], config: ChooseConfig = ChooseConfig()) -> Any:
    """Chooses the images to use, over all collections at once."""
    return run_step(steps.ChooseStep([source.source() for source in sources], config))


@flow(name="caption", flow_run_name="caption {collection.name}")
def caption_flow(collection: Path, config: CaptionConfig = CaptionConfig()) -> Any:
    """Captions the images that came without a caption to keep."""
    return run_step(steps.CaptionStep(Collection(collection), config))


@flow(name="balance", flow_run_name="balance {workspace.name}")
def balance_flow(workspace: Path, sources: list[SourceParameter], config: BalanceConfig = BalanceConfig()) -> Any:
    """Assembles the training folder with ground truth at a ratio."""
    state = run_step(steps.BalanceStep([source.source() for source in sources], config, workspace))
    artifacts.publish_table("balance", balance_rows(workspace), "What is trained on")
    return state


@flow(name="train", flow_run_name="train {run.name}")
def train_flow(folder: Path, run: Path, heldout: Path | None = None, config: TrainConfig = TrainConfig()) -> Any:
    """Fine-tunes a Stable Diffusion model on a training folder, or continues a run."""
    return run_step(train_steps.TrainStep(folder, run, config, heldout))


@flow(name="evaluate")
def evaluate_flow(model: str, base: str, heldout: Path, output: Path, config: EvaluateConfig = EvaluateConfig()) -> Any:
    """Measures what a model learned and what it forgot."""
    return run_step(train_steps.EvaluateStep(lambda: model, base, heldout, config, output))


@flow(name="export")
def export_flow(checkpoint: Path, target: Path, config: ExportConfig = ExportConfig()) -> Any:
    """Writes a trained model in the formats of other programs."""
    return run_step(train_steps.ExportStep(lambda: checkpoint, target, config))


def run_step(step: steps.Step) -> Any:
    """Runs a step inside a flow.

    Returns:
        The outcome's message; a cancelled state where the step was asked to stop.
    """
    with log_to_file(step.log_folder), Terminal() as terminal:
        outcome = run_parts(step, terminal)
        _log.info("%s", outcome.message, extra=PRINTED)
    return outcome.message if outcome.finished else Cancelled(message=outcome.message)
