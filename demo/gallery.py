"""The exhibits of the demo's site: for each number a scene, a size, a file format, and perhaps a fault.

An exhibit is a function of its number alone, so a run can be repeated, and an image can be drawn from its address.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

import numpy as np

from dreamloom.demo.world import Scene, random_scene

_WORLD = 2024
"""Seed of the gallery."""


class Fault(StrEnum):
    """What is wrong with an address. Those from `MOVED` on still lead to the image."""

    GONE = "gone"
    """404."""
    GONE_FOR_GOOD = "gone_for_good"
    """410."""
    FORBIDDEN = "forbidden"
    """403, as sites answer that refuse hot links."""
    BUSY = "busy"
    """429 with Retry-After, each time."""
    BROKEN = "broken"
    """500."""
    PLACEHOLDER = "placeholder"
    """200 with the same "not found" image for every such address."""
    SOFT_404 = "soft_404"
    """200 with an HTML page."""
    SVG = "svg"
    PIXEL = "pixel"
    """A GIF of 1 × 1 pixels."""
    EMPTY = "empty"
    TRUNCATED = "truncated"
    """A complete response with the first two thirds of an image."""
    SHORT_BODY = "short_body"
    """A body shorter than its Content-Length."""
    RESET = "reset"
    """A connection that breaks in the middle."""
    HANG = "hang"
    """No response."""
    DRIP = "drip"
    """A few bytes per second, so that only a total deadline ends it."""
    ENDLESS = "endless"
    """A body without end."""
    PIXEL_BOMB = "pixel_bomb"
    """A small PNG of 400 million pixels."""
    GZIP_BOMB = "gzip_bomb"
    """A small body with Content-Encoding: gzip that inflates to 256 MiB."""
    OPTED_OUT = "opted_out"
    """An image with one of the headers by which its owner opts out."""
    ROBOTS = "robots"
    """An image under a path that robots.txt disallows."""
    LOOP = "loop"
    """A redirect to itself."""
    TO_PRIVATE = "to_private"
    """A redirect to another service on the client's machine."""
    TO_FILE = "to_file"
    """A redirect to file:///etc/passwd."""
    MOVED = "moved"
    """A redirect to the image."""
    SLOW = "slow"
    """The image after half a second."""
    BUSY_ONCE = "busy_once"
    """429 with Retry-After: 0 for the first request, the image for the next."""
    GZIPPED = "gzipped"
    """The image with Content-Encoding: gzip, which is valid and rare."""
    WRONG_TYPE = "wrong_type"
    """The image as text/plain."""
    HARMLESS_HEADER = "harmless_header"
    """The image with a header that forbids nothing."""


RATES: dict[Fault, int] = {
    Fault.GONE: 75,
    Fault.GONE_FOR_GOOD: 6,
    Fault.FORBIDDEN: 40,
    Fault.BUSY: 14,
    Fault.BROKEN: 10,
    Fault.PLACEHOLDER: 14,
    Fault.SOFT_404: 12,
    Fault.SVG: 2,
    Fault.PIXEL: 4,
    Fault.EMPTY: 3,
    Fault.TRUNCATED: 10,
    Fault.SHORT_BODY: 6,
    Fault.RESET: 6,
    Fault.HANG: 8,
    Fault.DRIP: 6,
    Fault.ENDLESS: 2,
    Fault.PIXEL_BOMB: 2,
    Fault.GZIP_BOMB: 2,
    Fault.OPTED_OUT: 13,
    Fault.ROBOTS: 6,
    Fault.LOOP: 4,
    Fault.TO_PRIVATE: 3,
    Fault.TO_FILE: 2,
    Fault.MOVED: 25,
    Fault.SLOW: 10,
    Fault.BUSY_ONCE: 8,
    Fault.GZIPPED: 8,
    Fault.WRONG_TYPE: 10,
    Fault.HARMLESS_HEADER: 8,
}
"""Addresses with each fault, of 1,000. The first 250 fail.

That is between img2dataset's published statistics of CC12M (2024: 29 % failed, 404 8.8 %, 403 3.9 %, 429 2.5 %,
time-outs 1.6 %, opt-out 1.3 %, undecodable 1.6 %) and of DataComp small (2024: 22.6 %).
"""


class Form(StrEnum):
    """The kind of an image file."""

    JPEG = "jpeg"
    TURNED_JPEG = "turned_jpeg"
    """Stored on its side or upside down, with the EXIF orientation that turns it upright."""
    CMYK_JPEG = "cmyk_jpeg"
    PNG = "png"
    DEEP_PNG = "deep_png"
    """16 bits per channel."""
    PALETTE_PNG = "palette_png"
    ALPHA_PNG = "alpha_png"
    """White is transparent, with black beneath."""
    WEBP = "webp"
    GIF = "gif"

    @property
    def extension(self) -> str:
        """The extension in an address: "jpg", "png", "webp" or "gif"."""
        kind = self.value.rsplit("_", 1)[-1]
        return "jpg" if kind == "jpeg" else kind


_FORMS: dict[Form, float] = {
    Form.JPEG: 0.70,
    Form.TURNED_JPEG: 0.04,
    Form.CMYK_JPEG: 0.01,
    Form.PNG: 0.08,
    Form.DEEP_PNG: 0.01,
    Form.PALETTE_PNG: 0.03,
    Form.ALPHA_PNG: 0.03,
    Form.WEBP: 0.08,
    Form.GIF: 0.02,
}

_SIDES = (96, 128, 160, 192, 224, 256, 320, 480, 640)
_SIDE_WEIGHTS = (0.1, 0.16, 0.16, 0.16, 0.12, 0.14, 0.08, 0.05, 0.03)
_ASPECTS = (1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3)
_ASPECT_WEIGHTS = (0.7, 0.12, 0.08, 0.06, 0.04)


@dataclass(frozen=True)
class Exhibit:
    """An image of the site, by its number."""

    number: int
    scene: Scene
    width: int
    """Pixels of the upright image, as is `height`."""
    height: int
    form: Form
    fault: Fault | None
    repeats: int | None
    """The number of the exhibit that shows the same scene in another size, as copies on the web do."""

    @property
    def path(self) -> str:
        """The exhibit's path on the site."""
        folder = "members" if self.fault is Fault.ROBOTS else "pictures"
        return f"/{folder}/{self.number:06d}.{self.form.extension}"


@lru_cache(maxsize=4096)
def exhibit(number: int) -> Exhibit:
    """Returns the exhibit of a number (0 or more), which is the same on every machine and in every run."""
    rng = np.random.default_rng([_WORLD, number])
    scene = random_scene(np.random.default_rng([_WORLD, number, 1]))
    side = int(rng.choice(_SIDES, p=_SIDE_WEIGHTS))
    aspect = float(rng.choice(_ASPECTS, p=_ASPECT_WEIGHTS))
    form = Form(rng.choice(list(_FORMS), p=list(_FORMS.values())))
    width, height = (round(side * aspect), side) if aspect >= 1 else (side, round(side / aspect))
    plain = Exhibit(number, scene, width, height, form, _fault(rng.random() * 1000), None)
    if number and rng.random() < 0.03:
        return replace(plain, scene=exhibit(number - 1).scene, repeats=number - 1)
    return plain


def _fault(draw: float) -> Fault | None:
    """The fault for a draw from 0 to 1,000."""
    for fault, rate in RATES.items():
        draw -= rate
        if draw < 0:
            return fault
    return None
