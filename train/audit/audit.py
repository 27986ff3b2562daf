"""Audits a model against its base: zero-shot accuracy by class, pictures side by side, and drift by prompt.

    <output>/audit.json, index.html     what was found; written last
    <output>/pictures/                  the pictures that both models drew
    <output>/measured/                  what is measured so far, by recipe: a killed audit goes on

Each part has a recipe of its own, so a change of one part's settings measures that part alone anew. What the base takes
images for does not depend on a whole model, so another one audited in the same folder is asked alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dreamloom.base.errors import UserError
from dreamloom.base.files.atomic import remove_leftovers
from dreamloom.base.files.fingerprint import fingerprint
from dreamloom.base.models.clip_config import check_clip, clip_models
from dreamloom.base.progress import Progress, silent
from dreamloom.base.sharing.folder_lock import lock
from dreamloom.base.stage import recipe, recipe_values
from dreamloom.train.audit import classify, drift
from dreamloom.train.audit.class_images import ClassImages, read_class_images
from dreamloom.train.audit.config import CLASSES, DRIFT, PICTURES, AuditConfig
from dreamloom.train.audit.journal import Journal
from dreamloom.train.audit.page import write_page
from dreamloom.train.audit.pair import Pair, load_pair
from dreamloom.train.audit.pictures import (
    clip_of,
    compare_pictures,
    draw_pictures,
    embed_pictures,
    kernel_distance,
    picture_prompts,
)
from dreamloom.train.audit.results import Audit, ClassAccuracy, PicturePair, PromptDrift, read_audit, write_audit
from dreamloom.train.audit.statistics import mean_intervals, shared_intervals
from dreamloom.train.audit.vocabulary import read_vocabulary, whole_vocabulary
from dreamloom.train.families.check import check_base_model
from dreamloom.train.families.suit import suit_family
from dreamloom.train.run.find import TrainedModel, find_trained_model

VERSIONS = {"drift": 4, "classes": 2, "pictures": 2}
"""Of each part; raised when the same config, models and images would give other numbers."""
RESULTS = "audit.json"
KID_PICTURES = 1000
"""Fewest pictures for a kernel distance: below it, its own error is of the size of what it measures."""


def audit(
    model: Path | str,
    base: str,
    output: Path | str,
    config: AuditConfig = AuditConfig(),
    images: Path | str | None = None,
    progress: Progress = silent,
) -> Audit:
    """Says what became of each concept between two checkpoints of one family, whoever trained the second.

    Args:
        model: a run (its best checkpoint is audited), a checkpoint of a run, a diffusers folder, a file or a hub ID.
        base: the diffusers folder, file or hub ID of the model that it comes from.
        output: folder for the results; what an earlier audit measured there by the same recipe is kept.
        config: what is measured, and how much.
        images: real images to classify; see `dreamloom.train.audit.class_images.read_class_images`. None: none.
        progress: called with what is done.

    Raises:
        UserError: a model, the images or the vocabulary are missing, the models are not of one family, or `output`
            holds something else.
    """
    check_base_model(base)
    config = suit_family(config, base)
    settings = clip_of(config)
    if settings is not None:
        check_clip(settings)
    output = Path(output).expanduser()
    check_output(output)
    work = _Work(find_trained_model(model), base, output, config, None if images is None else Path(images).expanduser())
    if found := read_audit(output / RESULTS, work.recipe):
        return found
    with lock(output):
        remove_leftovers(output)
        result = work.measure(progress)
        write_page(output / "index.html", result)
        write_audit(output / RESULTS, result, work.recipe)
    return result


def check_output(output: Path) -> None:
    """Checks that a folder is empty, missing, or that of an audit.

    Raises:
        UserError: it holds something else.
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; name a folder for the audit with output.")
    others = [path.name for path in output.iterdir() if path.name not in (".lock", "logs")] if output.is_dir() else []
    if others and not {RESULTS, "measured"} & set(others):
        raise UserError(f"{output} holds other files ({others[0]}); name a folder of its own for the audit.")


