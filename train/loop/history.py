"""Learned and forgotten over the course of a run: evaluation.json, and its chart."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.files import commit, commit_json
from dreamloom.base.progress import Progress
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Dataset
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.evaluate.evaluate import EvaluateConfig, Losses, Measure, measure_all
from dreamloom.train.evaluate.held_out_loss import judge_all
from dreamloom.train.model.model import Model
from dreamloom.train.run.folder import best_point


class Learning:
    """What a run learned and forgot so far.

    Args:
        kinds: the held-out images by kind, as far as they can be decoded; may be empty.
        way: how they are measured, as dreamloom.train.evaluate.evaluate.way says it of all of them.
    """

    def __init__(
        self, run: Path, kinds: Mapping[str, Dataset], way: str, latents: LatentCache, config: TrainConfig
    ) -> None:
        self.run = run
        self.kinds = kinds
        self.way = way
        self.latents = latents
        self.config = judging(config)
        self.base: dict[str, Losses] = {}
        self.now: dict[str, dict[str, Losses]] = {}
        self.points: list[dict[str, Any]] = []

    def go_on(self, images_seen: int) -> None:
        """Takes up what was measured up to a checkpoint, and drops what came after it.

        Raises:
            UserError: the base model's losses are gone.
        """
        file = self.run / "evaluation.json"
        if images_seen == 0 or not self.kinds:
            return
        if not file.exists():
            raise UserError(f"{file} is gone, and with it the base model's losses; name a new folder for the run.")
        stored = json.loads(file.read_text(encoding="utf-8"))
        self.base = stored["base"]
        self.points = [point for point in stored["points"] if point["images_seen"] <= images_seen]
        self.now = {seen: losses for seen, losses in stored["now"].items() if int(seen) <= images_seen}

    def is_known(self, images_seen: int) -> bool:
        """Whether there is nothing to measure at this point."""
        return not self.kinds or any(point["images_seen"] == images_seen for point in self.points)

    def measure(self, model: Model, images_seen: int, progress: Progress) -> None:
        """Judges the model as it is now, and writes evaluation.json and the chart. The first call is for the base."""
        now = judge_all(model, self.kinds, self.latents, self.config, progress)
        self.base = self.base or now
        learned, forgotten = measure_all(self.base, now)
        self.points.append({"images_seen": images_seen, "learned": _plain(learned), "forgotten": _plain(forgotten)})
        wanted = {images_seen, best_point(self.points)}
        self.now = {seen: losses for seen, losses in {**self.now, str(images_seen): now}.items() if int(seen) in wanted}
        problems = [f"{kind}/{p.name} ({p.reason})" for kind, data in self.kinds.items() for p in data.problems]
        stored = {"points": self.points, "base": self.base, "now": self.now, "problems": problems}
        stored["way"] = self.way
        commit_json(self.run / "evaluation.json", stored)
        draw_chart(self.points, self.run / "learned_forgotten.png")

    def is_best(self, images_seen: int) -> bool:
        """Whether nothing that was measured so far is better than the model of this point."""
        return bool(self.points) and best_point(self.points) == images_seen

    def last(self, name: str) -> tuple[float | None, float | None]:
        """The newest `learned` or `forgotten`, and its standard error."""
        found = self.points[-1][name] if self.points else None
        return (found["change"], found["error"]) if found else (None, None)


def judging(config: TrainConfig) -> EvaluateConfig:
    """How a run measures."""
    return EvaluateConfig(
        resolution=config.resolution,
        bucket_reso_steps=config.bucket_reso_steps,
        upscale=config.upscale,
        pad_color=config.pad_color,
        batch_size=config.batch_size,
        eval_timesteps=config.eval_timesteps,
        seed=config.seed,
        vae=config.vae,
        precision=config.precision,
        device=config.device,
        num_workers=config.num_workers,
    )


def draw_chart(points: list[dict[str, Any]], path: Path) -> None:
    """Writes a PNG of learned and forgotten over the images seen, with bands of one standard error."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="0.8", linewidth=1)
    for name, colour in (("learned", "#2a7f62"), ("forgotten", "#b3423a")):
        found = [(point["images_seen"], point[name]) for point in points if point[name]]
        if not found:
            continue
        seen = [images for images, _ in found]
        change = [measure["change"] for _, measure in found]
        error = [measure["error"] or 0.0 for _, measure in found]
        axes.plot(seen, change, marker="o", markersize=3, color=colour, label=name)
        low, high = ([c + sign * e for c, e in zip(change, error, strict=True)] for sign in (-1, 1))
        axes.fill_between(seen, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel("images seen")
    axes.set_ylabel("share of the base model's loss")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    with commit(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)


def _plain(measure: Measure | None) -> dict[str, Any] | None:
    return asdict(measure) if measure else None
