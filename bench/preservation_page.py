"""Makes docs/preservation.md, its chart and docs/preservation.json from the figures of the study.

python -m bench.preservation_page preservation/preservation.json
"""

import argparse
import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.preservation import ENOUGH_RIGHT
from bench.preservation_arms import ARMS, AUDITED_SEED, BATCH, COMPARED, SELECTED, SHOWN
from bench.preservation_world import HELD_OUT, NEW_PROMPTS, OLD_PROMPTS, POOL, REHEARSED, TAUGHT, UNREHEARSED

DOCS = Path(__file__).parents[1] / "docs"
GOAL_CUT, GOAL_WORST = 20, 0.8
"""Against naive, ground truth should cut forgetting to this part, and keep this share of its worst concept."""


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", type=Path)
    file = parser.parse_args().figures
    results = json.loads(file.read_text())
    shutil.copy(file, DOCS / "preservation.json")
    draw_chart(results, DOCS / "preservation.png")
    (DOCS / "preservation.md").write_text(make_page(results), encoding="utf-8")


def make_page(results: Mapping[str, Any]) -> str:
    """Returns the page as Markdown."""
    arms, same_steps = results["arms"], results["same_steps"]
    return "\n".join(
        [
            "# Which way of preserving keeps most",
            "",
            "    python -m bench.preservation        # the study; goes on where it was stopped",
            "    python -m bench.preservation_page preservation/preservation.json    # this page",
            "",
            _protocol(),
            "",
            "![Learned against lost](preservation.png)",
            "",
            "## The same number of images of the concept",
            "",
            *_table(arms),
            "",
            *_limits(arms),
            "## The same number of steps",
            "",
            "The arms without other images, trained for as many steps as those that have as many others.",
            "",
            *_table(same_steps),
            "",
            "## What other settings would have done",
            "",
            _filled(_TRIALS),
            "",
            *_trials(results["trials"]),
            "",
            "## What each arm keeps, concept by concept",
            "",
            *_concepts(results),
            "",
            "## The goal",
            "",
            *_verdict(results),
            "",
            "## Whether audits see it",
            "",
            _audits(results),
            "",
            "## What this does not show",
            "",
            _filled("- The world is drawn by code, and the model is small. Stable Diffusion may behave otherwise."),
            f"- {len(UNREHEARSED)} shapes stand for all that is not rehearsed.",
            "- Each arm has three trials of its settings; more might serve some arms better than others.",
            _filled(_RATES),
            "- Intervals of means are Student's over three seeds. Those of shares are Wilson's over the prompts of all",
            "  seeds, as if these were independent.",
            "",
        ]
    )


_RATES = """- Runs that find their ratio lower their rate where a limit breaks early, as what is not rehearsed hardly
comes back. So they draw fewer zorps right than others at the same rate."""


def _limits(arms: Mapping[str, Any]) -> list[str]:
    """Says in how many seeds the arms with limits held them."""
    lines = []
    for name, figures in arms.items():
        if beyond := figures.get("beyond"):
            held, title = sum(not value for value in beyond), ARMS[name].title
            text = f"The limits of “{title}” are held by the checkpoints of {held} of {len(beyond)} seeds"
            worst = f"; the worst is beyond one by {100 * max(beyond):.1f} points." if any(beyond) else "."
            lines += [_filled(text + worst), ""]
    return lines


_TRIALS = """Each setting that was tried, on one seed and prompts of its own. An arm with a lower rate learns less and
loses less; what counts is how much is lost for what is learned."""


def _trials(trials: Mapping[str, Any]) -> list[str]:
    lines = ["| arm | settings: zorps right, old wrong |", "|---|---|"]
    for name, runs in trials.items():
        cells = [
            f"{_named(run['settings'])}: {100 * run['new_right']:.0f}, {100 * run['old_wrong']:.0f} %"
            f"{' (beyond its limits)' if run.get('beyond') else ''}"
            for run in runs
        ]
        if cells:
            lines.append(f"| {ARMS[name].title} | {'; '.join(cells)} |")
    return lines


def _named(settings: Mapping[str, float]) -> str:
    strength = {key: value for key, value in settings.items() if not key.endswith("learning_rate")}
    return ", ".join(f"{key} {value:g}" for key, value in strength.items()) or f"rate {settings['learning_rate']:g}"


