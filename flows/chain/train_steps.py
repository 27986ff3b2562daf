"""Training, evaluation and export as steps; see dreamloom.flows.chain.steps."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamloom.base.errors import StageFailed, UserError
from dreamloom.base.files.fingerprint import fingerprint
from dreamloom.base.files.remote import address_of
from dreamloom.base.files.remote_files import list_files
from dreamloom.base.progress import Progress
from dreamloom.base.stage import recipe
from dreamloom.base.tables.streamed_set import find_streamed_set
from dreamloom.flows.chain.steps import WHOLE, Outcome, Step
from dreamloom.flows.project.run_folders import (
    Postponed,
    claim_run_folder,
    disown_run_folder,
    find_postponed,
    heldout_folder,
    run_charts,
    run_folder,
)
from dreamloom.flows.project.speeds import remember_speed
from dreamloom.flows.terminal.terminal import indented, size
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.config import VERSION, EvaluateConfig, as_trained, hashed_settings
from dreamloom.train.evaluate.measure import MEASURES, Evaluation, percent
from dreamloom.train.evaluate.redraw import new_prompts
from dreamloom.train.evaluate.results import read_evaluation, stored_recipe, write_evaluation
from dreamloom.train.export.config import ExportConfig
from dreamloom.train.export.export import export, is_current
from dreamloom.train.run.find import find_trained_model
from dreamloom.train.run.folder import OtherRun, TrainSummary, best_checkpoint, read_summary

_log = logging.getLogger(__name__)

SAMPLES = "samples"
"""The part of a finished run that is made where its config has new prompts."""


@dataclass(frozen=True)
class TrainStep(Step):
    """Trains on any training folder."""

    folder: Path
    run_folder: Path
    config: TrainConfig
    heldout: Path | None
    stage = "train"

    def stale_parts(self) -> list[str]:
        """Returns the one part, unless the run is finished; then the samples, where prompts are new."""
        return _stale(self.run_folder, self.config)

    def run(self, progress: Progress, parts: Sequence[str] | None = None) -> Outcome:
        """Begins the run, or continues it."""
        return train_folder(self.folder, self.run_folder, self.config, self.heldout, progress)

    def charts(self) -> Mapping[str, Path]:
        """Returns the run's newest samples and its chart of measurements."""
        return run_charts(self.run_folder)

    @property
    def log_folder(self) -> Path:
        """In the run's folder."""
        return self.run_folder / "logs"


@dataclass(frozen=True)
class ProjectTrainStep(Step):
    """Trains on a workspace's dataset, in the run folder of its recipe."""

    workspace: Path
    config: TrainConfig
    min_new_images: int = 0
    """Images that the last run has not seen, from which on a new run begins."""
    stage = "train"

    def stale_parts(self) -> list[str]:
        """Returns the one part, unless the run is finished or postponed; then the samples, where prompts are new."""
        if self._postponed():
            return []
        return _stale(run_folder(self.workspace, self.config), self.config)

    def run(self, progress: Progress, parts: Sequence[str] | None = None) -> Outcome:
        """Begins the run, or continues it; or says why it does not begin yet."""
        if postponed := self._postponed():
            count = f"{postponed.new_images:,} new images since {postponed.last.name}"
            line = f"{'train':<21}{count}, fewer than train.when.new_images {self.min_new_images:,}: not trained"
            return Outcome(line, changed=False, ends_branch=True)
        try:
            return self._train(progress)
        except OtherRun as error:  # what it is made of is not what its note says: images were changed by hand
            _log.warning("%s A new run begins.", error)
            disown_run_folder(self.workspace, self.config)
            return self._train(progress)

    def _postponed(self) -> Postponed | None:
        return find_postponed(self.workspace, self.config, self.min_new_images) if self.min_new_images else None

    def _train(self, progress: Progress) -> Outcome:
        with claim_run_folder(self.workspace, self.config) as folder:
            finished = read_summary(folder)
            if finished and not _stale(folder, self.config):  # the folder is of this recipe: no image has to be read
                return _trained(finished, folder, is_new=False)
            return train_folder(
                self.workspace / "dataset", folder, self.config, heldout_folder(self.workspace), progress
            )

    def charts(self) -> Mapping[str, Path]:
        """Returns the run's newest samples and its chart of measurements."""
        return run_charts(run_folder(self.workspace, self.config))


@dataclass(frozen=True)
class EvaluateStep(Step):
    """Measures what a model learned and forgot, into a file; skipped where its recipe is unchanged."""

    model: Callable[[], Path | str]
    """The run, checkpoint or model; called when the step runs, as a run may not exist before."""
    base: str
    heldout: Path
    config: EvaluateConfig
    output: Path
    stage = "evaluate"

    def stale_parts(self) -> list[str]:
        """Returns the one part, unless the file holds this evaluation."""
        return [] if stored_recipe(self.output) == self._recipe() else [WHOLE]

    def run(self, progress: Progress, parts: Sequence[str] | None = None) -> Outcome:
        """Writes the evaluation.

        Raises:
            UserError: the file exists and is not an evaluation.
        """
        from dreamloom.train.evaluate.evaluate import evaluate

        stored, wanted = stored_recipe(self.output), self._recipe()
        if stored == wanted and (evaluation := read_evaluation(self.output)):
            return Outcome(_evaluation_line(evaluation, "there already"), changed=False)
        if self.output.exists() and stored is None:
            raise UserError(f"{self.output} exists and is not an evaluation; name another file.")
        evaluation = evaluate(self.model(), self.base, self.heldout, self.config, progress)
        write_evaluation(self.output, evaluation, wanted)
        return Outcome(_evaluation_line(evaluation, str(self.output)), changed=True)

    def _recipe(self) -> str:
        trained = find_trained_model(self.model())
        weights = fingerprint(trained.checkpoint or trained.name)  # of a run, the checkpoint that is measured
        address, streamed = address_of(self.heldout), find_streamed_set(self.heldout)
        if streamed:
            heldout = streamed.metadata()["content"]
        else:
            heldout = str(list_files(address)) if address else fingerprint(self.heldout)
        fingerprints = [weights, fingerprint(self.base), heldout]
        return recipe("evaluate", VERSION, hashed_settings(as_trained(trained.config, self.config)), fingerprints)


