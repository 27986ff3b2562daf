"""Config of the caption stage, and of the edits of captions."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from dreamloom.base.models.clip_config import ClipConfig
from dreamloom.base.models.device import DeviceName, PrecisionName
from dreamloom.base.stage import BY_CONTENT, NO_RECIPE, Group, PathKind, Recipe, StageConfig
from dreamloom.scrape.collection import CaptionKind

PLACEHOLDER = re.compile(r"\{(\w*)\}")
"""A place in an edit's template: {caption} or {source}."""
_PLACEHOLDERS = ("caption", "source")

_KEPT, _MODEL, _GENERATION = Group("Kept texts"), Group("Model"), Group("Generation")
_RANKING, _EDITING, _SPEED = Group("Ranking"), Group("Editing"), Group("Speed")

GENERATION, RANKING, TEMPLATES = Recipe("generation"), Recipe("ranking"), Recipe("templates")
"""The recipes by which the candidates of an image are found; see dreamloom.caption.reuse."""


class EditConfig(StageConfig):
    """How captions are edited. The rules apply in this order."""

    remove_html: Annotated[Literal["web", "all", "none"], _EDITING] = Field(
        "web",
        description="Captions from which HTML is removed, tags (<b>) and entities (&amp;): alt texts of the web, all "
        "captions, or none.",
    )
    remove_invented: Annotated[bool, _EDITING] = Field(
        False, description="Remove the words that BLIP invents, arafed, araffe and their like."
    )
    max_repeats: Annotated[int | None, _EDITING] = Field(
        None,
        ge=1,
        description="Maximum times that a word or phrase is said running: 1 makes “a bald bald bald man” “a bald man”; "
        "null: any.",
    )
    strip: Annotated[tuple[str, ...], _EDITING] = Field(
        (), description="Phrases to remove from the beginning of a caption: “a picture of”, “a photo of”."
    )
    replace: Annotated[dict[str, str], _EDITING] = Field(
        {},
        description="Whole words or phrases → their replacement, verbatim; an empty one removes them. All are replaced "
        "at once, so that two can swap; of two that begin at the same place, the longer. "
        "As a flag, once for each: replace.WORDS REPLACEMENT.",
    )
    template: Annotated[str, _EDITING] = Field(
        "",
        description="Text around the caption: {caption} is the caption, {source} the name of the source or folder.",
    )
    prefix: Annotated[str, _EDITING] = Field("", description="Text to begin each caption with, unless it does.")
    suffix: Annotated[str, _EDITING] = Field("", description="Text to end each caption with, unless it does.")
    deduplicate: Annotated[bool, _EDITING] = Field(
        False, description="Keep only the first of equal phrases between commas."
    )
    tag_order: Annotated[tuple[str, ...], _EDITING] = Field(
        (), description="Phrases between commas to move to the front, in this order; the others keep theirs."
    )

    @field_validator("replace", mode="before")
    @classmethod
    def _from_rows(cls, replace: object) -> object:
        """Takes what a form sends, too: a list of {words: …, replacement: …}."""
        if not isinstance(replace, list) or not all(isinstance(row, dict) and "words" in row for row in replace):
            return replace
        table = {row["words"]: row.get("replacement", "") for row in replace}
        if len(table) < len(replace):
            raise ValueError("words to look for stand in two rows; leave one out")
        return table

    @field_validator("strip", "tag_order", "replace")
    @classmethod
    def _not_blank(cls, words: "tuple[str, ...] | dict[str, str]") -> "tuple[str, ...] | dict[str, str]":
        if any(not word.split() for word in words):
            raise ValueError("a word is blank; write the word to look for, or leave it out")
        return words

    @field_validator("template")
    @classmethod
    def _placeholders_exist(cls, template: str) -> str:
        for name in PLACEHOLDER.findall(template):
            if name not in _PLACEHOLDERS:
                raise ValueError(f"{{{name}}} is not known; {{caption}} and {{source}} are")
        return template


