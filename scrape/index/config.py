"""The config of `filter`: which rows of a LAION-style index become candidates."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dreamloom.base.stage import BY_CONTENT, PART_ROWS, Group, PathKind, StageConfig
from dreamloom.scrape.index.words import Words

STOCK_SITES = [
    "123rf.com",
    "alamy.com",
    "colourbox.com",
    "depositphotos.com",
    "dreamstime.com",
    "envato.com",
    "gettyimages.com",
    "istockphoto.com",
    "shutterstock.com",
    "stockfresh.com",
]
"""Sites that sell images, and show them with a watermark."""

_CAPTIONS, _SIZE, _SCORES = Group("Captions"), Group("Size"), Group("Scores")
_ORIGIN, _SELECTION = Group("Origin"), Group("Selection")


class FilterConfig(StageConfig):
    """Which rows of an index become candidates.

    A limit that is left at its default drops nothing where the index has no column for it; any other value is then an
    error. Where the column exists, rows without a value in it are dropped (for punsafe and pwatermark see `unscored`).
    """

    index: Annotated[list[str], PathKind.PATTERNS, BY_CONTENT] = Field(
        description="Parquet files of a LAION-style index, or lists of addresses (.csv, .tsv, .txt, .jsonl), in order: "
        "paths, folders or globs, also s3:// or hf://."
    )
    words: Annotated[Words, _CAPTIONS] = Field(Words(), description="Words that the caption must and must not contain.")
    url_column: Annotated[str | None, _ORIGIN] = Field(
        None, description="Column of addresses; null: url or image_url, the first that exists."
    )
    text_column: Annotated[str | None, _CAPTIONS] = Field(
        None,
        description="Column of captions, or a field of one (caption.en); null: text, caption or top_caption, the first "
        "that exists. Of a list the first caption is taken.",
    )
    languages: Annotated[list[str], _CAPTIONS] = Field(
        [], description='Languages of the caption to take, as the index spells them ("en"); empty: all.'
    )
    min_side: Annotated[int | None, _SIZE] = Field(
        512, ge=1, description="Minimum width and height, in pixels; null: any."
    )
    max_aspect: Annotated[float | None, _SIZE] = Field(
        3.0, ge=1, description="Maximum ratio of the longer side to the shorter; null: any."
    )
    min_aesthetic: Annotated[float | None, _SCORES] = Field(
        None, description="Minimum aesthetic score, on the scale of the index; null: any."
    )
    aesthetic_scale: Annotated[Literal["v1", "v2"] | None, _SCORES] = Field(
        None,
        description="LAION's predictor, V1 or V2, whose scale min_aesthetic is on (they are not comparable); null: "
        "that of the index, which must have one scale only.",
    )
    min_similarity: Annotated[float | None, _SCORES] = Field(
        None, description="Minimum CLIP cosine similarity of image and text; null: any."
    )
    max_punsafe: Annotated[float | None, _SCORES] = Field(
        0.1, gt=0, description="Keep rows whose probability of being unsafe is below this; null: any."
    )
    max_pwatermark: Annotated[float | None, _SCORES] = Field(
        0.5, gt=0, description="Keep rows whose probability of a watermark is below this; null: any."
    )
    unscored: Annotated[Literal["drop", "keep"], _SCORES] = Field(
        "drop", description="What to do with rows that have no punsafe or pwatermark: a missing score is not safe."
    )
    licences: Annotated[list[str], _ORIGIN] = Field(
        [], description="Licences to take, as the index spells them, in any case; empty: all."
    )
    domains: Annotated[list[str], _ORIGIN] = Field(
        [], description="Domains to take, including their subdomains; empty: all."
    )
    exclude_domains: Annotated[list[str], _ORIGIN] = Field(
        STOCK_SITES, description="Domains to leave out, including their subdomains."
    )
    deduplicate_by: Annotated[Literal["url", "url_text"], _SELECTION] = Field(
        "url", description="Which rows are duplicates: those with the same URL, or the same URL and caption."
    )
    limit: Annotated[int | None, _SELECTION] = Field(
        None, ge=1, description="Maximum number of candidates; null: no maximum."
    )
    take: Annotated[Literal["first", "best", "sample"], _SELECTION] = Field(
        "first",
        description="Which rows to take up to `limit`: the first of the index, the best by aesthetic score, or a "
        "uniform sample that depends on `seed` alone.",
    )
    seed: Annotated[int, _SELECTION] = Field(0, description="Seed of the sample.")
    part_rows: Annotated[int, _SELECTION] = Field(
        PART_ROWS, ge=1, description="Rows per part, the unit of work of all later stages."
    )

    @field_validator("index", mode="before")
    @classmethod
    def _one_or_many(cls, index: Any) -> Any:
        return [index] if isinstance(index, str) else index