@dataclass(frozen=True)
class _Work:
    """An audit to make: what it is of, and the recipe of each part."""

    trained: TrainedModel
    base: str
    output: Path
    config: AuditConfig
    images: Path | None

    @cached_property
    def vocabulary(self) -> list[str]:
        return read_vocabulary(self.config)

    @cached_property
    def class_images(self) -> ClassImages | None:
        return None if self.images is None else read_class_images(self.images, self.config)

    @cached_property
    def recipes(self) -> dict[str, str]:
        """Part → recipe."""
        content = self.class_images.dataset.digest() if self.class_images else ""
        classes = self.class_images.classes if self.class_images else {}
        asked = recipe_values(self.config, CLASSES.name), [content, str(classes)]
        return {
            "drift": self._recipe("drift", recipe_values(self.config, DRIFT.name), self.vocabulary),
            "classes": self._recipe("classes", *asked),
            "classes-base": self._recipe("classes", *asked, of_base=True),
            "pictures": self._recipe("pictures", recipe_values(self.config, PICTURES.name), self.vocabulary),
        }

    @cached_property
    def recipe(self) -> str:
        """The recipe of the whole."""
        settings = clip_of(self.config)
        models = clip_models(settings) if settings else {}
        return recipe("audit", max(VERSIONS.values()), {}, list(self.recipes.values()), models)

    def _recipe(self, part: str, values: dict[str, Any], made_from: Sequence[str], of_base: bool = False) -> str:
        models = {"base": fingerprint(self.base)}
        if not of_base or self.trained.config is not None:  # a run's own VAE and schedule are the base's, too
            models["model"] = fingerprint(self.trained.checkpoint or self.trained.name)
        return recipe(f"audit {part}", VERSIONS[part], {**recipe_values(self.config), **values}, made_from, models)

    def _journal(self, part: str) -> Journal:
        return Journal(self.output / "measured" / f"{part}-{self.recipes[part]}.jsonl")

    def measure(self, progress: Progress) -> Audit:
        """Measures what is missing."""
        pair = load_pair(self.trained, self.base, self.config)
        classes, problems, costs = self._classes(pair, progress)
        drifts = self._drift(pair, progress)
        pictures, kid = self._pictures(pair, progress)
        deeper = {**self._deeper_drift(), **costs}
        return Audit(self.trained.name, self.base, drifts, classes, pictures, kid, problems, deeper)

    def _drift(self, pair: Pair, progress: Progress) -> tuple[PromptDrift, ...]:
        measured = drift.measure_drift(pair, self.vocabulary, self.config, self._journal("drift"), progress)
        relative = drift.relative_drifts(measured)
        intervals = mean_intervals(relative)
        found = [
            PromptDrift(prompt, float(values.mean()), *intervals.get(prompt, (None, None)))
            for prompt, values in relative.items()
        ]
        return tuple(sorted(found, key=lambda each: (-each.drift, each.prompt)))

    def _classes(
        self, pair: Pair, progress: Progress
    ) -> tuple[tuple[ClassAccuracy, ...], tuple[str, ...], dict[str, float]]:
        """Returns the classes, the images that could not be classified, and what all of it would cost."""
        if self.class_images is None or self.images is None:
            return (), (), {}
        questions, problems = classify.ask(pair.base, self.class_images, self.config, progress=progress)
        right, margins, seconds = [], [], 0.0
        for part, model in (("classes-base", pair.base), ("classes", pair.model)):
            journal = self._journal(part)
            answers = classify.answer(model, questions, self.config, pair.precision, journal, progress)
            right.append(np.array([float(answers[each.name].chosen in each.classes) for each in questions]))
            margins.append(np.array([answers[each.name].margin for each in questions]))
            seconds += sum(journal.results[each.name]["seconds"] for each in questions)
        places: dict[str, list[int]] = {}
        for place, question in enumerate(questions):
            for name in question.classes:
                places.setdefault(name, []).append(place)
        intervals = shared_intervals(right[1] - right[0], places)
        found = [
            ClassAccuracy(
                name,
                len(of),
                *(float(marks[of].mean()) for marks in right),
                *intervals.get(name, (None, None)),
                *(float(values[of].mean()) for values in margins),
            )
            for name, of in places.items()
        ]
        cost = self._deeper_classes(len(questions), len(places), seconds)
        return tuple(sorted(found, key=lambda each: each.order)), tuple(problems), cost

    def _pictures(self, pair: Pair, progress: Progress) -> tuple[tuple[PicturePair, ...], float | None]:
        prompts = picture_prompts(self.vocabulary, self.config.num_pictures)
        folder = self.output / "pictures" / self.recipes["pictures"]
        draw_pictures(pair, prompts, folder, self.config, progress)
        embedded = embed_pictures(prompts, folder, self.config)
        kid = None
        if embedded is not None and len(prompts) >= KID_PICTURES:
            kid = kernel_distance(embedded["base"], embedded["model"])
        return tuple(compare_pictures(prompts, folder, self.output, embedded)), kid

    def _deeper_drift(self) -> dict[str, float]:
        """What the whole vocabulary would cost, at the rate of the part that was measured."""
        measured = [result["seconds"] for result in self._journal("drift").results.values()]
        left = len(whole_vocabulary(self.config)) - len(self.vocabulary)
        return {"max_concepts null: the whole vocabulary": left * sum(measured) / len(measured)} if left else {}

    def _deeper_classes(self, images: int, classes: int, seconds: float) -> dict[str, float]:
        """What all images and all classes would cost, at the rate of those that were classified."""
        assert self.images is not None
        whole = self.config.model_copy(update={"images_per_class": None, "num_choices": None})
        every = read_class_images(self.images, whole)
        passes = images * classify.passes_per_image(classes, self.config)
        wanted = len(every.classes) * classify.passes_per_image(len(every.names()), whole)
        if wanted <= passes or not passes:
            return {}
        return {"images_per_class null and num_choices null: all images and classes": seconds * wanted / passes}
