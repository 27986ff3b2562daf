"""Steps that only commands run: a longer run, DreamBooth folders and samples; see dreamloom.flows.chain.steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dreamloom.base.progress import Progress
from dreamloom.flows.chain.steps import WHOLE, Outcome, Step
from dreamloom.flows.chain.train_steps import train_folder
from dreamloom.flows.project.run_folders import note_project
from dreamloom.flows.terminal.terminal import indented
from dreamloom.train.config import DreamBoothConfig
from dreamloom.train.dreambooth import dreambooth
from dreamloom.train.evaluate.config import SampleConfig
from dreamloom.train.evaluate.sample_model import draw_model
from dreamloom.train.loop.continuing import continue_run
from dreamloom.train.run.folder import read_summary


@dataclass(frozen=True)
class ContinueStep(Step):
    """Goes on from a finished run, in a run folder of its own."""

    finished_run: Path
    run_folder: Path
    max_train_steps: int | None
    epochs: int | None
    stage = "continue"

    def stale_parts(self) -> list[str]:
        """Returns the one part, unless the longer run is finished."""
        return [] if read_summary(self.run_folder) else [WHOLE]

    def run(self, progress: Progress, parts: Sequence[str] | None = None) -> Outcome:
        """Begins the longer run, or continues it."""
        length = (self.max_train_steps, self.epochs)
        found = continue_run(self.finished_run, self.run_folder, *length, progress)
        project = note_project(self.finished_run, found)
        outcome = train_folder(found.folder, found.run, found.config, found.heldout, progress)
        how = f"went on after {found.begins_at:,} images, to the bits of a run that is asked for at once"
        if found.reason:
            how = f"a warm start after {found.begins_at:,} images, with the optimizer's state: {found.reason}"
        return replace(outcome, message=outcome.message + indented(how) + indented(project))

    @property
    def log_folder(self) -> Path:
        """In the finished run's parent, as the longer run is not there yet."""
        return self.finished_run.parent / "logs"


@dataclass(frozen=True)
class DreamBoothStep(Step):
    """Makes a training folder of subjects, and of class images that the base model draws."""

    subjects: Path
    target: Path
    config: DreamBoothConfig
    stage = "dreambooth"

    def run(self, progress: Progress, parts: Sequence[str] | None = None) -> Outcome:
        """Draws the class images that are missing, and writes the training folder."""
        done = dreambooth(self.subjects, self.target, self.config, progress)
        counts = f"{done.subjects} subjects, {done.images:,} images of them, {done.class_images:,} of their classes"
        return Outcome(f"{'dreambooth':<21}{counts} ({done.drawn:,} drawn now); {self.target}", done.drawn > 0)


@dataclass(frozen=True)
class SampleStep(Step):
    """Draws prompts with a trained model into a PNG."""

    model: str
    output: Path
    config: SampleConfig
    stage = "sample"

    def run(self, progress: Progress, parts: Sequence[str] | None = None) -> Outcome:
        """Draws the images."""
        count = draw_model(self.model, self.output, self.config, progress)
        return Outcome(f"{'sample':<21}{count:,} images; {self.output}", changed=True)
