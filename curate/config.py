"""Configs of score, choose and balance."""

import re
from enum import StrEnum
from itertools import permutations
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dreamloom.base.images.buckets import read_folder_resolutions
from dreamloom.base.models.clip_config import ClipConfig
from dreamloom.base.models.device import DeviceName
from dreamloom.base.stage import BY_CONTENT, NO_RECIPE, Group, Recipe, StageConfig

RESOLUTIONS = Recipe("resolutions")
"""Of resolutions of single sources, so that choices without them stay what they are."""

_SPEED = Group("Speed")
_TRAINING = Group("What training accepts")
_THRESHOLDS, _LICENCES, _COPIES = Group("Thresholds"), Group("Licences"), Group("Duplicates")
_GROUND_TRUTH, _HELD_OUT = Group("Ground truth"), Group("Held-out images")


class ScoreConfig(ClipConfig):
    """Which models score the images."""

    aesthetic_head: Annotated[Path | None, BY_CONTENT, Group("Model")] = Field(
        None,
        description="LAION aesthetic head (V1 linear, V2 linearMSE) for this CLIP, a file; null: no aesthetic scores.",
    )
    batch_size: Annotated[int, NO_RECIPE, _SPEED] = Field(32, ge=1, description="Images per forward pass.")
    num_workers: Annotated[int, NO_RECIPE, _SPEED] = Field(4, ge=1, description="Threads that decode images.")
    device: Annotated[DeviceName, _SPEED] = "auto"


class Selection(StrEnum):
    """How ground-truth images are selected, where there are more than are wanted."""

    RANDOM = "random"
    """Favours nothing."""
    VARIETY = "variety"
    """Covers what there is, by CLIP."""
    NEAREST = "nearest"
    """Most like the training images, by CLIP: what is most at risk."""
    MIX = "mix"
    """Half nearest, half variety."""


class NearDuplicates(StrEnum):
    """Which images that look the same are dropped. The CLIP embeddings agree in any case."""

    OFF = "off"
    """None."""
    STRICT = "strict"
    """Those whose pHashes differ in 4 bits at most."""
    SIMILAR = "similar"
    """Also those whose pHashes differ in 10 bits, one of them mirrored or not, and those that show a part of one."""


class ChooseConfig(StageConfig):
    """Which images go on. Thresholds and licences apply to ground truth only."""

    resolution: Annotated[int | None, _TRAINING] = Field(
        None,
        ge=32,
        le=4096,
        description="Drop images that training at this resolution would leave out as too small, so that balance counts "
        "what is trained on; null: keep them. In a project: train's, if left out.",
    )
    bucket_reso_steps: Annotated[int, _TRAINING] = Field(
        64, ge=8, le=256, description="As in training; in a project: train's, if left out."
    )
    upscale: Annotated[bool, _TRAINING] = Field(
        True, description="Whether training enlarges small images; in a project: train's, if left out."
    )
    folder_resolutions: Annotated[list[str], RESOLUTIONS, _TRAINING] = Field(
        [],
        description="Resolutions of single sources in place of `resolution`, each as SOURCE=PIXELS; in a project: "
        "train's, if left out.",
    )

    min_aesthetic: Annotated[float | None, _THRESHOLDS] = Field(
        None,
        description="Lowest aesthetic score to keep; null: any. Stable Diffusion used 5 on V2's scale; LAION cut V1's "
        "at 7.",
    )
    min_similarity: Annotated[float | None, _THRESHOLDS] = Field(
        None,
        ge=-1,
        le=1,
        description="Lowest CLIP cosine of an image and its text to keep; null: any. LAION used 0.28 with ViT-B/32.",
    )
    exclude_licences: Annotated[list[str], _LICENCES] = Field(
        [],
        description="Words in a licence's name or URL that exclude an image: NonCommercial, by-nd, or unknown for "
        "images without a licence.",
    )
    near_duplicates: Annotated[NearDuplicates, _COPIES] = Field(
        NearDuplicates.STRICT,
        description="Which images count as copies beside files with equal bytes, of which the best stays. strict: "
        "shrunk, recompressed or brightened ones; similar: also mirrored or cropped ones, and those with a border or a "
        "text; off: none. Needs scores.",
    )
    near_duplicate_cosine: Annotated[float, _COPIES] = Field(
        0.94, ge=-1, le=1, description="Minimum CLIP cosine of near duplicates (clip-retrieval's threshold)."
    )
    max_ground_truth: Annotated[int | None, _GROUND_TRUTH] = Field(
        None, ge=1, description="Maximum images to keep of each source of ground truth; null: all."
    )
    select_by: Annotated[Selection, _GROUND_TRUTH] = Field(
        Selection.RANDOM,
        description="Which images max_ground_truth keeps. random: any; variety: they cover all of the source; nearest: "
        "most like the training images; mix: half nearest, half variety. All but random need scores.",
    )
    select_seed: Annotated[int, _GROUND_TRUTH] = Field(0, ge=0, description="Seed of random and variety.")

    def resolution_of(self, source: str) -> int | None:
        """Returns the resolution at which the images of a source are trained on; None: any image is large enough."""
        own = read_folder_resolutions(self.folder_resolutions)
        return None if self.resolution is None else own.get(source, self.resolution)

    @field_validator("folder_resolutions")
    @classmethod
    def _check_resolutions(cls, given: list[str]) -> list[str]:
        read_folder_resolutions(given)
        return given


