"""Keeps what a run learned and forgot over its course, in evaluation.json and as a chart."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import commit
from dreamloom.base.progress import Progress
from dreamloom.base.tables.held_out import to_json
from dreamloom.base.versions import DAMAGED, RUN
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.dataset import Dataset
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.evaluate.concepts import describe
from dreamloom.train.evaluate.config import as_trained
from dreamloom.train.evaluate.held_out_loss import NonFiniteHeldOutLossError, compute_losses, problem_lines
from dreamloom.train.evaluate.likeness import Likeness, change_of_likeness
from dreamloom.train.evaluate.measure import MEASURES, SIGNS, Evaluation, Losses, compare_losses, set_label
from dreamloom.train.loop.controller import Stretch, decide_stretches
from dreamloom.train.loop.faults import explain_held_out
from dreamloom.train.loop.limits import excess, find_end, has_limits, tell_limits
from dreamloom.train.model.lora import without_adapters
from dreamloom.train.model.model import Model
from dreamloom.train.run.folder import best_point, list_checkpoints

_COLORS = ("#2a7f62", "#b3423a", "#7b4b94")
"""Of the chart's lines, one for each measure."""


class EvaluationHistory:
    """The evaluations of a run so far.

    Args:
        run: the run's folder.
        datasets: the held-out images that can be decoded, by kind; may be empty.
        recipe: the recipe of dreamloom.train.evaluate.evaluate.evaluation_recipe, for all held-out images.
        latent_cache: holds the latents of the held-out images.
        config: the run's.
        likeness: judges what is learned by images; None: the loss alone does.
    """

    def __init__(
        self,
        run: Path,
        datasets: Mapping[str, Dataset],
        recipe: str,
        latent_cache: LatentCache,
        config: TrainConfig,
        likeness: Likeness | None = None,
    ) -> None:
        self.run = run
        self.datasets = datasets
        self.recipe = recipe
        self.latent_cache = latent_cache
        self.train_config, self.config = config, as_trained(config)
        self.likeness = likeness
        self.base: dict[str, Losses] = {}
        self.now: dict[str, dict[str, Losses]] = {}
        self.points: list[dict[str, Any]] = []

    def resume(self, images_seen: int) -> None:
        """Reads the evaluations up to a checkpoint, and drops those after it.

        Raises:
            UserError: the base model's losses are missing, or can't be read.
        """
        file = self.run / "evaluation.json"
        if images_seen == 0 or not self.datasets:
            return
        if not file.exists():
            raise UserError(f"{file} is gone, and with it the base model's losses; name a new folder for the run.")
        try:
            stored = RUN.read_json(file)
            self.base = stored["base"]
            self.points = [point for point in stored["points"] if point["images_seen"] <= images_seen]
            self.now = {seen: losses for seen, losses in stored["now"].items() if int(seen) <= images_seen}
        except DAMAGED as error:
            raise UserError(
                f"{file} is damaged ({error}), and with it the base model's losses; name a new folder for the run."
            ) from error

    def is_evaluated(self, images_seen: int) -> bool:
        """Tells whether there is nothing to evaluate at this point."""
        return not self.datasets or any(point["images_seen"] == images_seen for point in self.points)

    def evaluate(self, model: Model, images_seen: int, done: float, progress: Progress) -> None:
        """Evaluates the model as it is now, and writes evaluation.json and the chart.

        The first call takes the model as the base, without the adapters that may have come from a file.

        Args:
            model: as it is now.
            images_seen: images shown so far.
            done: share of the run that is done, for the ratio of what follows.
            progress: called with the images evaluated.

        Raises:
            UserError: a loss is not a number, so nothing is measured; it names the last good state.
        """
        try:
            losses = compute_losses(model, self.datasets, self.latent_cache, self.config, progress)
        except NonFiniteHeldOutLossError as error:
            raise explain_held_out(error, images_seen, list_checkpoints(self.run)) from error
        if not self.base and self.train_config.init_lora is not None:
            with without_adapters(model):
                self.base = compute_losses(model, self.datasets, self.latent_cache, self.config, progress)
        self.base = self.base or losses
        images = describe(self.datasets)
        evaluation = compare_losses(self.base, losses, images, problem_lines(self.datasets))
        point = {"images_seen": images_seen, **_point(evaluation), **self._judge_images(model, progress)}
        if self.train_config.auto_ratio and self.points:
            ended = self.stretches[-1]
            point |= {"ratio": float(ended.ratio), "rate": float(ended.rate), "done": done}
        self.points.append(point)
        if has_limits(self.train_config):
            self.points[-1]["excess"] = excess(self.points[-1], self.train_config)
        kept = {images_seen, best_point(self.points)}
        self.now = {seen: now for seen, now in {**self.now, str(images_seen): losses}.items() if int(seen) in kept}
        stored = {"points": self.points, "base": self.base, "now": self.now, "images": to_json(images)}
        stored |= {"problems": evaluation.problems, "recipe": self.recipe}
        RUN.write_json(self.run / "evaluation.json", stored)
        draw_chart(self.points, self.run / "learned_forgotten.png")

    def _judge_images(self, model: Model, progress: Progress) -> dict[str, Any]:
        if self.likeness is None:
            return {}
        similarity = self.likeness.measure(model, progress)
        base = self.points[0]["likeness"]["similarity"] if self.points else similarity
        change = change_of_likeness(base, similarity)
        return {"likeness": {"similarity": similarity, "change": change, "error": None}}

    def is_best(self, images_seen: int) -> bool:
        """Tells whether the model of this point is evaluated, and none so far is better."""
        return bool(self.points) and best_point(self.points) == images_seen

    def latest(self, name: str) -> tuple[float | None, float | None]:
        """Returns the newest of a curve (`curves`) and its standard error."""
        measure = _curves(self.points[-1]).get(name) if self.points else None  # an older release did not measure all
        return (measure["change"], measure["error"]) if measure else (None, None)

    @property
    def curves(self) -> dict[str, str]:
        """The name of each measure and of each further set's → the name that people see."""
        likeness = {} if self.likeness is None else {"likeness": "likeness"}
        sets = {_set_curve(kind): set_label(kind) for kind in self.datasets if kind not in SIGNS}
        return MEASURES | likeness | sets

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """The stretches that have begun, where the run decides them."""
        return decide_stretches(self.points, self.train_config)

    def find_end(self, num_images: int) -> str:
        """Returns why a run of so many images should end after the newest evaluation; empty if it should go on."""
        return find_end(self.points, self.train_config, num_images)

    @property
    def limits(self) -> str:
        """Which checkpoint is kept, and whether it is within the limits; empty without limits."""
        return tell_limits(self.points, self.train_config)

    @property
    def verdict(self) -> str:
        """The newest evaluation's; see `dreamloom.train.evaluate.measure.Evaluation`."""
        return str(self.points[-1].get("verdict", "")) if self.points else ""