def _audits(results: Mapping[str, Any]) -> str:
    found = results["audit_spearman"]
    if not found:
        return "Not measured: the arm naive is missing."
    each = {
        key: f"{found[key]:.2f} (by seed {', '.join(f'{value:.2f}' for value in found['by_seed'][key])})"
        for key in ("zero_shot", "drift")
    }
    few, right, over = found["of_the_exam"], found["right"].values(), found["over_arms"]
    own, within = found["reliability"], over["within"]
    by_seed = ", ".join(f"{value:.2f}" for value in own["by_seed"])
    parts = (
        f"""`dreamloom audit` was run on a model of each arm (seed {AUDITED_SEED}), and on all naive ones. What it says
        is compared with the share of pictures that are right, by Spearman's rank correlation (of drift, with its sign
        turned: 1 is full agreement). 0.7 was the aim, over the old shapes of a naive model. As these are wrecked nearly
        alike, so that the judge itself hardly ranks them, it is also taken over models that lose different shapes.""",
        f"""**Which shape of which model.** Over {over["pairs"]} shapes, six of a model of each of {len(COMPARED)} arms
        ({", ".join(COMPARED)}; seed {AUDITED_SEED}), it is {over["zero_shot"]:.2f} for the share of the zero-shot
        margin that is left, and {over["drift"]:.2f} for the drift without data. The judge's own ranking has a
        reliability of {over["reliability"]:.2f} (Spearman-Brown: 1 if other pictures would rank them alike). By how
        much narrower the margin became it is {over["margin_change"]:.2f}, by the accuracy {over["accuracy"]:.2f}: what
        is told apart easily has a wide margin, and loses more of it where as much is left. So the audit sorts by the
        share. It was chosen by models of seed 0, which are not among these. Part of the agreement is how damaged each
        model is as a whole; with each model's mean taken off, {within["zero_shot"]:.2f} and {within["drift"]:.2f} are
        left.""",
        f"""**Which shape of a naive model.** Over the six shapes of the naive models, it is {each["zero_shot"]} and
        {each["drift"]}, by {found["pictures"]} pictures of each shape and seed: not what was aimed at. All shapes are
        wrecked nearly alike there, {100 * min(right):.0f} to {100 * max(right):.0f} % of each are right, and six are
        few. The judge's own ranking has a reliability of {own["means"]:.2f} (by seed {by_seed}), so that even an audit
        that knew the truth would agree with it at about {own["means"] ** 0.5:.2f} only. By the {OLD_PROMPTS} pictures
        of the tables alone it is {few["zero_shot"]:.2f} and {few["drift"]:.2f}, which is chance. Where nearly all is
        lost, the audit does not tell what is lost most: look at the pictures.""",
    )
    return "\n\n".join(map(_filled, parts))


def _protocol() -> str:
    text = f"""A small model learns what a zorp is from {TAUGHT} images. Every arm is shown {SHOWN:,} images of zorps,
    in steps of {BATCH}, with a cosine schedule. Ground truth is {SELECTED} of {POOL} images of
    {", ".join(REHEARSED)}; no arm rehearses {" and ".join(UNREHEARSED)}. Each arm has one of
    three settings. They are tried on a seed and prompts that are not reported, first the one that should keep most,
    until one draws {ENOUGH_RIGHT:.0%} of zorps right; if none does, the one that draws most is taken. So arms are
    compared at about equal learning. {_shared()} In an earlier run of the study, all three were tried of each arm:
    no later one kept more than an earlier one, and the same were taken. All trials are below. Three seeds follow.
    Held out are {HELD_OUT["training"]} zorps, {HELD_OUT["ground_truth"]} images of what is rehearsed and
    {HELD_OUT["witness"]} of what is not. The judge marks {NEW_PROMPTS} zorps in colours and on backgrounds that no
    image showed, and {OLD_PROMPTS} pictures of each old shape, from prompts that are no caption of any arm. A picture
    is right if all of its caption is: shape, colour, background, size and style. Time is processor time of one
    training, with its evaluation and drawings."""
    return _filled(text)


def _shared() -> str:
    """Says whose trials choose for which arms."""
    shared: dict[str, list[str]] = {}
    for arm in ARMS.values():
        if arm.trials_of and arm.rate == 1:
            shared.setdefault(ARMS[arm.trials_of].title, []).append(arm.title)
    return " ".join(
        f"The trials of “{title}” choose for {_listed([f'“{each}”' for each in titles])}, too, as these show the same"
        " images of the concept, and differ in what is shown beside them."
        for title, titles in shared.items()
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 120, break_long_words=False, break_on_hyphens=False)


