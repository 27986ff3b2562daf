"""The figures of the study of preservation, from the results of its runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from scipy.stats import spearmanr, t

from bench.preservation_arms import ALONE, AUDITED_SEED, COMPARED
from bench.preservation_world import UNREHEARSED
from dreamloom.demo.exam import Score
from dreamloom.demo.world import SHAPES

Figure = dict[str, float]
"""value, low and high."""


def summarize(folder: Path, arms: Mapping[str, int]) -> dict[str, Any]:
    """Returns the figures of each arm, of its long runs (`same_steps`), of its trials, and of the base.

    Args:
        folder: the results of the runs.
        arms: name → the trial whose settings it has.

    `beyond` says of runs with limits by how much their checkpoint breaks them, as a share of the base's loss.

    Shares count the prompts of all seeds together, with Wilson's interval; other figures are means of the seeds with
    Student's. An interval of three seeds is wide.
    """
    base = _read(folder, "final-base-0")
    old = {shape: fmean(marks) for shape, marks in base[0]["old"].items()}
    return {
        "arms": {
            name: _figures(_read(folder, f"final-{name}-{best}"), old)
            | _zero_shot(_read(folder, f"audit-{name}-{best}"))
            for name, best in arms.items()
        },
        "same_steps": {
            name: _figures(_read(folder, f"long-{name}-{best}"), old) for name, best in arms.items() if name in ALONE
        },
        "audit_spearman": _audit_spearman(folder, arms) if "naive" in arms else {},
        "trials": {name: [_trial(run) for run in _read(folder, f"trial-{name}-[0-9]")] for name in arms},
        "base": {"old_right": fmean(old.values()), "old_right_by_concept": old},
    }


def _read(folder: Path, name: str) -> list[dict[str, Any]]:
    files = sorted(folder.glob(f"{name}-[0-9]*.json"))
    return [json.loads(file.read_text()) for file in files]


def _zero_shot(audits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How often a shape in a real image is told from the others: of all, and of the worst shape."""
    marks = {shape: [mark for audit in audits for mark in _marks(audit["classes"][shape])] for shape in SHAPES}
    worst = min(marks, key=lambda shape: fmean(marks[shape]))
    every = [mark for of in marks.values() for mark in of]
    return {"zero_shot": _share(every), "zero_shot_worst": _share(marks[worst]), "zero_shot_worst_concept": worst}


def _marks(found: Mapping[str, Any]) -> list[bool]:
    right = round(found["model"] * found["images"])
    return [True] * right + [False] * (found["images"] - right)


def _audit_spearman(folder: Path, arms: Mapping[str, int]) -> dict[str, Any]:
    """Rank correlation of what audits say with the pictures drawn right.

    Returns:
        `zero_shot` and `drift`: over the old shapes, of the means of the naive models; `by_seed`: of each;
        `of_the_exam`: of the means, by the few pictures of the exam alone; `pictures`: of each shape, otherwise;
        `right`: share of them; `reliability`: of the judge's own ranking, of the means and by seed; `over_arms`.
    """
    finals, ranks, audits = (_read(folder, f"{stage}-naive-{arms['naive']}") for stage in ("final", "rank", "audit"))
    few = np.array([[fmean(final["old"][shape]) for shape in SHAPES] for final in finals])
    marks = np.array(
        [[[*f["old"][shape], *r["old"][shape]] for shape in SHAPES] for f, r in zip(finals, ranks, strict=True)], float
    )
    right = marks.mean(2)
    told = [_told(audit) for audit in audits]
    found = {name: np.array([each[name] for each in told]) for name in ("zero_shot", "drift")}
    return {
        **{name: agreement(values.mean(0), right.mean(0)) for name, values in found.items()},
        "by_seed": {
            name: [agreement(*pair) for pair in zip(values, right, strict=True)] for name, values in found.items()
        },
        "of_the_exam": {name: agreement(values.mean(0), few.mean(0)) for name, values in found.items()},
        "pictures": marks.shape[2],
        "right": dict(zip(SHAPES, right.mean(0).tolist(), strict=True)),
        "reliability": {"means": reliability(marks.mean(0)), "by_seed": [reliability(each) for each in marks]},
        "over_arms": _over_arms(folder, arms),
    }


def _over_arms(folder: Path, arms: Mapping[str, int]) -> dict[str, Any]:
    """The same over each shape of a model of each arm of COMPARED, by the pictures of the exam, of one seed.

    Returns:
        `zero_shot` and `drift`; `margin_change` and `accuracy`: of the same images, by how much narrower the margin
        became, and by the accuracy; `within`: the same of what is left where each model's mean is taken off, so that
        how damaged it is as a whole does not count; `pairs`: how many shapes; `reliability`: of the judge's ranking.
    """
    stems = [f"{name}-{arms[name]}-{AUDITED_SEED}" for name in COMPARED if name in arms]
    finals, audits = (
        [json.loads((folder / f"{stage}-{stem}.json").read_text()) for stem in stems] for stage in ("final", "audit")
    )
    right = np.array([[final["old"][shape] for shape in SHAPES] for final in finals], float)
    found = [_told(audit) for audit in audits]
    told = {key: np.array([each[key] for each in found]) for key in found[0]}

    def off_mean(values: Any) -> Any:
        return values - values.mean(1, keepdims=True)

    return {
        **{key: agreement(values.ravel(), right.mean(2).ravel()) for key, values in told.items()},
        "within": {
            key: agreement(off_mean(values).ravel(), off_mean(right.mean(2)).ravel()) for key, values in told.items()
        },
        "pairs": right.shape[0] * right.shape[1],
        "reliability": reliability(right.reshape(-1, right.shape[2])),
    }


