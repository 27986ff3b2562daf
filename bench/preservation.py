"""The study: which way of teaching a model something new keeps most of what it knew, and what it costs.

    python -m bench.preservation [--folder preservation] [--arms naive truth …] [--short]

On the demo's world (bench/preservation_world.py), every arm (bench/preservation_arms.py) is shown the same number of
images of the concept, at one of three settings. They are tried on a seed and prompts that are not reported, first the
one that keeps most, until one draws 60 % of the concept's pictures right; if none does, that which draws most is taken.
Arms that differ in their ground truth alone take the settings of one of them. Three seeds follow. In a second table
arms without other images train for as many steps as those with as many others. The demo's judge looks at the whole
caption of unseen prompts, of shapes that are rehearsed and of others. Last, a model of each arm is audited: how it
tells the old shapes apart in real images, and how far its predictions for them have drifted. What that says is compared
with the pictures drawn right: over the shapes of models of several arms, and over those of naive models, by many
pictures of each.

Two processes work side by side. What is done lies in the folder, so a killed study goes on, arm by arm. Prints a table
and, last, one line of JSON, which is also the folder's preservation.json; bench/preservation_page.py makes the page.
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

from bench.preservation_arms import ALONE, ARMS, AUDITED_SEED, BATCH, COMPARED, MODELS, SHOWN
from bench.preservation_report import summarize, table
from bench.preservation_world import CLASSES, VOCABULARY, make_classes, make_exam, make_world, ranking_prompts
from dreamloom.demo.world import Scene, caption

TRIAL_SEED, SEEDS = 100, (0, 1, 2)
DRAWING_STEPS = 12
ENOUGH_RIGHT = 0.6
"""Share of the concept's pictures that settings must draw right, so that arms are compared at about equal learning."""
FINAL, LONG, TRIAL, AUDIT, RANK = "final", "long", "trial", "audit", "rank"


@dataclass(frozen=True)
class Task:
    """A training to do, and the file that its results go to."""

    folder: Path
    arm: str
    seed: int
    stage: str
    trial: int
    images: int

    @property
    def file(self) -> Path:
        """Where the results lie."""
        return self.folder / "results" / f"{self.stage}-{self.arm}-{self.trial}-{self.seed}.json"


def main() -> None:
    """Runs what is not done yet, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("preservation"))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--short", action="store_true", help="a tenth of the images: to see that it runs")
    arguments = parser.parse_args()
    folder, images = arguments.folder.absolute(), SHOWN // 10 if arguments.short else SHOWN
    make_world(folder / "world")
    make_classes(folder)
    (folder / "results").mkdir(exist_ok=True)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        tried = dict.fromkeys(ARMS[name].trials_of or name for name in reversed(arguments.arms))
        list(pool.map(partial(try_settings, folder, images), tried))
        best = {name: _best(folder, name) for name in arguments.arms}
        finals = [Task(folder, n, seed, FINAL, best[n], images) for seed in SEEDS for n in best]
        longs = [Task(folder, n, seed, LONG, best[n], 2 * images) for seed in SEEDS for n in best if n in ALONE]
        _run(pool, [Task(folder, "base", 0, FINAL, 0, 0), *finals, *longs])
        audited = [(n, seed) for n in best for seed in SEEDS if n == "naive" or seed == AUDITED_SEED]
        audits = [Task(folder, n, seed, AUDIT, best[n], images) for n, seed in audited]
        ranks = [Task(folder, n, seed, RANK, best[n], images) for n in best if n == "naive" for seed in SEEDS]
        _run(pool, audits + ranks)
    results = summarize(folder / "results", best)
    (folder / "preservation.json").write_text(json.dumps(results, indent=1))
    print(table(results))
    print(json.dumps(results))


def _run(pool: ProcessPoolExecutor, tasks: list[Task]) -> None:
    left = [task for task in tasks if not task.file.exists()]
    for number, task in enumerate(pool.map(run_task, left), 1):
        print(f"{number} of {len(left)}: {task.stage} of {task.arm}, seed {task.seed}", flush=True)


def try_settings(folder: Path, images: int, name: str) -> None:
    """Tries an arm's settings in turn, until one has learned enough. Runs in a process of its own."""
    for number in range(len(ARMS[name].trials)):
        task = Task(folder, name, TRIAL_SEED, TRIAL, number, images)
        if not task.file.exists():
            run_task(task)
        right = fmean(json.loads(task.file.read_text())["new"])
        print(f"trial {number + 1} of {name}: {right:.0%} right", flush=True)
        if right >= ENOUGH_RIGHT:
            return


def _best(folder: Path, name: str) -> int:
    """Which trial of an arm was the first to learn enough; if none did, learned most."""
    files = (folder / "results").glob(f"{TRIAL}-{ARMS[name].trials_of or name}-[0-9]-*.json")
    new = [fmean(json.loads(file.read_text())["new"]) for file in sorted(files)]
    return next((trial for trial, right in enumerate(new) if right >= ENOUGH_RIGHT), new.index(max(new)))


