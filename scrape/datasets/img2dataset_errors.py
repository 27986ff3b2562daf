"""Translates img2dataset's error messages into statuses.

https://github.com/rom1504/img2dataset; version 1.47 passes on the messages of urllib and OpenCV.
"""

import re
from collections.abc import Mapping
from typing import Any

from dreamloom.base.text import brief
from dreamloom.scrape.collection import Status


def why_no_image(row: Mapping[str, Any], otherwise: str) -> tuple[Status, str]:
    """Returns status and detail of a row of its tables that has no image.

    Args:
        row: with its columns `status` and `error_message`.
        otherwise: the detail where they name no failure.
    """
    if row.get("status") in (None, "success"):
        return Status.MISSING_FILE, otherwise
    message = str(row.get("error_message") or row["status"])
    return status_from_message(message, resized=row["status"] == "failed_to_resize"), brief(message)


def status_from_message(error_message: str, resized: bool = False) -> Status:
    """Returns the status for img2dataset's message about a row that failed.

    Args:
        error_message: what its table says.
        resized: whether the image failed when it was decoded and resized, not when it was downloaded.
    """
    for pattern, status in _BY_PATTERN.items():
        if re.search(pattern, error_message):
            return status
    if code := re.match(r"HTTP Error (\d)(\d\d)", error_message):
        return _BY_HTTP_CODE.get(code[1] + code[2]) or _BY_HTTP_CODE.get(code[1], Status.CONNECTION)
    return Status.NOT_AN_IMAGE if resized else Status.CONNECTION


_BY_HTTP_CODE = {
    "403": Status.HTTP_403,
    "404": Status.HTTP_404,
    "410": Status.HTTP_410,
    "429": Status.HTTP_429,
    "3": Status.TOO_MANY_REDIRECTS,
    "4": Status.HTTP_4XX,
    "5": Status.HTTP_5XX,
}

_BY_PATTERN = {  # messages with a URL in them first, since it may contain any words of the others
    r"urlopen error unknown url type|Redirection to url .* is not allowed": Status.BAD_SCHEME,
    "unknown url type|no host given|nonnumeric port|control characters|codec can't encode|Invalid IPv6|"
    "label (empty|too long)": Status.BAD_URL,
    "disallowed by X-Robots-Tag": Status.OPTED_OUT,
    "hash mismatch": Status.HASH_MISMATCH,
    "image too small": Status.TOO_SMALL,
    "aspect ratio too large": Status.BAD_ASPECT,
    "image area too large|CV_IO_MAX_IMAGE": Status.TOO_MANY_PIXELS,
    r"!buf\.empty\(\)": Status.EMPTY,
    r"Errno -3\b": Status.DNS_TEMPORARY,
    r"Errno -[25]\b": Status.DNS_UNKNOWN,
    "timed out": Status.TIMEOUT,
    r"\[SSL|certificate": Status.TLS,
    "IncompleteRead": Status.SHORT_BODY,
}
