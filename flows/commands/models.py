"""The commands about models: train one, go on, measure, draw, export. Each takes its stage's config as flags."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from dreamloom.base.stage import PathKind
from dreamloom.flows.chain import command_steps, train_steps
from dreamloom.flows.commands.step_command import FLAGS, LISTS, run_step
from dreamloom.flows.project.run_folders import continuation_folder
from dreamloom.flows.terminal.terminal import print_table
from dreamloom.train.audit.config import AuditConfig
from dreamloom.train.config import DreamBoothConfig, TrainConfig
from dreamloom.train.evaluate.config import EvaluateConfig, SampleConfig
from dreamloom.train.export.config import ExportConfig


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
        from dreamloom.flows.plan.caption_lengths import caption_lengths, print_lengths
        from dreamloom.flows.plan.plan import print_training
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

    Settings that are not given are those of the model's run, if it has one.

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
    from dreamloom.flows.chain.audit_step import AuditStep  # imports torch

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
