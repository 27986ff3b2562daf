"""The schemas of a collection's tables, and the fixed words in their columns."""

import hashlib
from enum import StrEnum
from typing import Any

import pyarrow as pa

Row = dict[str, Any]
"""A row of a table: column → value."""


class Status(StrEnum):
    """What became of a candidate. Only `ok` has an image. The names are stable: `--retry` and counts rely on them."""

    OK = "ok"
    # the address
    BAD_URL = "bad_url"
    BAD_SCHEME = "bad_scheme"
    PRIVATE_ADDRESS = "private_address"
    # the network
    DNS_UNKNOWN = "dns_unknown"
    DNS_TEMPORARY = "dns_temporary"
    CONNECTION = "connection"
    HOST_DOWN = "host_down"
    TLS = "tls"
    TIMEOUT = "timeout"
    TOO_MANY_REDIRECTS = "too_many_redirects"
    SHORT_BODY = "short_body"
    TOO_LARGE = "too_large"
    # the response
    HTTP_403 = "http_403"
    HTTP_404 = "http_404"
    HTTP_410 = "http_410"
    HTTP_429 = "http_429"
    HTTP_4XX = "http_4xx"
    HTTP_5XX = "http_5xx"
    OPTED_OUT = "opted_out"
    # the file
    MISSING_FILE = "missing_file"
    EMPTY = "empty"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED = "unsupported"
    TRUNCATED = "truncated"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"
    BAD_ASPECT = "bad_aspect"
    ANIMATED = "animated"
    PLACEHOLDER = "placeholder"
    HASH_MISMATCH = "hash_mismatch"
    DUPLICATE = "duplicate"
    # a fault of dreamloom's, which the log tells
    INTERNAL_ERROR = "internal_error"
    # enough images were stored already
    NOT_NEEDED = "not_needed"


class Choice(StrEnum):
    """Whether an image goes on into the dataset, or the first rule that rejected it."""

    KEPT = "kept"
    DECIDED = "decided"
    """A decision dropped it (dreamloom.scrape.collection.decisions)."""
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    LOW_AESTHETIC = "low_aesthetic"
    LOW_SIMILARITY = "low_similarity"
    LICENCE = "licence"
    SURPLUS = "surplus"


class CaptionKind(StrEnum):
    """The origin of a caption."""

    HUMAN = "human"
    """Written by a person for this image: COCO, a sidecar, a file name."""
    ALT = "alt"
    """The alt text of the image on a web page: LAION."""
    TEMPLATE = "template"
    """The same text for all images of a kind: FFHQ, ImageNet."""
    MODEL = "model"
    """Written by a captioning model."""
    NONE = "none"
    """No caption yet."""


class Table(StrEnum):
    """The tables of a collection, in the order in which the stages fill them."""

    CANDIDATES = "candidates"
    RECORDS = "records"
    SCORES = "scores"
    CHOICES = "choices"
    CAPTIONS = "captions"


MADE_BY = {
    Table.CANDIDATES: "filter",
    Table.RECORDS: "scrape or ingest",
    Table.SCORES: "score",
    Table.CHOICES: "choose",
    Table.CAPTIONS: "caption",
}
"""Table → the stage that makes it, for error messages."""

_KEY = pa.field("key", pa.string(), nullable=False)
_CANDIDATE = pa.struct(
    [
        ("caption", pa.string()),
        ("kind", pa.string()),  # CaptionKind
        ("score", pa.float32()),
        ("similarity", pa.float32()),
    ]
)

