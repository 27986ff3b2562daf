"""What the caption stage can be told, and whether its models are ones."""

import json
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dreamloom.base.clip import ClipConfig, check_clip
from dreamloom.base.errors import UserError
from dreamloom.base.stage import BY_CONTENT, NO_RECIPE, Recipe, StageConfig
from dreamloom.caption.edit import EditConfig
from dreamloom.scrape.collection import CaptionKind

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]

_KINDS = ("blip", "blip-2")


class CaptionConfig(StageConfig):
    """Which captions are kept, and how the others are written."""

    model: str = Field(
        "Salesforce/blip-image-captioning-base",
        description="A BLIP or BLIP-2 in transformers' format: a folder, or an id of the Hugging Face hub.",
    )
    keep: tuple[CaptionKind, ...] = Field(
        (CaptionKind.HUMAN, CaptionKind.TEMPLATE),
        description="Pictures that came with a text of these kinds (human, alt, template) keep it as their caption.",
    )
    keep_alt_text_if_better: Annotated[bool, Recipe("ranks")] = Field(
        False, description="Alt text that is not kept anyway competes with what the model writes; CLIP chooses."
    )
    templates: Annotated[dict[str, tuple[str, ...]], Recipe("templates")] = Field(
        {},
        description="Source → texts, of which each of its images takes the one that CLIP finds likeliest (close up "
        "photo of a man, … of a woman): in place of its template and of the model's words. Kept human texts stay. "
        "As a flag: --templates.SOURCE TEXT, once for each text.",
    )
    prompt: Annotated[str, Recipe("blip")] = Field(
        "", description="How the model's sentences begin; left out of the captions."
    )
    beams: Annotated[int, Recipe("blip")] = Field(
        1, ge=1, le=64, description="Beams of the search; 1 is greedy, and more are slower."
    )
    top_p: Annotated[float | None, Recipe("blip")] = Field(
        None,
        gt=0,
        le=1,
        description="Sentences are drawn, each token from the likeliest ones that hold this much of the probability "
        "(nucleus sampling; BLIP's own: 0.9); null: the likeliest sentence is searched for.",
    )
    candidates: Annotated[int, Recipe("blip")] = Field(
        1, ge=1, le=64, description="Captions an image, of which CLIP takes the best; above 1 with top_p, or beams."
    )
    seed: Annotated[int, Recipe("blip")] = Field(
        0, ge=0, description="What is drawn hangs on this and the image alone, not on its batch."
    )
    min_length: Annotated[int, Recipe("blip")] = Field(
        5, ge=0, le=256, description="Fewest tokens a caption. (BLIP's COCO config: 5)"
    )
    max_length: Annotated[int, Recipe("blip")] = Field(
        30, ge=1, le=256, description="Most tokens a caption. (BLIP's own default: 30)"
    )
    no_repeat: Annotated[int, Recipe("blip")] = Field(
        3, ge=0, description="No run of so many tokens comes twice in a caption, against “bald bald bald”; 0: it may."
    )
    floor: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="CLIP cosine of image and caption under which a caption that was written is marked as doubtful; "
        "its image goes on. (0.2 is low for ViT-L-14.) null: none is asked.",
    )
    clip: Annotated[ClipConfig, BY_CONTENT] = Field(
        ClipConfig(), description="Which CLIP ranks captions; in a project, what score says where this says nothing."
    )
    edit: EditConfig = Field(EditConfig(), description="How captions are edited as a set, also those that were kept.")
    batch: Annotated[int, NO_RECIPE] = Field(
        16, ge=1, le=1024, description="Pictures a forward pass; many beams or candidates need fewer."
    )
    workers: Annotated[int, NO_RECIPE] = Field(
        4, ge=1, le=64, description="Threads that decode. Changes the speed only."
    )
    device: Annotated[Device, NO_RECIPE] = Field("auto", description="auto: the GPU where there is one.")
    precision: Annotated[Precision, Recipe("blip")] = Field(
        "auto", description="auto: bf16 where the GPU or processor computes in it, else fp32."
    )

    @model_validator(mode="after")
    def _fits(self) -> "CaptionConfig":
        if self.min_length > self.max_length:
            raise ValueError(f"min_length {self.min_length} is above max_length {self.max_length}")
        if self.top_p is not None and self.beams > 1:
            raise ValueError("top_p draws sentences and beams search for them; set one of the two")
        if self.top_p is None and self.candidates > self.beams:
            raise ValueError(f"candidates {self.candidates}: needs top_p (0.9, say), or as many beams")
        for source, texts in self.templates.items():
            if not texts or not all(text.strip() for text in texts):
                raise ValueError(f"templates.{source}: needs at least one text, and none that is empty")
        return self

    @property
    def ranks(self) -> bool:
        """Whether CLIP has to look at what the model writes."""
        return self.candidates > 1 or self.floor is not None or self.keep_alt_text_if_better

    @property
    def asks_clip(self) -> bool:
        """Whether any source's captions need CLIP."""
        return self.ranks or bool(self.templates)


def check(config: CaptionConfig) -> None:
    """Sees, without importing torch, that the models are ones, or may be on the hub.

    Raises:
        UserError: one can't be.
    """
    _check_blip(config.model)
    if config.asks_clip:
        check_clip(config.clip)


def _check_blip(model: str) -> None:
    folder = Path(model).expanduser()
    if not folder.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not model.startswith("."):
        return
    mend = "name a folder that transformers saved a BLIP in, or an id such as Salesforce/blip-image-captioning-base."
    try:
        kind = json.loads((folder / "config.json").read_bytes()).get("model_type")
    except (OSError, ValueError, AttributeError):
        raise UserError(f"The captioning model {model} has no config.json of a model; {mend}") from None
    if kind not in _KINDS:
        raise UserError(f"The captioning model {model} is of the kind {kind}, not {' or '.join(_KINDS)}; {mend}")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise UserError(f"The captioning model {model} has no weights (model.safetensors); {mend}")
