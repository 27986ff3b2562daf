"""What an audit found, and the file that it is kept in."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dreamloom.base import html
from dreamloom.base.errors import UserError
from dreamloom.base.versions import DAMAGED, RUN, known_fields

SURE_DRIFT = 0.1
"""A prompt has surely drifted if the lower end of its interval is above this: a tenth of what another prompt does."""


@dataclass(frozen=True)
class PromptDrift:
    """How far the two models' predictions for a prompt lie apart."""

    prompt: str
    drift: float
    """See dreamloom.train.audit.drift."""
    low: float | None = None
    """The interval of `drift`; all intervals hold at once with 95 %. None: of fewer than five latents."""
    high: float | None = None

    @property
    def sure(self) -> bool:
        """Whether it has surely drifted."""
        return self.low is not None and self.low > SURE_DRIFT


@dataclass(frozen=True)
class ClassAccuracy:
    """How often each model takes a class for what it is."""

    name: str
    images: int
    base: float
    """Share of the class's images that the base takes for one of their classes."""
    model: float
    """The same of the audited model."""
    low: float | None = None
    """The interval of model − base; all intervals hold at once with 95 %. None: of fewer than five images."""
    high: float | None = None
    base_margin: float = 0.0
    """Mean of `dreamloom.train.audit.classify.Answer.margin` over the images, by the base."""
    model_margin: float = 0.0
    """The same of the audited model."""

    @property
    def change(self) -> float:
        """Returns model − base."""
        return self.model - self.base

    @property
    def margin_change(self) -> float:
        """Returns how much narrower the margin became (below 0), or wider."""
        return self.model_margin - self.base_margin

    @property
    def margin_kept(self) -> float | None:
        """Returns the share of the base's margin that is left; None where the base has none."""
        return self.model_margin / self.base_margin if self.base_margin > 0 else None

    @property
    def order(self) -> tuple[float, str]:
        """Returns what classes are sorted by: the least of the margin left first; last those that the base mistakes."""
        return (math.inf if self.margin_kept is None else self.margin_kept), self.name

    @property
    def sure(self) -> bool:
        """Whether the accuracy has surely changed."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class PicturePair:
    """A prompt drawn by both models in the same noise."""

    prompt: str
    base: str
    """File of the base's picture, from the audit's folder."""
    model: str
    """File of the audited model's."""
    color_drift: float
    """In ΔE; see `dreamloom.train.audit.pictures.color_drift`."""
    clip_distance: float | None = None
    """1 − cosine of the two pictures' embeddings; None without a CLIP, as the next two."""
    clip_score_base: float | None = None
    """Cosine of picture and prompt."""
    clip_score_model: float | None = None