def run_task(task: Task) -> Task:
    """Trains, measures, draws and marks; writes the results. Runs in a process of its own."""
    start = time.process_time()
    if task.arm == "base":
        results = _examine(MODELS / "stable-diffusion")
    else:
        results = {AUDIT: _audit, RANK: _rank}.get(task.stage, _train)(task)
    results["seconds"] = round(time.process_time() - start, 1)
    temporary = task.file.with_suffix(".tmp")
    temporary.write_text(json.dumps(results))
    temporary.replace(task.file)
    return task


def _train(task: Task) -> dict[str, Any]:
    from dreamloom.base.versions import RUN
    from dreamloom.train.config import TrainConfig
    from dreamloom.train.evaluate.results import read_evaluation
    from dreamloom.train.export.config import ExportConfig
    from dreamloom.train.export.export import export
    from dreamloom.train.loop.limits import has_limits
    from dreamloom.train.loop.loop import train
    from dreamloom.train.run.folder import best_point

    arm, world = ARMS[task.arm], task.folder / "world"
    dataset, run = task.folder / "datasets" / task.arm, task.folder / "runs" / task.file.stem
    arm.make_folder(world, dataset)
    trial = arm.chosen(task.trial)
    config = TrainConfig(
        base=str(MODELS / "stable-diffusion"),
        resolution=64,
        batch_size=BATCH,
        seed=task.seed,
        eval_timesteps=4,
        sample_every_n_steps=0,
        sample_prompts=["a zorp"],
        sample_steps=1,
        num_workers=1,
        latent_cache=task.folder / "latents" / str(os.getpid()),  # one process writes to a cache at a time
        **arm.config(trial, task.images),
    )
    is_trial, results = task.stage == TRIAL, dict[str, Any]()
    train(dataset, run, config, None if is_trial else world / "heldout")
    if evaluation := read_evaluation(run):
        names = ("learned", "forgotten", "forgotten_unrehearsed")
        results = {name: getattr(evaluation, name).change for name in names}
    if has_limits(config):
        points = RUN.read_json(run / "evaluation.json")["points"]
        kept = next(point for point in points if point["images_seen"] == best_point(points))
        results["beyond"] = kept["excess"]
    results["settings"] = trial
    model = task.folder / "models" / task.file.stem
    export(run, model, ExportConfig(dtype="fp32", single_file=False))
    results |= _examine(model, is_trial)
    shutil.rmtree(run)
    if is_trial:
        shutil.rmtree(model)
    return results


def _audit(task: Task) -> dict[str, Any]:
    from dreamloom.train.audit.audit import audit
    from dreamloom.train.audit.config import AuditConfig

    model = task.folder / "models" / task.file.stem.replace(AUDIT, FINAL)
    config = AuditConfig(
        resolution=64,
        vocabulary=task.folder / VOCABULARY,
        max_concepts=None if task.arm in COMPARED else 1,
        images_per_class=8,
        num_choices=None,
        num_pictures=0,
        batch_size=64,
        num_workers=1,
    )
    base = str(MODELS / "stable-diffusion")
    # a folder of this process, in which the base is asked once about all images
    found = audit(model, base, task.folder / "audits" / str(os.getpid()), config, task.folder / CLASSES)
    classes = {each.name: asdict(each) for each in found.classes}
    return {"classes": classes, "drift": {each.prompt: each.drift for each in found.drift}}


def _rank(task: Task) -> dict[str, Any]:
    """Has a model draw many pictures of each old shape; says which are right."""
    scenes = ranking_prompts()
    return {"old": _by_shape(scenes, _draw(task.folder / "models" / task.file.stem.replace(RANK, FINAL), scenes))}


def _examine(model: Path, trial: bool = False) -> dict[str, Any]:
    """Has a model draw the exam; says of each prompt whether all of its caption is right."""
    exam = make_exam(trial)
    right = _draw(model, (*exam.new, *exam.old))
    return {"new": right[: len(exam.new)], "old": _by_shape(exam.old, right[len(exam.new) :])}


def _by_shape(scenes: Sequence[Scene], right: Sequence[bool]) -> dict[str, list[bool]]:
    marks: dict[str, list[bool]] = {}
    for scene, is_right in zip(scenes, right, strict=True):
        marks.setdefault(scene.things[0].shape, []).append(is_right)
    return marks


def _draw(model: Path, scenes: Sequence[Scene]) -> list[bool]:
    """Has a model draw scenes; says of each whether all of its caption is right."""
    import torch
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging

    from dreamloom.demo.judge import judge, matches
    from dreamloom.demo.pretrain_measure import generate

    logging.disable_progress_bar()
    pipeline = StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    images = generate(pipeline, [caption(scene) for scene in scenes], 5, DRAWING_STEPS)
    return [bool(matches(judge(image), scene).all) for image, scene in zip(images, scenes, strict=True)]


if __name__ == "__main__":
    main()
