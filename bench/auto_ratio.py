"""Whether a run that finds its ratio of ground truth is as good as the best fixed ratio that holds the same limits.

    python -m bench.auto_ratio [--folder auto-ratio] [--seeds 0 1 2]

On the world of the study (bench/preservation_world.py), each run shows the demo's 36 zorps 20 times each, and beside
them 64 images of ground truth at a fixed ratio, or at the one that it finds (evaluated every 18 steps). Prints what
each run had learned at its end, and by how much it was beyond its limits, and, last, a line of JSON: for each seed
whether the run that finds its ratio held them, and what it learned as a share of the best fixed ratio that holds them.
About a minute a run on one thread; a killed bench goes on.
"""

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

from bench.preservation_arms import BATCH, GROUND, MODELS, Arm, random_ground_truth
from bench.preservation_world import TAUGHT, make_world
from dreamloom.base.versions import RUN
from dreamloom.train.config import TrainConfig
from dreamloom.train.loop.loop import train

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
    print(f"{'run':<12}{'learned':>9}{'mean':>8}{'beyond':>8}{'steps':>7}{'ground truth':>14}")
    results = {}
    for seed in arguments.seeds:
        runs = {_name(ratio): run(folder, ratio, seed) for ratio in (*RATIOS, None)}
        results[seed] = compare(runs) | {"runs": runs}
    print(json.dumps(results))


def compare(runs: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Compares the run that finds its ratio with the fixed ratio that learned most within the limits."""
    auto, fixed = runs[_name(None)], {name: run for name, run in runs.items() if name != _name(None)}
    holding = {name: run["learned"] for name, run in fixed.items() if run["beyond"] == 0}
    best = max(holding, key=holding.__getitem__, default=None)
    share = None if best is None else round(auto["learned"] / holding[best], 3)
    return {"held": auto["beyond"] == 0, "best_fixed": best, "learned_of_best_fixed": share}


def run(folder: Path, ratio: float | None, seed: int) -> dict[str, float]:
    """Trains with a ratio, or with the one that the run finds, unless it is done; prints and returns its end."""
    name = f"{_name(ratio)}-{seed}"
    arm, target = Arm("", ratio or 1.0, random_ground_truth), folder / "runs" / name
    dataset = folder / "datasets" / f"{arm.ratio:g}"
    arm.make_folder(folder / "world", dataset)
    summary = train(dataset, target, make_config(folder, ratio, seed), folder / "world" / "heldout")
    shutil.rmtree(target / "checkpoints", ignore_errors=True)
    end = RUN.read_json(target / "evaluation.json")["points"][-1]
    found = {
        "learned": end["learned"]["change"],
        "forgotten": end["forgotten"]["change"],
        "beyond": end["excess"],
        "steps": summary.steps,
        "ground_truth": summary.shown[GROUND],
    }
    percents = f"{found['learned']:>9.1%}{found['forgotten']:>8.1%}{found['beyond']:>8.1%}"
    print(f"{name:<12}{percents}{found['steps']:>7}{found['ground_truth']:>14}", flush=True)
    return found


def make_config(folder: Path, ratio: float | None, seed: int) -> TrainConfig:
    """Returns the config of a run that shows as many images of the concept, whatever its ratio."""
    length: dict[str, Any] = {"epochs": SHOWN // TAUGHT, "evaluate_every_n_steps": 18, "auto_ratio": True}
    if ratio is not None:
        length = {"max_train_steps": round(SHOWN * (1 + ratio) / BATCH), "evaluate_every_n_steps": 0}
    return TrainConfig(
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


def _name(ratio: float | None) -> str:
    return "auto" if ratio is None else f"{ratio:g}"


if __name__ == "__main__":
    main()
