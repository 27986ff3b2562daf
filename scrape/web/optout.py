"""What a host's headers, and an image itself, say about its use: X-Robots-Tag, TDM-Reservation, C2PA, IPTC.

X-Robots-Tag (Google's "robots meta tag specifications"; noai and noimageai are DeviantArt's additions): any number of
headers, each a list of directives, of which those after "name:" are for that robot alone. TDM-Reservation: W3C's
TDMRep, 1 where rights are reserved.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from multidict import CIMultiDictProxy

from dreamloom.scrape.web.http_dates import moment

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

    `unavailable_after` with a date that is over is noindex from then on.

    Commas part directives, and also the parts of a date; what they leave of one is no directive, and does no harm.
    """
    found: set[str] = set()
    scope = "*"
    items = [item.strip() for item in header.split(",")]
    for place, item in enumerate(items):
        directive = item
        while (scoped := _SCOPED.fullmatch(directive)) and scoped[1].lower() not in _VALUED:
            scope, directive = scoped[1].lower(), scoped[2].strip()
        if scope in ("*", robot.lower()):
            name, _, value = directive.partition(":")
            found.add(name.strip().lower())
            if name.strip().lower() == "unavailable_after" and _is_over(value, *items[place + 1 : place + 2]):
                found.add("noindex")
    return found - {""}


def _is_over(date: str, *rest: str) -> bool:
    """Whether a date, which may go on after a comma, is of the past; false for what is no date."""
    until = moment(date) or moment(", ".join((date, *rest)))
    return until is not None and until < datetime.now(UTC)


_IPTC = re.compile(rb"DMI-PROHIBITED[A-Z-]*")
_C2PA = b".training-mining"
_C2PA_SAYS = re.compile(
    rb"c(?:2pa|awg)\.(?:ai_generative_training|ai_training|data_mining).{0,24}?(?:notAllowed|constrained)", re.DOTALL
)
_C2PA_BYTES = 2048
"""How far behind the name of its assertion an entry is looked for."""


def refusal_inside(body: bytes) -> str | None:
    """What an image's own metadata say against training on it; None where they do not.

    IPTC's plus:DataMining (Photo Metadata Standard 2023.1), and the training and data mining assertion of C2PA 1.3 and
    CAWG. Their signatures are not checked: a wish need not be signed to be heeded.
    """
    if b"DMI-PROHIBITED" in body and (found := _IPTC.search(body)):
        return f"iptc: {found[0].decode('ascii')}"
    entries = _C2PA_SAYS.finditer(body) if _C2PA in body else ()
    if any(body.rfind(_C2PA, max(0, entry.start() - _C2PA_BYTES), entry.start()) >= 0 for entry in entries):
        return "c2pa: no training"
    return None


def _printable(lines: Iterable[str]) -> list[str]:
    return ["".join(c if c.isprintable() else " " for c in line).strip() for line in lines]
