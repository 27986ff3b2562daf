"""What a collection's tables hold: their columns, and the words that stand in them."""

import hashlib
from enum import StrEnum

import pyarrow as pa


class Status(StrEnum):
    """What became of a candidate. `ok` alone has an image; the names are stable, for `--retry` and for counting."""

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
    # the host's answer
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
    # none of these: enough images had come
    NOT_NEEDED = "not_needed"


class Choice(StrEnum):
    """Whether an image goes on into the dataset, or the first rule that it did not pass."""

    KEPT = "kept"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    LOW_AESTHETIC = "low_aesthetic"
    LOW_SIMILARITY = "low_similarity"
    LICENCE = "licence"


class CaptionKind(StrEnum):
    """Where a caption comes from."""

    HUMAN = "human"
    """Somebody wrote it for this image: COCO, a sidecar, a file name."""
    ALT = "alt"
    """The alt text a web page gave the image: LAION."""
    TEMPLATE = "template"
    """One text for all images of a kind: FFHQ, ImageNet."""
    MODEL = "model"
    """A captioning model wrote it."""
    NONE = "none"
    """There is none yet."""


class Table(StrEnum):
    """The tables of a collection, in the order in which the chain fills them."""

    CANDIDATES = "candidates"
    RECORDS = "records"
    SCORES = "scores"
    CHOICES = "choices"
    CAPTIONS = "captions"


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
            pa.field("md5", pa.string()),  # of the bytes the index saw, where it says
            pa.field("sha256", pa.string()),
            pa.field("text_kind", pa.string()),  # CaptionKind; null: alt, as an index of the web has it
            pa.field("licence_url", pa.string()),
        ]
    ),
    Table.RECORDS: pa.schema(
        [
            _KEY,
            pa.field("status", pa.string(), nullable=False),  # Status
            pa.field("detail", pa.string()),  # a line about a status that is not ok
            pa.field("url", pa.string()),  # where it was fetched, or can be seen
            pa.field("path", pa.string()),  # the file it was read from, where there is one
            pa.field("image", pa.string()),  # images/<part>/<key>.<ext>, relative to the collection; null unless ok
            pa.field("width", pa.int32()),  # pixels of the stored image, upright
            pa.field("height", pa.int32()),
            pa.field("original_width", pa.int32()),
            pa.field("original_height", pa.int32()),
            pa.field("bytes", pa.int64()),  # of the stored image
            pa.field("sha256", pa.string()),  # of the bytes as they came: equal images are found by it
            pa.field("pixels_sha256", pa.string()),  # of the decoded pixels, where scrape was asked for it
            pa.field("text", pa.string()),  # the caption it came with
            pa.field("text_kind", pa.string(), nullable=False),  # CaptionKind
            pa.field("licence", pa.string()),
            pa.field("licence_url", pa.string()),
            pa.field("author", pa.string()),
            pa.field("consent", pa.string()),  # what X-Robots-Tag, robots.txt or TDM-Reservation said, where asked
        ]
    ),
    Table.SCORES: pa.schema(
        [
            _KEY,
            pa.field("embedding", pa.list_(pa.float16())),  # of the image, L2-normalised
            pa.field("aesthetic", pa.float32()),  # null where the config names no head
            pa.field("similarity", pa.float32()),  # CLIP cosine of image and its text; null where it has none
            pa.field("phash", pa.int64()),  # 64-bit perceptual hash, as a signed integer
        ]
    ),
    Table.CHOICES: pa.schema(
        [
            _KEY,
            pa.field("choice", pa.string(), nullable=False),  # Choice
            pa.field("detail", pa.string()),  # "aesthetic 4.9 < 5.5", or the key it repeats
        ]
    ),
    Table.CAPTIONS: pa.schema(
        [
            _KEY,
            pa.field("caption", pa.string(), nullable=False),  # may be empty
            pa.field("unedited", pa.string()),  # what it was before the edits
            pa.field("kind", pa.string(), nullable=False),  # CaptionKind
            pa.field("model", pa.string()),  # the model that wrote it, where one did
            pa.field("score", pa.float32()),  # the model's mean log-probability a token, where it gives one
            pa.field("similarity", pa.float32()),  # CLIP cosine of image and unedited, where CLIP was asked
            pa.field("margin", pa.float32()),  # by how much that is above the next candidate's
            pa.field("clip", pa.string()),  # the CLIP that was asked
            pa.field("doubtful", pa.bool_()),  # whether the similarity is under the floor; null: there is no floor
            pa.field("candidates", pa.list_(_CANDIDATE)),  # all that were found, in order; null: it is a kept text
            pa.field("recipe", pa.string()),  # recipe by which the candidates of this image were found
        ]
    ),
}
"""Every table has one row a key of its upstream table that went on: scores, one a record whose status is ok;
choices, one a score or record; captions, one a choice that was kept. Keys are unique and in the upstream order."""


def key_of(*identity: str) -> str:
    """The stable name of an image: a hash of where it comes from, never of its bytes or its place in a list.

    Args:
        identity: what makes the source unique: ("url", url), or ("coco", "000000000009"), or ("folder", relative path).

    Returns:
        32 hex digits, the same on every machine and in every run.
    """
    return hashlib.blake2b("\0".join(identity).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
