"""What a host's headers, and a picture itself, say about its use: X-Robots-Tag, TDM-Reservation, C2PA, IPTC.

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
SILENT = "nothing said"
"""What the records have of a host whose headers say nothing."""


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
    return Consent("; ".join(_printable(lines))[:300] or SILENT, refused)


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


_IPTC = re.compile(rb"DMI-PROHIBITED[A-Z-]*")
_C2PA = re.compile(
    rb"c(?:2pa|awg)\.training-mining.{0,2048}?"
    rb"c(?:2pa|awg)\.(?:ai_generative_training|ai_training|data_mining).{0,24}?(?:notAllowed|constrained)",
    re.DOTALL,
)


def refusal_inside(body: bytes) -> str | None:
    """What a picture's own metadata say against training on it; None where they do not.

    IPTC's plus:DataMining (Photo Metadata Standard 2023.1), and the training and data mining assertion of C2PA 1.3 and
    CAWG. Their signatures are not checked: a wish need not be signed to be heeded.
    """
    if b"DMI-PROHIBITED" in body and (found := _IPTC.search(body)):
        return f"iptc: {found[0].decode('ascii')}"
    if b".training-mining" in body and _C2PA.search(body):
        return "c2pa: no training"
    return None


def _printable(lines: Iterable[str]) -> list[str]:
    return ["".join(c if c.isprintable() else " " for c in line).strip() for line in lines]