@dataclass(frozen=True)
class ExportStep(Step):
    """Writes a run's weights into a model folder."""

    checkpoint: Callable[[], Path]
    """The run or checkpoint; called when the step runs, as a run may not exist before."""
    target: Path
    config: ExportConfig
    stage = "export"

    def stale_parts(self) -> list[str]:
        """Returns the one part, unless the model folder is up to date."""
        return [] if is_current(self.checkpoint(), self.target, self.config) else [WHOLE]

    def run(self, progress: Progress, parts: Sequence[str] | None = None) -> Outcome:
        """Writes the model folder."""
        summary = export(self.checkpoint(), self.target, self.config, progress)
        how = size(summary.bytes) if summary.changed else "there already"
        line = f"{self.target}, as of {summary.images_seen:,} images seen; {how}{indented(summary.note)}"
        return Outcome(f"{'export':<21}{line}", summary.changed)


class LimitExceeded(StageFailed):
    """A model forgot more than its limits allow, and is not published."""


@dataclass(frozen=True)
class PublishStep(ExportStep):
    """Writes a project's model folder, unless the model forgot more than the limits allow: then the old one stays."""

    broken: Callable[[], str]
    """Returns which limits are broken, in a sentence; empty if none is."""

    def run(self, progress: Progress, parts: Sequence[str] | None = None) -> Outcome:
        """Writes the model folder.

        Raises:
            LimitExceeded: the model forgot more than the limits allow; nothing is written.
        """
        if self.stale_parts() and (broken := self.broken()):
            kept = "stays as it was" if self.target.exists() else "is not written"
            raise LimitExceeded(
                f"The model forgot more than its limits allow ({broken}), so {self.target} {kept}. Raise balance.ratio "
                f"or the limits of train; `dreamloom export {self.checkpoint()} FOLDER` writes it all the same."
            )
        return super().run(progress, parts)


def _stale(run: Path, config: TrainConfig) -> list[str]:
    if read_summary(run) is None:
        return [WHOLE]
    return [SAMPLES] if new_prompts(run, config) else []


def train_folder(folder: Path, run: Path, config: TrainConfig, heldout: Path | None, progress: Progress) -> Outcome:
    """Trains on a training folder, or goes on, and remembers how fast this machine is."""
    from dreamloom.train.loop.loop import train

    is_new = read_summary(run) is None
    summary = train(folder, run, config, heldout, progress)
    if is_new and summary.images_per_second:
        remember_speed(config, summary.images_per_second)
    return _trained(summary, run, is_new)


def _trained(summary: TrainSummary, run: Path, is_new: bool) -> Outcome:
    if not summary.finished:
        saved = f"and saved after {summary.images_seen:,} of {summary.total_images:,} images"
        line = f"stopped {saved if summary.images_seen else 'before the first step'}; run again to go on"
    else:
        line = f"{summary.steps:,} steps, {summary.images_seen:,} images seen; {run if is_new else 'there already'}"
        line += indented("; ".join(filter(None, [summary.verdict, _measures(summary)])))
        line += "".join(indented(text) for text in (summary.ended, summary.limits or _best(summary, run)))
    left_out = (
        f"{summary.problems:,} can't take part; {run / 'problems.json'} says which, and why" if summary.problems else ""
    )
    drawn = f"drew {len(summary.drawn)} new prompts, see {run / 'samples.png'}" if summary.drawn else ""
    line += indented(left_out) + indented(drawn)
    return Outcome(f"{'train':<21}{line}", is_new or bool(summary.drawn), finished=summary.finished)


def _best(summary: TrainSummary, run: Path) -> str:
    """Says which checkpoint is the best, where it is not the last, whose measures are told; empty where it is."""
    best = best_checkpoint(run) if _measures(summary) else None
    if best is None or int(best.name) == summary.images_seen:
        return ""
    return f"that is of the last checkpoint; the best, which export takes, is the one after {int(best.name):,} images"


def _measures(summary: TrainSummary) -> str:
    return ", ".join(
        f"{label} {percent(change, getattr(summary, f'{name}_error'))}"
        for name, label in MEASURES.items()
        if (change := getattr(summary, name)) is not None
    )


def _evaluation_line(evaluation: Evaluation, where: str) -> str:
    measures = [f"{name} {measure} ({measure.images} images)" for name, measure in evaluation.measures().items()]
    line = f"{evaluation.verdict or 'nothing held out to measure what was forgotten'}; {where}"
    return f"{'evaluate':<21}{line}{indented(', '.join(measures))}"
