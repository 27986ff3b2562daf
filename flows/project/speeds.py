"""Remembers how fast this machine trains, so that a plan can tell the time before a project's first run.

<cache>/speeds.json     what decides the speed, as a hash → images per second of the newest run like it
"""

import contextlib
import json
import tempfile
from pathlib import Path

from dreamloom.base.files.atomic import commit_json
from dreamloom.base.files.cache_folder import cache_folder
from dreamloom.base.files.fingerprint import fingerprint
from dreamloom.base.progress import Progress
from dreamloom.base.stage import recipe
from dreamloom.train.config import TrainConfig

_FILE = "speeds.json"
_DECISIVE = (
    *("resolution", "batch_size", "gradient_accumulation_steps", "precision", "weight_dtype", "device", "compile"),
    *("gradient_checkpointing", "optimizer", "lora_rank", "text_encoder_learning_rate"),
)
PROBE_STEPS = 5
"""Optimizer steps of a probe, of which the first is slower than the others."""


def remembered_speed(config: TrainConfig) -> float | None:
    """Returns the images per second of the newest run like this one on this machine; None where there was none."""
    speed = _read().get(_key(config))
    return float(speed) if isinstance(speed, int | float) else None


def remember_speed(config: TrainConfig, images_per_second: float) -> None:
    """Notes the speed of a run; where the cache can't be written, nothing is noted."""
    with contextlib.suppress(OSError):
        commit_json(cache_folder() / _FILE, {**_read(), _key(config): images_per_second})


def probe(config: TrainConfig, folder: Path, progress: Progress) -> float | None:
    """Measures the speed by training a few steps on noise, and remembers it.

    Args:
        config: the run's, of which objectives that need held-out images or ground truth are left out.
        folder: a run is made below it, and removed.
        progress: called with the images seen.
    """
    import numpy as np
    from PIL import Image

    from dreamloom.train.loop.loop import train

    neutral: dict[str, object] = {
        "limit_mean": None,
        "limit_worst": None,
        "patience": 0,
        "auto_ratio": False,
        "ground_truth_ratio": None,
        "prior_prediction": 0.0,
    }
    neutral |= {"likeness_clip": None, "held_out": 0.0, "max_train_steps": PROBE_STEPS, "epochs": 1, "ground_truth": []}
    neutral |= {"sample_prompts": ["a probe"], "sample_prompts_file": None, "sample_steps": 1, "wandb_project": None}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-probe-", dir=folder) as place:
        for number in range(config.batch_size):
            noise = np.random.default_rng(number).integers(0, 256, (config.resolution, config.resolution, 3), np.uint8)
            file = Path(place) / "images" / "noise" / f"noise_{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise).save(file)
        summary = train(Path(place) / "images", Path(place) / "run", config.model_copy(update=neutral), None, progress)
    if summary.images_per_second:
        remember_speed(config, summary.images_per_second)
    return summary.images_per_second


def _key(config: TrainConfig) -> str:
    values = {name: getattr(config, name) for name in _DECISIVE}
    return recipe("speed", 1, values, models={"base": fingerprint(config.base)})


def _read() -> dict[str, float]:
    try:
        stored = json.loads((cache_folder() / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}