class CaptionConfig(StageConfig):
    """Which texts are kept as captions, and how the other captions are written."""

    model: Annotated[str, PathKind.MODEL, _MODEL] = Field(
        "Salesforce/blip-image-captioning-base",
        description="Captioning model, a BLIP or BLIP-2: a folder in transformers' format, or a Hugging Face hub ID.",
    )
    keep_kinds: Annotated[tuple[CaptionKind, ...], _KEPT] = Field(
        (CaptionKind.HUMAN, CaptionKind.TEMPLATE),
        description="Kinds of text (human, alt, template) that an image keeps as its caption.",
    )
    keep_alt_text_if_better: Annotated[bool, RANKING, _KEPT] = Field(
        False, description="Let alt text that is not kept anyway compete with the model's captions; CLIP chooses."
    )
    templates: Annotated[dict[str, tuple[str, ...]], TEMPLATES, _KEPT] = Field(
        {},
        description="Source → texts (close up photo of a man, … of a woman), of which each of its images gets the one "
        "that CLIP ranks highest, in place of its template and of the model's caption. Kept human texts stay. "
        "As a flag: --templates.SOURCE TEXT, once for each text.",
    )
    prompt: Annotated[str, GENERATION, _GENERATION] = Field(
        "", description="Beginning of the model's sentences; removed from the captions."
    )
    num_beams: Annotated[int, GENERATION, _GENERATION] = Field(
        1, ge=1, le=64, description="Beams of beam search; 1 is greedy search. More are slower."
    )
    top_p: Annotated[float | None, GENERATION, _GENERATION] = Field(
        None,
        gt=0,
        le=1,
        description="Probability mass of nucleus sampling (BLIP's own: 0.9); null: search for the likeliest sentence.",
    )
    num_candidates: Annotated[int, GENERATION, _GENERATION] = Field(
        1,
        ge=1,
        le=64,
        description="Captions generated per image, of which CLIP takes the best; above 1 needs top_p or num_beams.",
    )
    seed: Annotated[int, GENERATION, _GENERATION] = Field(
        0, ge=0, description="Seed of sampling; a caption depends on it and on the image, not on the batch."
    )
    min_length: Annotated[int, GENERATION, _GENERATION] = Field(
        5, ge=0, le=256, description="Minimum tokens of a caption. (BLIP's COCO config: 5)"
    )
    max_length: Annotated[int, GENERATION, _GENERATION] = Field(
        30, ge=1, le=256, description="Maximum tokens of a caption. (BLIP's default: 30)"
    )
    no_repeat_ngram_size: Annotated[int, GENERATION, _GENERATION] = Field(
        3,
        ge=0,
        description="Length in tokens of runs that may not repeat in a caption. Unless it is 0, no token comes three "
        "times running (“bald bald bald”), either.",
    )
    doubtful_below: Annotated[float | None, _RANKING] = Field(
        None,
        ge=-1,
        le=1,
        description="CLIP cosine of image and caption below which a generated caption is marked as doubtful; its image "
        "goes on. (0.2 is low for ViT-L-14.) null: none is marked.",
    )
    clip: Annotated[ClipConfig, BY_CONTENT, _RANKING] = Field(
        ClipConfig(), description="CLIP that ranks captions; in a project, fields left out are those of score."
    )
    edit: Annotated[EditConfig, _EDITING] = Field(
        EditConfig(), description="How captions are edited, including those that were kept."
    )
    batch_size: Annotated[int, NO_RECIPE, _SPEED] = Field(
        16, ge=1, le=1024, description="Images per forward pass; lower it for many beams or candidates."
    )
    num_workers: Annotated[int, NO_RECIPE, _SPEED] = Field(4, ge=1, le=64, description="Threads that decode images.")
    device: Annotated[DeviceName, _SPEED] = "auto"
    precision: Annotated[PrecisionName, GENERATION, _MODEL] = Field(
        "auto",
        description="Arithmetic of the captioning model; auto: bf16 where the GPU or processor computes in it, else "
        "fp32; fp16 is for GPUs that do not.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "CaptionConfig":
        if self.min_length > self.max_length:
            raise ValueError(f"min_length {self.min_length} is above max_length {self.max_length}")
        if self.top_p is not None and self.num_beams > 1:
            raise ValueError("top_p draws sentences and num_beams searches for them; set one of the two")
        if self.top_p is None and self.num_candidates > self.num_beams:
            raise ValueError(f"num_candidates {self.num_candidates}: needs top_p (0.9, say), or as many num_beams")
        for source, texts in self.templates.items():
            if not texts or not all(text.strip() for text in texts):
                raise ValueError(f"templates.{source}: needs at least one text, and none that is empty")
        return self

    @property
    def ranks(self) -> bool:
        """Whether CLIP ranks the model's captions."""
        return self.num_candidates > 1 or self.doubtful_below is not None or self.keep_alt_text_if_better

    @property
    def needs_clip(self) -> bool:
        """Whether the captions of any source need CLIP."""
        return self.ranks or bool(self.templates)