class BalanceConfig(StageConfig):
    """How much ground truth accompanies the training images, and which images are held out."""

    ratio: Annotated[Annotated[float, Field(gt=0, le=1000)] | Literal["auto"], _GROUND_TRUTH] = Field(
        1.0,
        description="Ground-truth images shown for each training image shown; auto: training begins with 1 and "
        "moves it at each evaluation, to hold train.limit_mean and train.limit_worst.",
    )
    held_out: Annotated[float, _HELD_OUT] = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of each source's images held out from training, to measure learned and forgotten.",
    )
    held_out_max_training: Annotated[int, _HELD_OUT] = Field(64, ge=0, description="Maximum held-out training images.")
    held_out_max_ground_truth: Annotated[int, _HELD_OUT] = Field(
        256, ge=0, description="Maximum held-out ground-truth images."
    )
    held_out_max_witness: Annotated[int, _HELD_OUT] = Field(
        256, ge=0, description="Maximum images that measure what becomes of what is not rehearsed; see `unrehearsed`."
    )
    concepts: Annotated[list[str], _HELD_OUT] = Field(
        [],
        description="Words and phrases, such as fire truck: what becomes of images that show one is reported, beside "
        "the most frequent labels and nouns, which are found.",
    )
    unrehearsed: Annotated[float, _HELD_OUT] = Field(
        0.05,
        ge=0,
        le=0.5,
        description="Largest share of ground truth that is not trained on, as whole concepts, to measure what becomes "
        "of what is not rehearsed; 0: none. Of less than 1,000 images, none. Sources with role: witness do the same.",
    )
    seed: Annotated[int, _HELD_OUT] = Field(
        0, ge=0, description="Seed that selects the held-out images and the unrehearsed concepts."
    )

    @field_validator("ratio", mode="before")
    @classmethod
    def _refuse_pairs(cls, ratio: Any) -> Any:
        """Refuses 2:1 with what to write: which of its numbers is the ground truth, it does not say."""
        if not isinstance(ratio, str):
            return ratio
        pair = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*[:/]\s*(\d+(?:\.\d+)?)\s*", ratio)
        if pair is None or not all(map(float, pair.groups())):
            return ratio
        quotients = dict.fromkeys(f"{a / b:.4g}" for a, b in permutations(map(float, pair.groups())))
        raise ValueError(
            f"is one number, the images of ground truth for each training image: {' or '.join(quotients)}, not {ratio}"
        )

    @property
    def ratio_of_folder(self) -> float:
        """The ratio of the training folder."""
        return 1.0 if self.ratio == "auto" else self.ratio