SCHEMAS: dict[Table, pa.Schema] = {
    Table.CANDIDATES: pa.schema(
        [
            _KEY,
            pa.field("url", pa.string()),
            pa.field("text", pa.string()),  # alt text or caption, as the index has it
            pa.field("width", pa.int32()),  # pixels, as the index claims; swapped in some LAION sets
            pa.field("height", pa.int32()),
            pa.field("similarity", pa.float32()),  # CLIP cosine of image and text, by the index
            pa.field("aesthetic", pa.float32()),  # by the index; V1 and V2 scales are not comparable
            pa.field("punsafe", pa.float32()),  # probability of being unsafe; null is not safe
            pa.field("pwatermark", pa.float32()),  # probability of a watermark
            pa.field("language", pa.string()),
            pa.field("licence", pa.string()),
            pa.field("md5", pa.string()),  # of the bytes that the index saw, where it has one
            pa.field("sha256", pa.string()),
            pa.field("text_kind", pa.string()),  # CaptionKind; null: alt, as an index of the web has it
            pa.field("licence_url", pa.string()),
            pa.field("labels", pa.list_(pa.string())),  # what it shows, as the dataset says: COCO's categories
        ]
    ),
    Table.RECORDS: pa.schema(
        [
            _KEY,
            pa.field("status", pa.string(), nullable=False),  # Status
            pa.field("detail", pa.string()),  # a line about a status that is not ok, or about what was mended
            pa.field("url", pa.string()),  # where it was downloaded, or can be viewed
            pa.field("path", pa.string()),  # the file that it was read from, if any
            pa.field("image", pa.string()),  # images/<part>/<key>.<ext>, relative to the collection; null unless ok
            pa.field("width", pa.int32()),  # pixels of the stored image, upright
            pa.field("height", pa.int32()),
            pa.field("original_width", pa.int32()),
            pa.field("original_height", pa.int32()),
            pa.field("bytes", pa.int64()),  # of the stored image
            pa.field("sha256", pa.string()),  # of the original bytes; finds equal images
            pa.field("pixels_sha256", pa.string()),  # of the decoded pixels, with scrape's hash_pixels
            pa.field("text", pa.string()),  # the caption of the source
            pa.field("text_kind", pa.string(), nullable=False),  # CaptionKind
            pa.field("licence", pa.string()),
            pa.field("licence_url", pa.string()),
            pa.field("author", pa.string()),
            pa.field("consent", pa.string()),  # what X-Robots-Tag, robots.txt, TDM-Reservation or the image said
            pa.field("labels", pa.list_(pa.string())),  # what it shows, as the dataset says; null: it does not
            pa.field("image_sha256", pa.string()),  # of the stored image; null in records of older releases
        ]
    ),
    Table.SCORES: pa.schema(
        [
            _KEY,
            pa.field("embedding", pa.list_(pa.float16())),  # of the image, L2-normalised
            pa.field("aesthetic", pa.float32()),  # null without an aesthetic head
            pa.field("similarity", pa.float32()),  # CLIP cosine of the image and its text; null without text
            pa.field("phash", pa.int64()),  # 64-bit perceptual hash, as a signed integer
            pa.field("recipe", pa.string()),  # of this row (dreamloom.curate.known_scores); null: of an older release
        ]
    ),
    Table.CHOICES: pa.schema(
        [
            _KEY,
            pa.field("choice", pa.string(), nullable=False),  # Choice
            pa.field("detail", pa.string()),  # "aesthetic 4.9 < 5.5", or the key of the image that it repeats
        ]
    ),
    Table.CAPTIONS: pa.schema(
        [
            _KEY,
            pa.field("caption", pa.string(), nullable=False),  # may be empty
            pa.field("unedited", pa.string()),  # the caption before edits
            pa.field("kind", pa.string(), nullable=False),  # CaptionKind
            pa.field("model", pa.string()),  # the model that wrote it, if any
            pa.field("score", pa.float32()),  # the model's mean log-probability per token, if it has one
            pa.field("similarity", pa.float32()),  # CLIP cosine of the image and `unedited`, if CLIP was used
            pa.field("margin", pa.float32()),  # similarity minus that of the next candidate
            pa.field("clip", pa.string()),  # the CLIP model used
            pa.field("doubtful", pa.bool_()),  # whether the similarity is below the threshold; null: no threshold
            pa.field("candidates", pa.list_(_CANDIDATE)),  # all generated ones, in order; null: a kept text
            pa.field("recipe", pa.string()),  # recipe of this image's candidates
        ]
    ),
}
"""Each table has one row per key that the upstream table passed on: scores, one per record whose status is ok; choices,
one per score or record; captions, one per kept choice. Keys are unique and in the upstream order."""


def key_of(*identity: str) -> str:
    """Returns the stable name of an image: a hash of its origin, never of its bytes or its position in a list.

    Args:
        identity: what identifies the origin: ("url", url), ("coco", "000000000009") or ("folder", relative path).

    Returns:
        32 hex digits, the same on every machine and in every run.
    """
    return hashlib.blake2b("\0".join(identity).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