def _told(audit: Mapping[str, Any]) -> dict[str, list[float]]:
    """What an audit says of each shape, where more is better."""
    of = [audit["classes"][shape] for shape in SHAPES]
    return {
        "zero_shot": [each["model_margin"] / each["base_margin"] for each in of],
        "drift": [-fmean(drift for prompt, drift in audit["drift"].items() if f" {s} " in prompt) for s in SHAPES],
        "margin_change": [each["model_margin"] - each["base_margin"] for each in of],
        "accuracy": [each["model"] for each in of],
    }


def agreement(values: Any, truth: Any) -> float:
    """Returns Spearman's rank correlation."""
    return float(spearmanr(values, truth).statistic)


def reliability(marks: Any) -> float:
    """Returns how well a ranking of rows by their marks [rows, marks] agrees with itself.

    That is the mean rank correlation of 500 random halves of the marks, scaled up to all of them (Spearman-Brown).
    """
    rng, half, count = np.random.default_rng(0), [], marks.shape[1]
    for _ in range(500):
        order = rng.permutation(count)
        half.append(agreement(marks[:, order[: count // 2]].mean(1), marks[:, order[count // 2 :]].mean(1)))
    return 2 * fmean(half) / (1 + fmean(half))


def _trial(run: Mapping[str, Any]) -> dict[str, Any]:
    wrong = [not mark for marks in run["old"].values() for mark in marks]
    trial = {"settings": run["settings"], "new_right": fmean(run["new"]), "old_wrong": fmean(wrong)}
    return trial | ({"beyond": run["beyond"]} if "beyond" in run else {})


def _figures(runs: Sequence[Mapping[str, Any]], base: Mapping[str, float]) -> dict[str, Any]:
    by_concept = {shape: [mark for run in runs for mark in run["old"][shape]] for shape in base}
    shares = {shape: _share(marks) for shape, marks in by_concept.items()}
    kept = {shape: shares[shape]["value"] / base[shape] for shape in shares}
    worst = min(kept, key=lambda shape: kept[shape])
    rehearsed = [mark for shape, marks in by_concept.items() if shape not in UNREHEARSED for mark in marks]
    unrehearsed = [mark for shape in UNREHEARSED for mark in by_concept[shape]]
    return {
        "learned": _mean([run["learned"] for run in runs]),
        "forgotten": _mean([run["forgotten"] for run in runs]),
        "forgotten_unrehearsed": _mean([run["forgotten_unrehearsed"] for run in runs]),
        "new_right": _share([mark for run in runs for mark in run["new"]]),
        "old_wrong": _share([not mark for marks in by_concept.values() for mark in marks]),
        "old_wrong_rehearsed": _share([not mark for mark in rehearsed]),
        "old_wrong_unrehearsed": _share([not mark for mark in unrehearsed]),
        "worst_concept": worst,
        "worst_concept_right": shares[worst],
        "worst_concept_kept": kept[worst],
        "right_by_concept": shares,
        "seconds": _mean([run["seconds"] for run in runs]),
        "settings": runs[0]["settings"],
        **({"beyond": [run["beyond"] for run in runs]} if "beyond" in runs[0] else {}),
    }


def _mean(values: Sequence[float]) -> Figure:
    mean, count = fmean(values), len(values)
    half = float(t.ppf(0.975, count - 1)) * stdev(values) / count**0.5 if count > 1 else float("nan")
    return {"value": mean, "low": mean - half, "high": mean + half}


def _share(marks: Sequence[bool]) -> Figure:
    low, high = Score(sum(marks), len(marks)).interval
    return {"value": fmean(marks), "low": low, "high": high}


def table(results: Mapping[str, Any]) -> str:
    """Formats the figures as text."""
    heads = (("learned", 9), ("forgot", 9), ("unreh.", 9), ("new ok", 8), ("old bad", 9), ("unreh.", 8), ("worst", 16))
    lines = [f"{'arm':<20}" + "".join(head.rjust(width) for head, width in heads) + f"{'CPU s':>7}"]
    for part in ("arms", "same_steps"):
        lines.append(f"\n{'the same number of concept images' if part == 'arms' else 'the same number of steps'}")
        lines += [_line(name, figures) for name, figures in results[part].items()]
    return "\n".join(lines)


def _line(name: str, figures: Mapping[str, Any]) -> str:
    def percent(key: str, width: int) -> str:
        return f"{100 * figures[key]['value']:.1f}%".rjust(width)

    worst = f"{figures['worst_concept']} {100 * figures['worst_concept_kept']:.0f}%"
    return (
        f"{name:<20}{percent('learned', 9)}{percent('forgotten', 9)}{percent('forgotten_unrehearsed', 9)}"
        f"{percent('new_right', 8)}{percent('old_wrong', 9)}{percent('old_wrong_unrehearsed', 8)}{worst:>16}"
        f"{figures['seconds']['value']:>7.0f}"
    )
