"""The arms of the study of preservation: what each trains on, with which settings, and what of it is tried out."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.preservation_world import TAUGHT
from dreamloom.base.files.atomic import commit_folder
from dreamloom.base.models.clip import load_clip
from dreamloom.base.models.clip_config import ClipConfig
from dreamloom.curate.balance import exact, format_multiply
from dreamloom.curate.rules.selection import select_nearest, select_random, select_variety
from dreamloom.demo.folders import CONCEPT

MODELS = Path(__file__).parents[1] / "demo" / "models"
BATCH = 8
SHOWN = 1440
"""Images of the concept that each arm is shown."""
SELECTED = 64
"""Images of ground truth that an arm rehearses, of those to choose from."""
CLASS = "circle"
"""The old shape that plays the concept's class, where a method needs one."""
GROUND = "ground"
"""Name of the folder of ground truth."""

Settings = Mapping[str, Any]


def _rates(rates: Sequence[float]) -> list[Settings]:
    return [{"learning_rate": rate, "text_encoder_learning_rate": rate * 2 / 3} for rate in rates]


_FULL, _LORA = _rates((1e-4, 3e-4, 9e-4)), _rates((1e-3, 3e-3, 8e-3))


@dataclass(frozen=True)
class Arm:
    """A way to teach the concept."""

    title: str
    ratio: float = 0.0
    """Other images shown for each of the concept."""
    others: Callable[[Path, Path], None] | None = None
    """Fills a folder with them, from the world's folder; None: there are none."""
    settings: Settings = field(default_factory=dict)
    trials: Sequence[Settings] = tuple(_FULL)
    """What is tried out on a seed of its own, first what should keep most."""
    trials_of: str | None = None
    """An arm whose trials choose for it, instead of its own: one that differs in its ground truth alone, or in how much
    of it is shown, or predicted by the base."""
    rate: float = 1.0
    """By what the rates of those trials are multiplied."""

    def config(self, trial: Settings, images: int) -> dict[str, Any]:
        """Returns the settings of a run that shows so many images of the concept."""
        length: dict[str, Any] = {"max_train_steps": round(images * (1 + self.ratio) / BATCH)}
        if self.settings.get("auto_ratio"):  # its epochs count the images of the concept, whatever is shown beside them
            length = {"epochs": images // TAUGHT, "evaluate_every_n_steps": AUTO_STEPS}
        common = {"epochs": 100_000, "evaluate_every_n_steps": 0, "lr_scheduler": "cosine", "lr_warmup_images": 80}
        return {**common, **length, **self.settings, **trial}

    def chosen(self, trial: int) -> Settings:
        """Returns the settings of a trial, of this arm or of that whose trials it takes."""
        trials = ARMS[self.trials_of].trials if self.trials_of else self.trials
        return {name: self.rate * value for name, value in trials[trial].items()}

    def make_folder(self, world: Path, target: Path) -> None:
        """Makes the training folder, unless it is there."""
        if target.exists():
            return
        with commit_folder(target) as temporary:
            shutil.copytree(world / "concept", temporary / CONCEPT)
            if self.others is not None:
                self.others(world, temporary / GROUND)
                images = len(list((temporary / GROUND).glob("*.png")))
                taught = len(list((temporary / CONCEPT).glob("*.png")))
                multiply = exact(self.ratio) * taught / images
                (temporary / GROUND / "multiply.txt").write_text(format_multiply(multiply))


def random_ground_truth(world: Path, target: Path) -> None:
    """Copies ground truth chosen by chance."""
    names = _pool(world)
    _copy([names[i] for i in select_random([name.name for name in names], SELECTED, 0)], target)


def varied_ground_truth(world: Path, target: Path) -> None:
    """Copies ground truth that covers what there is."""
    names = _pool(world)
    _copy([names[i] for i in select_variety(_embed(names), SELECTED, 0)], target)


def nearest_ground_truth(world: Path, target: Path) -> None:
    """Copies the ground truth that is most like the concept."""
    names = _pool(world)
    taught = _embed(sorted((world / "concept").glob("*.png")))
    _copy([names[i] for i in select_nearest(_embed(names), taught, SELECTED)], target)


def class_pictures(world: Path, target: Path) -> None:
    """Has the base draw images of one class prompt, as DreamBooth does."""
    _draw([f"a {CLASS}"] * SELECTED, [f"a {CLASS}"] * SELECTED, target)


def generated_pictures(world: Path, target: Path) -> None:
    """Has the base draw what the captions of the random ground truth say."""
    names = _pool(world)
    chosen = [names[i] for i in select_random([name.name for name in names], SELECTED, 0)]
    captions = [name.stem.rsplit("_(", 1)[0] for name in chosen]
    _draw(captions, captions, target)


def _draw(prompts: Sequence[str], captions: Sequence[str], target: Path) -> None:
    from PIL import Image

    from dreamloom.demo.pretrain_measure import generate, load_pipeline

    images = generate(load_pipeline(MODELS), prompts, 77)
    target.mkdir()
    for number, (image, text) in enumerate(zip(images, captions, strict=True)):
        Image.fromarray(image).save(target / f"{text}_({number}).png")


def _pool(world: Path) -> list[Path]:
    return sorted((world / "pool").glob("*.png"))


def _copy(files: Sequence[Path], target: Path) -> None:
    target.mkdir()
    for file in files:
        shutil.copy(file, target / file.name)


def _embed(files: Sequence[Path]) -> Any:
    from PIL import Image

    clip = load_clip(ClipConfig(model=str(MODELS / "clip")), "cpu")
    images = [clip.prepare(Image.open(file).convert("RGB")) for file in files]
    return np.concatenate([clip.embed_images(images[at : at + 64]) for at in range(0, len(images), 64)])


AUTO_STEPS = 36
"""Steps after which the arm `auto` decides its ratio anew: a tenth of the run of an arm at 1:1."""
_AUTO = {"auto_ratio": True, "ground_truth": [GROUND], "limit_mean": 0.3, "limit_worst": 0.5}
_PRIOR = {"prior_prediction": 1.0, "ground_truth": [GROUND]}
_WORDS = {"concept_word": CONCEPT, "class_word": CLASS}

ARMS: dict[str, Arm] = {
    "naive": Arm("concept alone"),
    "lower_rate": Arm("concept alone, at a quarter of the rate", trials_of="naive", rate=0.25),
    "lora": Arm("LoRA of rank 16, concept alone", settings={"lora_rank": 16}, trials=_LORA),
    "dreambooth": Arm("DreamBooth: generated pictures of one class prompt, 1:1", 1.0, class_pictures),
    "generated": Arm("generated pictures of the ground truth's captions, 1:1", 1.0, generated_pictures),
    "truth_quarter": Arm("ground truth at random, 1:4", 0.25, random_ground_truth, trials_of="truth"),
    "truth": Arm("ground truth at random, 1:1", 1.0, random_ground_truth),
    "truth_variety": Arm("ground truth chosen for variety, 1:1", 1.0, varied_ground_truth, trials_of="truth"),
    "truth_nearest": Arm("ground truth nearest to the concept, 1:1", 1.0, nearest_ground_truth, trials_of="truth"),
    "auto": Arm(
        "ground truth at random, ratio auto (30 % mean, 50 % worst)", 1.0, random_ground_truth, _AUTO, trials_of="truth"
    ),
    "prior": Arm("prior prediction on ground truth, 1:1", 1.0, random_ground_truth, _PRIOR),
    "truth_prior": Arm(
        "ground truth and prior prediction, half each, 1:1",
        1.0,
        random_ground_truth,
        {**_PRIOR, "prior_prediction_weight": 0.5},
        trials_of="prior",
    ),
    "class_preservation": Arm(
        "differential output preservation, concept alone", settings={"class_preservation": 1.0, **_WORDS}
    ),
    "l2_sp": Arm(
        "pull of the weights to the base (L2-SP), concept alone",
        trials=[{**_FULL[2], "l2_sp": strength} for strength in (1.0, 0.1, 0.01)],
    ),
}
"""Name → arm, in the order of the tables."""
COMPARED = ("naive", "lower_rate", "lora", "dreambooth", "truth", "class_preservation", "l2_sp")
"""Arms whose models lose different shapes: by them, audits are compared with the pictures drawn right."""
AUDITED_SEED = 1
"""The seed whose models are audited; what an audit sorts by was chosen by models of seed 0."""
ALONE = ("naive", "lower_rate", "lora", "class_preservation", "l2_sp")
"""Arms without other images: they also train for as many steps as those that have as many others."""
