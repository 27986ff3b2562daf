"""How images are downloaded, checked and stored: the config of the scrape stage."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from dreamloom.base.images.pixels import MAX_PIXELS
from dreamloom.base.stage import NO_RECIPE, Group, StageConfig

_ENGINE = Group("Engine")
_NETWORK = Group("Network")
_POLITENESS = Group("Politeness")
_LIMITS = Group("Limits and safety")
_IMAGES = Group("Images")


class ScrapeConfig(StageConfig):
    """How images are requested and how they are stored.

    Fields that only set the effort (timeouts, retries, concurrency) are not part of the recipe: raising a timeout does
    not download stored images again. To fetch those that failed, name their statuses in `retry`.
    """

    engine: Annotated[Literal["native", "img2dataset"], NO_RECIPE, _ENGINE] = Field(
        "native",
        description="What downloads: dreamloom itself, or img2dataset 1.47 first, which can use many machines.",
    )
    distributor: Annotated[Literal["multiprocessing", "pyspark", "ray"], NO_RECIPE, _ENGINE] = Field(
        "multiprocessing",
        description="What runs img2dataset's processes: this machine, or a Spark or Ray cluster.",
    )
    processes: Annotated[int, NO_RECIPE, _ENGINE] = Field(
        0,
        ge=0,
        description="Processes of img2dataset, which share `concurrency`; 0: one per CPU core. Spark and Ray choose "
        "their own number.",
    )
    decode_threads: Annotated[int, NO_RECIPE, _ENGINE] = Field(
        0, ge=0, description="Threads that decode images; 0: one per CPU core."
    )

    timeout_s: Annotated[float, NO_RECIPE, _NETWORK] = Field(
        30.0, gt=0, description="Seconds allowed for one URL, from the first byte to the last, redirects included."
    )
    connect_timeout_s: Annotated[float, NO_RECIPE, _NETWORK] = Field(
        10.0, gt=0, description="Seconds allowed to connect to a host."
    )
    retries: Annotated[int, NO_RECIPE, _NETWORK] = Field(
        1, ge=0, le=10, description="Further attempts, within the run, after a failure that may pass in seconds."
    )
    concurrency: Annotated[int, NO_RECIPE, _NETWORK] = Field(
        128, ge=1, le=1024, description="Maximum concurrent requests."
    )
    max_redirects: Annotated[int, _NETWORK] = Field(5, ge=0, le=20, description="Maximum redirects followed.")

    concurrency_per_host: Annotated[int, NO_RECIPE, _POLITENESS] = Field(
        4, ge=1, le=64, description="Maximum concurrent requests per host."
    )
    delay_per_host_s: Annotated[float, NO_RECIPE, _POLITENESS] = Field(
        0.0, ge=0, le=60, description="Minimum seconds between two requests to one host."
    )
    max_host_failures: Annotated[int | None, NO_RECIPE, _POLITENESS] = Field(
        5,
        ge=1,
        description="Consecutive requests without an answer after which a host is paused, and in the end given up; "
        "null: never.",
    )
    user_agent_contact: Annotated[str, NO_RECIPE, _POLITENESS] = Field(
        "", description="Web page or mail address, sent in User-Agent, for the owners of the hosts."
    )
    referer: Annotated[Literal["none", "site"], NO_RECIPE, _POLITENESS] = Field(
        "none",
        description="Referer to send: none, as no page led here, or the site of the image itself, which some hosts ask "
        "for.",
    )
    respect_optout: Annotated[bool, _POLITENESS] = Field(
        True,
        description="Respect refusals in robots.txt, X-Robots-Tag, TDM-Reservation, C2PA and IPTC metadata.",
    )

    limit: Annotated[int | None, NO_RECIPE, _LIMITS] = Field(
        None, ge=1, description="Number of images wanted in the collection; null: as many as possible."
    )
    min_success_rate: Annotated[float, NO_RECIPE, _LIMITS] = Field(
        0.1, ge=0, le=1, description="Minimum share of the images that must arrive; below it, the stage fails."
    )
    max_bytes: Annotated[int, _LIMITS] = Field(
        32 * 2**20, ge=1, description="Maximum size of a response in bytes, as sent and decompressed."
    )
    max_pixels: Annotated[int, _LIMITS] = Field(
        MAX_PIXELS, ge=1, le=2 * MAX_PIXELS, description="Maximum pixels of an image, checked before it is decoded."
    )
    verify_hash: Annotated[bool, _LIMITS] = Field(
        True, description="Reject images whose md5 or sha256 differs from the one in the index."
    )
    allow_private_addresses: Annotated[bool, _LIMITS] = Field(
        False, description="Also request addresses of this machine and of private networks."
    )

    min_side: Annotated[int, _IMAGES] = Field(256, ge=1, description="Minimum length of the shorter side in pixels.")
    max_aspect: Annotated[float | None, _IMAGES] = Field(
        3.0, ge=1, description="Maximum ratio of the longer side to the shorter; null: no limit."
    )
    max_placeholder_copies: Annotated[int | None, _IMAGES] = Field(
        5,
        ge=2,
        description="Number of URLs of one host with the same image from which on it counts as a placeholder; "
        "null: never.",
    )
    accept_missing_end: Annotated[bool, _IMAGES] = Field(
        False, description="Take a JPEG or PNG that lacks nothing but the mark of its end; the summary counts them."
    )
    hash_pixels: Annotated[bool, _IMAGES] = Field(
        False,
        description="Also find equal images in different files, by a hash of all pixels; each image is then decoded "
        "in full.",
    )
    animated: Annotated[Literal["reject", "first"], _IMAGES] = Field(
        "reject", description="What to do with animations: reject them, or take the first frame."
    )
    shrink_to: Annotated[int | None, _IMAGES] = Field(
        1024, ge=1, description="Length of the shorter side, in pixels, to which larger images are shrunk; null: never."
    )
    encode_format: Annotated[Literal["jpeg", "webp", "png"], _IMAGES] = Field(
        "jpeg", description="File format of images that can't be stored as they arrived."
    )
    encode_quality: Annotated[int, _IMAGES] = Field(95, ge=1, le=100, description="Quality of encoded JPEG and WebP.")
    keep_exif: Annotated[bool, NO_RECIPE, _IMAGES] = Field(
        False,
        description="Keep GPS positions and serial numbers of cameras in the metadata of images stored from now on.",
    )
    background_color: Annotated[str, _IMAGES] = Field(
        "white", description="Color under transparent pixels: a name, or #rrggbb."
    )

    @field_validator("background_color")
    @classmethod
    def _check_color(cls, value: str) -> str:
        from PIL import ImageColor

        ImageColor.getrgb(value)
        return value
