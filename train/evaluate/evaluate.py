"""How much a model learned, and how much it forgot.

Every held-out image is noised at the same timesteps with the same noise for each model, so two models differ by their
weights alone. `learned` is by how much the loss on held-out training images fell against the base model, `forgotten`
by how much the loss on held-out ground truth rose.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from dreamloom.base import html
from dreamloom.base.errors import UserError
from dreamloom.base.files import fingerprint
from dreamloom.base.progress import Progress, silent
from dreamloom.base.stage import NO_RECIPE, StageConfig, recipe
from dreamloom.train.data.dataset import Dataset, read_dataset
from dreamloom.train.model.check import check_base_model
from dreamloom.train.run.find import Source, find_source

KINDS = ("training", "ground_truth")
"""The folders in a folder of held-out images."""

Losses = dict[str, float]
"""Name of a held-out image → its mean loss over the timesteps."""


class EvaluateConfig(StageConfig):
    """Measures a model on held-out images against the model it comes from."""

    resolution: int = Field(512, ge=32, le=4096, description="Side of the square bucket, in pixels; bounds all areas.")
    bucket_reso_steps: int = Field(64, ge=8, le=256, description="Bucket sides are multiples of this, in pixels.")
    upscale: bool = Field(True, description="Enlarge images that are smaller than their bucket, as in training.")
    pad_color: str | None = Field(
        None, pattern="^#[0-9a-fA-F]{6}$", description="Show whole images on this colour, as in training; none: crop."
    )
    batch_size: Annotated[int, NO_RECIPE] = Field(4, ge=1, le=4096, description="Pictures a forward pass.")
    eval_timesteps: int = Field(8, ge=1, le=1000, description="Timesteps at which each image is judged, one a stratum.")
    seed: int = Field(0, ge=0, lt=2**63, description="The noise derives from it.")
    vae: str | None = Field(None, description="A VAE in place of the base's, for both models.")
    use_ema: bool = Field(True, description="Judge a checkpoint's averaged weights, where it has them.")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="Of the arithmetic, as in training.")
    device: Annotated[str, NO_RECIPE] = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    num_workers: Annotated[int, NO_RECIPE] = Field(4, ge=1, le=256, description="Threads that read and decode images.")
    latent_cache: Annotated[Path | None, NO_RECIPE] = Field(
        None, description="Where latents are kept; none: in memory."
    )


@dataclass(frozen=True)
class Measure:
    """A change between the base model and now."""

    change: float
    """learned: 1 − now/base. forgotten: now/base − 1."""
    error: float | None
    """Standard error of `change` over the images; None for a single image."""
    base: float
    """Mean loss of the base model."""
    now: float
    pictures: int

    def __str__(self) -> str:
        """ "12.3 ± 0.8 %"."""
        error = "" if self.error is None else f" ± {100 * self.error:.1f}"
        return f"{100 * self.change:.1f}{error} %"


@dataclass(frozen=True)
class Evaluation:
    """What a model learned and forgot."""

    learned: Measure | None
    """None where no training images are held out."""
    forgotten: Measure | None
    """None where no ground truth is held out."""
    base: dict[str, Losses]
    """Kind → losses of the base model."""
    now: dict[str, Losses]
    problems: tuple[str, ...] = ()
    """Held-out images that could not be judged, with the reason."""

    def to_dict(self) -> dict[str, Any]:
        """Itself as JSON types."""
        return asdict(self)

    def _repr_html_(self) -> str:
        measures = {"learned": self.learned, "forgotten": self.forgotten}
        rows = [
            {
                "measure": name,
                "of the base model's loss": str(measure),
                "base model": measure.base,
                "now": measure.now,
                "images": measure.pictures,
            }
            for name, measure in measures.items()
            if measure is not None
        ]
        return html.table(rows) or "<p>Nothing is held out, so nothing was measured.</p>"


def evaluate(
    model: Path | str, base: str, heldout: Path | str, config: EvaluateConfig, progress: Progress = silent
) -> Evaluation:
    """Measures a model against its base.

    Args:
        model: a run (its best checkpoint is measured), a checkpoint of a run, a diffusers folder, a file or a hub id.
        base: the diffusers folder or hub id of the model it comes from.
        heldout: a folder with training/ and ground_truth/, or one of them: training folders of held-out images.

    Raises:
        UserError: a model or the images are not there, or the models predict different things.
    """
    check_base_model(base)
    source = find_source(model)
    kinds = read_heldout(Path(heldout), config.resolution, config.bucket_reso_steps, config.num_workers, config.upscale)
    if known := measured_in_training(source, base, kinds, config):
        return known
    from dreamloom.train.evaluate.held_out_loss import compare  # torch from here on

    return compare(source, base, kinds, config, progress)


def way(base: str, kinds: Mapping[str, Dataset], config: EvaluateConfig) -> str:
    """Names all that a measurement depends on, but the model that is measured."""
    digests = [f"{name} {kind.digest()}" for name, kind in sorted(kinds.items())]
    return recipe("evaluate", 1, config, digests, {"base": fingerprint(base)})


def measured_in_training(
    source: Source, base: str, kinds: Mapping[str, Dataset], config: EvaluateConfig
) -> Evaluation | None:
    """What a run measured at this checkpoint, where it did so in the same way; there is nothing to measure again."""
    if source.checkpoint is None or source.config is None:
        return None
    file = source.checkpoint.parent.parent / "evaluation.json"
    stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    same = config.model_copy(update={"vae": config.vae or source.config.vae})
    if stored.get("way") != way(base, kinds, same) or not config.use_ema:
        return None
    now = stored["now"].get(source.checkpoint.name)
    if now is None:
        return None
    return Evaluation(*measure_all(stored["base"], now), stored["base"], now, tuple(stored["problems"]))


def read_heldout(folder: Path | None, resolution: int, quantum: int, workers: int, upscale: bool) -> dict[str, Dataset]:
    """The held-out images by kind; a kind that is not there, or has no image, is left out.

    Raises:
        UserError: the folder is not there, or holds neither kind.
    """
    if folder is None:
        return {}
    here = [kind for kind in KINDS if (folder / kind).is_dir() and any((folder / kind).iterdir())]
    if not here:
        raise UserError(f"{folder} holds no held-out images: it needs a folder {' or '.join(KINDS)} of images.")
    return {kind: read_dataset(folder / kind, resolution, quantum, workers, upscale) for kind in here}


def measure_all(base: Mapping[str, Losses], now: Mapping[str, Losses]) -> tuple[Measure | None, Measure | None]:
    """Learned and forgotten."""
    learned = measure(base["training"], now["training"], sign=-1) if "training" in base else None
    forgotten = measure(base["ground_truth"], now["ground_truth"], sign=1) if "ground_truth" in base else None
    return learned, forgotten


def measure(base: Losses, now: Losses, sign: int) -> Measure | None:
    """sign · (mean now / mean base − 1), with its standard error by linearization of the ratio of two means.

    (Cochran 1977, "Sampling techniques", section 2.11.)
    """
    names = sorted(base)
    count = len(names)
    if not count:
        return None
    before, after = sum(base[n] for n in names) / count, sum(now[n] for n in names) / count
    ratio = after / before
    error = None
    if count > 1:
        residuals = sum((now[n] - ratio * base[n]) ** 2 for n in names)
        error = math.sqrt(residuals / (count - 1) / count) / before
    change = sign * (ratio - 1) + 0.0  # never −0
    return Measure(change, error, before, after, count)