@dataclass(frozen=True)
class Audit:
    """What became of each concept between two models."""

    model: str
    base: str
    drift: tuple[PromptDrift, ...]
    """The greatest first."""
    classes: tuple[ClassAccuracy, ...] = ()
    """The least of the margin left first; empty where no images were given."""
    pictures: tuple[PicturePair, ...] = ()
    """The most changed first."""
    kid: float | None = None
    """Kernel distance of the pictures; None of fewer than 1,000."""
    problems: tuple[str, ...] = ()
    """Images that could not be classified, each with the reason."""
    deeper: Mapping[str, float] = field(default_factory=dict)
    """What a deeper look would be → the seconds more that it would take, at the rate of this one."""

    @property
    def verdict(self) -> str:
        """A sentence about what surely changed most."""
        lost = [each for each in self.classes if each.sure and each.change < 0]
        lost.sort(key=lambda each: each.change)
        found = [
            f"surely recognized less, most: {worst.name} ({100 * worst.base:.0f} to {100 * worst.model:.0f} %)"
            for worst in lost[:1]
        ]
        drifted = [each for each in self.drift if each.sure]
        found += [f"surely drifted most: {each.prompt!r} ({each.drift:.2f})" for each in drifted[:1]]
        if not found:
            return f"nothing surely changed, of {len(self.drift)} prompts and {len(self.classes)} classes"
        counts = f"{len(drifted)} of {len(self.drift)} prompts drifted"
        counts += f", {len(lost)} of {len(self.classes)} classes recognized less" if self.classes else ""
        return f"{'; '.join(found)}; surely: {counts}"

    def drift_rows(self) -> list[dict[str, Any]]:
        """Returns a row of a table for each prompt."""
        return [
            {
                "prompt": each.prompt,
                "drift": round(each.drift, 3),
                "interval": "" if each.low is None else f"{each.low:.3f} to {each.high:.3f}",
                "sure": "yes" if each.sure else "",
            }
            for each in self.drift
        ]

    def class_rows(self) -> list[dict[str, Any]]:
        """Returns a row of a table for each class."""
        return [
            {
                "class": each.name,
                "images": each.images,
                "base": f"{100 * each.base:.0f} %",
                "model": f"{100 * each.model:.0f} %",
                "margin": f"{100 * each.base_margin:.0f} to {100 * each.model_margin:.0f} %",
                "of it left": "" if each.margin_kept is None else f"{100 * each.margin_kept:.0f} %",
                "change": f"{100 * each.change:+.0f} points",
                "interval": "" if each.low is None else f"{100 * each.low:+.0f} to {100 * (each.high or 0):+.0f}",
                "sure": "yes" if each.sure else "",
            }
            for each in self.classes
        ]

    def mean_rows(self) -> list[dict[str, Any]]:
        """Returns a row for each number that is a mean, which hides what single concepts lost."""
        means = {
            "drift": [each.drift for each in self.drift],
            "zero-shot accuracy of the base": [each.base for each in self.classes],
            "zero-shot accuracy of the model": [each.model for each in self.classes],
            "color drift (ΔE)": [pair.color_drift for pair in self.pictures],
            "CLIP distance": [pair.clip_distance for pair in self.pictures if pair.clip_distance is not None],
            "CLIP score of the base": [p.clip_score_base for p in self.pictures if p.clip_score_base is not None],
            "CLIP score of the model": [p.clip_score_model for p in self.pictures if p.clip_score_model is not None],
            "KID on CLIP's embeddings": [self.kid] if self.kid is not None else [],
        }
        return [{"mean": name, "value": round(sum(v) / len(v), 4), "of": len(v)} for name, v in means.items() if v]

    def _repr_html_(self) -> str:
        tables = (self.mean_rows(), self.class_rows(), self.drift_rows()[:20])
        return f"<p>{html.text(self.verdict)}</p>{''.join(map(html.table, tables))}"


def write_audit(file: Path, audit: Audit, recipe: str) -> None:
    """Writes an audit, with the recipe by which it was made."""
    RUN.write_json(file, {"recipe": recipe, "verdict": audit.verdict, "audit": asdict(audit)})


def read_audit(file: Path, recipe: str | None = None) -> Audit | None:
    """Reads what `write_audit` wrote.

    Args:
        file: audit.json.
        recipe: the one that is wanted; None: any.

    Returns:
        None where there is no file, or of another recipe.

    Raises:
        UserError: the file holds something else, or a newer release wrote it in another way.
    """
    if not file.exists():
        return None
    try:
        stored = RUN.read_json(file)
        if recipe not in (None, stored["recipe"]):
            return None
        values = known_fields(Audit, stored["audit"])
        for name, kind in (("drift", PromptDrift), ("classes", ClassAccuracy), ("pictures", PicturePair)):
            values[name] = tuple(kind(**known_fields(kind, each)) for each in values.get(name, ()))
        return Audit(**{**values, "problems": tuple(values.get("problems", ()))})
    except DAMAGED as error:
        raise UserError(f"{file} is no audit that can be read ({error}); name another folder.") from error
