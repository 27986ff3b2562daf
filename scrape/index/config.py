"""The config of `filter`: which rows of a LAION-style index become candidates."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dreamloom.base.stage import BY_CONTENT, PART_ROWS, StageConfig
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


class FilterConfig(StageConfig):
    """Which rows of an index become candidates.

    A limit left at its default passes where the index has no such column; any other value is an error there. Where the
    column is there, a row that has no value in it is dropped (of punsafe and pwatermark, see `unscored`).
    """

    index: Annotated[list[str], BY_CONTENT] = Field(
        description="Parquet files of a LAION-style index: paths, folders or globs, also s3:// or hf://, in order."
    )
    words: Words = Field(Words(), description="What the caption must and must not say.")
    caption_column: str | None = Field(
        None, description="The column of captions; null: text, caption or top_caption, the first that is there."
    )
    min_side: int | None = Field(512, ge=1, description="Both sides have at least this many pixels; null: any size.")
    max_aspect: float | None = Field(3.0, ge=1, description="Longer side by shorter side, at most; null: any shape.")
    min_aesthetic: float | None = Field(
        None, description="Aesthetic score, at least, on the index's own scale; null: any."
    )
    aesthetic_scale: Literal["v1", "v2"] | None = Field(
        None,
        description="Of which predictor min_aesthetic is, LAION's V1 or V2, whose scores are not comparable; null: "
        "that of the index, which must then be one.",
    )
    min_similarity: float | None = Field(None, description="CLIP cosine of image and text, at least; null: any.")
    max_punsafe: float | None = Field(0.1, gt=0, description="Probability of being unsafe, below this; null: any.")
    max_pwatermark: float | None = Field(0.5, gt=0, description="Probability of a watermark, below this; null: any.")
    unscored: Literal["drop", "keep"] = Field(
        "drop", description="What to do with rows whose punsafe or pwatermark nobody has computed: null is not safe."
    )
    languages: list[str] = Field(
        [], description='Languages of the caption, as the index writes them ("en"); none: all.'
    )
    licences: list[str] = Field([], description="Licences to take, as the index writes them, in any case; none: all.")
    domains: list[str] = Field([], description="Domains to take, with all their subdomains; none: all.")
    exclude_domains: list[str] = Field(STOCK_SITES, description="Domains to leave out, with all their subdomains.")
    deduplicate_by: Literal["url", "url_text"] = Field(
        "url", description="What makes two rows one: the same URL, or the same URL with the same caption."
    )
    limit: int | None = Field(None, ge=1, description="Candidates, at most; null: all.")
    take: Literal["first", "best", "sample"] = Field(
        "first",
        description="Which to take under `limit`: the first of the index, the best by aesthetic score, or a uniform "
        "sample that depends on `seed` alone.",
    )
    seed: int = Field(0, description="Of the sample.")
    part_rows: int = Field(PART_ROWS, ge=1, description="Rows of a part, the unit of work of all later stages.")

    @field_validator("index", mode="before")
    @classmethod
    def _one_or_many(cls, index: Any) -> Any:
        return [index] if isinstance(index, str) else index