def draw_chart(points: list[dict[str, Any]], path: Path) -> None:
    """Writes a PNG of what was learned and forgotten over the images seen, with bands of one standard error."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="0.8", linewidth=1)
    labels = MEASURES | ({"likeness": "likeness"} if any("likeness" in point for point in points) else {})
    labels |= {_set_curve(name): set_label(name) for point in points for name in point.get("sets", {})}
    for number, (name, label) in enumerate(labels.items()):
        color = _COLORS[number] if number < len(_COLORS) else f"C{number}"
        measured = [(point["images_seen"], _curves(point)[name]) for point in points if _curves(point).get(name)]
        if not measured:
            continue
        images_seen = [seen for seen, _ in measured]
        changes = [measure["change"] for _, measure in measured]
        errors = [measure["error"] or 0.0 for _, measure in measured]
        axes.plot(images_seen, changes, marker="o", markersize=3, color=color, label=label)
        low, high = ([c + sign * e for c, e in zip(changes, errors, strict=True)] for sign in (-1, 1))
        axes.fill_between(images_seen, low, high, color=color, alpha=0.15, linewidth=0)
    axes.set_xlabel("images seen")
    axes.set_ylabel("change of the base model's loss")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    with commit(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)


def _set_curve(name: str) -> str:
    return f"set {name}"


def _curves(point: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the measures of a point by the name of their curve."""
    return {**point, **{_set_curve(name): measure for name, measure in point.get("sets", {}).items()}}


def _point(evaluation: Evaluation) -> dict[str, Any]:
    """Returns what a point of evaluation.json says beside the images seen."""
    values = evaluation.to_dict()
    return {name: values[name] for name in (*MEASURES, "groups", "sets", "verdict")}
