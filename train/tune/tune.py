"""Probes ratios of ground truth with short runs, and recommends the least of it that holds the limits.

    <output>/probes/<ratio>-<recipe>/    a probe's run: samples, logs and evaluation; no checkpoint once it is done
    <output>/tune.json, tune.png         what was measured so far, and the recommendation

What is done stays: a tuning that was stopped or killed goes on, and one with more ratios runs those alone.
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from dreamloom.base.progress import Progress, silent
from dreamloom.base.sharing.folder_lock import lock
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.results import read_evaluation
from dreamloom.train.loop.limits import excess, tell_broken
from dreamloom.train.loop.loop import train
from dreamloom.train.run.folder import TrainSummary
from dreamloom.train.tune.chart import draw_chart
from dreamloom.train.tune.config import TuneConfig
from dreamloom.train.tune.probes import Probe, plan_probes
from dreamloom.train.tune.results import ProbeResult, Tuning, write_tuning

_log = logging.getLogger(__name__)


def tune(
    folder: Path | str,
    output: Path | str,
    config: TrainConfig,
    tuning: TuneConfig = TuneConfig(),
    heldout: Path | str | None = None,
    progress: Progress = silent,
) -> Tuning:
    """Probes ratios of ground truth on a training folder, of which config.ground_truth names the folders.

    Args:
        folder: the training folder; nothing is written to it.
        output: folder for the probes, tune.json and tune.png.
        config: of the run that is to come; its limits are 2 % mean and 5 % worst where it has none.
        tuning: which ratios, and how long.
        heldout: the folder of held-out images; None: those that the config holds out.
        progress: called with the images seen, of all probes together.

    Returns:
        What was measured; not `finished` where SIGTERM or Ctrl-C stopped it, and the next call goes on.

    Raises:
        UserError: the config, the folders or the models are wrong, or nothing is held out to measure the limits by.
    """
    folder, output, heldout = Path(folder), Path(output).expanduser(), Path(heldout) if heldout else None
    probes = plan_probes(folder, output, config, tuning, heldout, progress)
    return run_probes(probes, folder, output, heldout, progress)


def run_probes(
    probes: Sequence[Probe], folder: Path, output: Path, heldout: Path | None, progress: Progress = silent
) -> Tuning:
    """Runs the probes that are not done, and writes the results after each; see `tune`."""
    results: list[ProbeResult] = []
    with lock(output):
        total = sum(probe.images for probe in probes if probe.summary is None)
        done = 0
        for probe in probes:
            is_new = probe.summary is None
            summary = train(folder, probe.folder, probe.config, heldout, _within(progress, probe, done, total))
            if not summary.finished:
                return Tuning(tuple(results), probe.config, finished=False)
            done += probe.images if is_new else 0
            shutil.rmtree(probe.folder / "checkpoints", ignore_errors=True)  # it is measured; nobody goes on with it
            results.append(_result(probe, summary))
            found = Tuning(tuple(results), probe.config, finished=len(results) == len(probes))
            write_tuning(output / "tune.json", found)
            draw_chart(found, output / "tune.png")
            _log.info("%s: %s", probe.title, summary.verdict)
    return found


def _within(progress: Progress, probe: Probe, before: int, of_all: int) -> Progress:
    """Returns the progress of a probe, as a part of that of all."""

    def report(done: int, total: int | None, note: str = "") -> None:
        seen = done if total == probe.images else 0
        progress(before + seen, of_all, f"{probe.title}: {note}")

    return report


def _result(probe: Probe, summary: TrainSummary) -> ProbeResult:
    evaluation = read_evaluation(probe.folder)
    assert evaluation is not None  # the limits have images to measure them by
    speed, point = summary.images_per_second, evaluation.to_dict()
    return ProbeResult(
        title=probe.title,
        ratio=probe.ratio,
        prior_prediction_weight=probe.prior_prediction_weight,
        learned=evaluation.learned,
        forgotten=evaluation.forgotten,
        forgotten_unrehearsed=evaluation.forgotten_unrehearsed,
        worst=evaluation.worst,
        excess=excess(point, probe.config),
        broken=tell_broken(point, probe.config),
        steps=summary.steps,
        seconds=summary.images_seen / speed if speed else None,
    )
