"""The chart of a tuning: what each probe learned against what it forgot, with the limits."""

from pathlib import Path

from dreamloom.base.files.atomic import commit
from dreamloom.train.evaluate.measure import Measure
from dreamloom.train.loop.limits import Z
from dreamloom.train.tune.results import Tuning

_KINDS = {"forgotten": "rehearsed", "forgotten_unrehearsed": "not rehearsed"}
_COLORS = {"forgotten": "#b3423a", "forgotten_unrehearsed": "#7b4b94", "worst": "#c08a2d"}


def draw_chart(tuning: Tuning, path: Path) -> None:
    """Writes a PNG of learned against forgotten, with intervals of 95 %; a line for each limit."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    for kind, label in _KINDS.items():
        points = [(each, found) for each in tuning.results if (found := getattr(each, kind)) is not None]
        learned = [each.learned for each, _ in points]
        x, y = [100 * found.change for _, found in points], [_percent(value) for value in learned]
        x_error, y_error = [_half(found) for _, found in points], [_half(value) for value in learned]
        axes.errorbar(x, y, y_error, x_error, fmt="o", color=_COLORS[kind], label=f"forgotten: {label}", capsize=2)
        for (each, _), left, up in zip(points, x, y, strict=True):
            axes.annotate(each.title.removeprefix("ratio "), (left, up), (4, 4), textcoords="offset points", fontsize=8)
    worst = [(100 * each.worst.change, _percent(each.learned)) for each in tuning.results if each.worst is not None]
    axes.plot(*zip(*worst, strict=True), "x", color=_COLORS["worst"], label="worst that is sure") if worst else None
    for name, limit, color in (
        ("mean", tuning.config.limit_mean, _COLORS["forgotten"]),
        ("worst", tuning.config.limit_worst, _COLORS["worst"]),
    ):
        if limit is not None:
            axes.axvline(100 * limit, color=color, linestyle=":", label=f"limit of the {name}: {100 * limit:g} %")
    axes.set_xlabel("forgotten, in % of the base model's loss (less is better)")
    axes.set_ylabel("learned, in % (more is better)")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    with commit(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)


def _percent(measure: Measure | None) -> float:
    return 100 * measure.change if measure else 0.0


def _half(measure: Measure | None) -> float:
    """Returns half of the interval, in percent."""
    return 100 * Z * (measure.error or 0.0) if measure else 0.0