def _table(arms: Mapping[str, Any]) -> list[str]:
    lines = [
        "| arm | learned | forgotten: rehearsed | not rehearsed | zorps right | old wrong: rehearsed | not rehearsed |"
        " worst shape keeps | zero-shot: all | worst shape | time |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, figures in arms.items():
        cells = [
            ARMS[name].title,
            *(_percent(figures[key]) for key in ("learned", "forgotten", "forgotten_unrehearsed")),
            *(_percent(figures[key]) for key in ("new_right", "old_wrong_rehearsed", "old_wrong_unrehearsed")),
            f"{figures['worst_concept']}: {100 * figures['worst_concept_kept']:.0f} %",
            *_zero_shot(figures),
            f"{figures['seconds']['value']:.0f} s",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _zero_shot(figures: Mapping[str, Any]) -> tuple[str, str]:
    if "zero_shot" not in figures:  # of the long runs
        return "", ""
    worst = figures["zero_shot_worst"]
    return _percent(figures["zero_shot"]), f"{figures['zero_shot_worst_concept']}: {100 * worst['value']:.0f} %"


def _concepts(results: Mapping[str, Any]) -> list[str]:
    shapes = list(results["base"]["old_right_by_concept"])
    rows = {"the base": results["base"]["old_right_by_concept"]}
    for name, figures in results["arms"].items():
        rows[ARMS[name].title] = {shape: figures["right_by_concept"][shape]["value"] for shape in shapes}
    heads = [f"{shape}{' (not rehearsed)' if shape in UNREHEARSED else ''}" for shape in shapes]
    lines = [f"| right of each | {' | '.join(heads)} |", f"|---|{'---|' * len(shapes)}"]
    return lines + [
        f"| {title} | {' | '.join(f'{100 * shares[shape]:.0f} %' for shape in shapes)} |"
        for title, shares in rows.items()
    ]


def _verdict(results: Mapping[str, Any]) -> list[str]:
    arms, base = results["arms"], results["base"]["old_right"]
    if "naive" not in arms:
        return ["Not measured: the arm naive is missing."]
    lost = {name: max(0.0, base - 1 + figures["old_wrong"]["value"]) for name, figures in arms.items()}
    learned = {name: figures["new_right"]["value"] for name, figures in arms.items()}
    text = f"""The goal is an arm that loses at most {1 / GOAL_CUT:.0%} of what the concept alone loses, at equal or
    better learning, and whose worst shape keeps {GOAL_WORST:.0%} of what the base draws right. Learning is taken
    for equal where the interval of zorps right reaches up to what the concept alone learns ({learned["naive"]:.0%})."""
    lines = ["| arm | loses of what the concept alone loses | zorps right | worst shape keeps |", "|---|---|---|---|"]
    for name, figures in arms.items():
        reached = (
            lost[name] * GOAL_CUT <= lost["naive"],
            figures["new_right"]["high"] >= learned["naive"],
            figures["worst_concept_kept"] >= GOAL_WORST,
        )
        values = (lost[name] / lost["naive"], learned[name], figures["worst_concept_kept"])
        cells = [f"{value:.0%} {'✓' if yes else '✗'}" for value, yes in zip(values, reached, strict=True)]
        lines.append(f"| {ARMS[name].title} | {' | '.join(cells)} |")
    return [_filled(text), "", *lines]


def _percent(figure: Mapping[str, float]) -> str:
    return f"{100 * figure['value']:.0f} % ({100 * figure['low']:.0f} to {100 * figure['high']:.0f})"


def draw_chart(results: Mapping[str, Any], target: Path) -> None:
    """Draws the share of zorps right against that of old pictures wrong, of each arm, with intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, (name, arm) in enumerate(results["arms"].items()):
        old, new = arm["old_wrong"], arm["new_right"]
        axes.errorbar(
            100 * old["value"],
            100 * new["value"],
            xerr=[[100 * (old["value"] - old["low"])], [100 * (old["high"] - old["value"])]],
            yerr=[[100 * (new["value"] - new["low"])], [100 * (new["high"] - new["value"])]],
            fmt="osD^vPX"[number % 7],
            label=ARMS[name].title,
            color=f"C{number % 10}",
            markersize=7,
        )
    axes.set_xlabel("old pictures drawn wrong, in % (less is better)")
    axes.set_ylabel("zorps drawn right, in % (more is better)")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(target)


if __name__ == "__main__":
    main()
