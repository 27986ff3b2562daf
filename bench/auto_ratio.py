"""Whether a run that finds its ratio of ground truth is as good as the best fixed ratio that holds the same limits.

    python -m bench.auto_ratio [--folder auto-ratio] [--seeds 0 1 2]

On the world of the study (bench/preservation_world.py), each run shows the demo's 36 zorps 20 times each, and beside
them 64 images of ground truth at a fixed ratio, or at the one that it finds (evaluated every 18 steps). Prints what the
checkpoint that is kept of each run learned and forgot. About a minute a run on one thread; a killed bench goes on.
"""

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

from bench.preservation_arms import BATCH, GROUND, MODELS, Arm, random_ground_truth
from bench.preservation_world import TAUGHT, make_world
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.results import read_evaluation
from dreamloom.train.loop.loop import train
from dreamloom.train.run.folder import TrainSummary

SHOWN, RATIOS = 720, (0.25, 0.5, 1.0, 2.0)
LIMITS = {"limit_mean": 0.3, "limit_worst": 0.5}
"""Of the base's loss: the small model forgets far more than Stable Diffusion does."""


def main() -> None:
    """Trains what is not trained yet, and prints a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("auto-ratio"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    make_world(folder / "world")
    for seed in arguments.seeds:
        for ratio in (*RATIOS, None):
            name = f"{'auto' if ratio is None else format(ratio, 'g')}-{seed}"
            summary = _train(folder, folder / "runs" / name, ratio, seed)
            print(f"{name:<10}{_line(folder / 'runs' / name, summary)}", flush=True)


def _train(folder: Path, run: Path, ratio: float | None, seed: int) -> TrainSummary:
    arm = Arm("", ratio or 1.0, random_ground_truth)
    dataset = folder / "datasets" / f"{arm.ratio:g}"
    arm.make_folder(folder / "world", dataset)
    length: dict[str, Any] = {"epochs": SHOWN // TAUGHT, "evaluate_every_n_steps": 18, "auto_ratio": True}
    if ratio is not None:
        length = {"max_train_steps": round(SHOWN * (1 + ratio) / BATCH), "evaluate_every_n_steps": 0}
    config = TrainConfig(
        base=str(MODELS / "stable-diffusion"),
        resolution=64,
        batch_size=BATCH,
        seed=seed,
        ground_truth=[GROUND],
        learning_rate=1e-4,
        text_encoder_learning_rate=2e-4 / 3,
        lr_scheduler="cosine",
        lr_warmup_images=80,
        eval_timesteps=4,
        sample_every_n_steps=0,
        sample_prompts=["a zorp"],
        sample_steps=1,
        num_workers=1,
        latent_cache=folder / "latents",
        **LIMITS,
        **length,
    )
    summary = train(dataset, run, config, folder / "world" / "heldout")
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    return summary


def _line(run: Path, summary: TrainSummary) -> str:
    evaluation = read_evaluation(run)
    assert evaluation is not None
    measures = ", ".join(f"{name} {measure}" for name, measure in evaluation.measures().items())
    worst = 0.0 if evaluation.worst is None else 100 * evaluation.worst.change
    return f"{measures}, worst {worst:.0f} %; {summary.steps} steps, {summary.shown[GROUND]} of ground truth"


if __name__ == "__main__":
    main()
