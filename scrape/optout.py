"""What a host's headers say about the use of its pictures: X-Robots-Tag and TDM-Reservation.

X-Robots-Tag (Google's "robots meta tag specifications"; noai and noimageai are DeviantArt's additions): any number of
headers, each a list of directives, of which those after "name:" are for that robot alone. TDM-Reservation: W3C's
TDMRep, 1 where rights are reserved.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from multidict import CIMultiDictProxy

ROBOT = "dreamloom"
"""The name by which a host can speak to this program alone."""

REFUSALS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"""Directives by which an owner says no; "none" is noindex and nofollow in one."""

_VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Directives that have a value after a colon, and so are no robot's name."""
_SCOPED = re.compile(r"([a-z*][\w.*/-]*)\s*:\s*(.*)", re.IGNORECASE | re.DOTALL)
_SILENT = "nothing said"


@dataclass(frozen=True)
class Consent:
    """What a host said of use."""

    says: str
    """Its headers, or that it said nothing; for the records."""
    refused: bool


def read_consent(headers: CIMultiDictProxy[str]) -> Consent:
    """Reads the headers of one answer."""
    robots, tdm = headers.getall("X-Robots-Tag", []), headers.getall("TDM-Reservation", [])
    lines = [f"x-robots-tag: {value.strip()}" for value in robots] + [
        f"tdm-reservation: {value.strip()}" for value in tdm
    ]
    refused = any(REFUSALS & directives_for(ROBOT, value) for value in robots)
    refused = refused or any(value.strip() == "1" for value in tdm)
    return Consent("; ".join(_printable(lines))[:300] or _SILENT, refused)


def directives_for(robot: str, header: str) -> set[str]:
    """The directives of one X-Robots-Tag header that are for a robot, lower case, without their values.

    Commas part directives, and also the parts of the date after `unavailable_after`; what they leave of a date is no
    directive, and does no harm.
    """
    found: set[str] = set()
    scope = "*"
    for item in header.split(","):
        directive = item.strip()
        while (scoped := _SCOPED.fullmatch(directive)) and scoped[1].lower() not in _VALUED:
            scope, directive = scoped[1].lower(), scoped[2].strip()
        if scope in ("*", robot.lower()):
            found.add(directive.partition(":")[0].strip().lower())
    return found - {""}


def _printable(lines: Iterable[str]) -> list[str]:
    return ["".join(c if c.isprintable() else " " for c in line).strip() for line in lines]
