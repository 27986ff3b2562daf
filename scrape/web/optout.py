"""Reads refusals of use in HTTP headers and in images: X-Robots-Tag, TDM-Reservation, C2PA, IPTC.

X-Robots-Tag (Google's "robots meta tag specifications"; noai and noimageai are DeviantArt's additions): any number of
headers, each a list of directives; those after "name:" are for that robot only. TDM-Reservation: W3C's TDMRep, 1 where
rights are reserved.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from multidict import CIMultiDictProxy

from dreamloom.scrape.web.http_dates import parse_http_date

ROBOT = "dreamloom"
"""The name by which robots.txt and X-Robots-Tag address this program."""

REFUSALS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"""Directives that refuse use; "none" is noindex and nofollow together."""

_VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Directives with a value after a colon, which are not names of robots."""
_SCOPED = re.compile(r"([a-z*][\w.*/-]*)\s*:\s*(.*)", re.IGNORECASE | re.DOTALL)
NO_STATEMENT = "nothing said"
"""Consent in the records for a host whose headers say nothing."""


@dataclass(frozen=True)
class Consent:
    """What a host said about use."""

    statement: str
    """Its headers, or NO_STATEMENT; for the records."""
    refused: bool


def read_consent(headers: CIMultiDictProxy[str]) -> Consent:
    """Reads the headers of a response."""
    robots, tdm = headers.getall("X-Robots-Tag", []), headers.getall("TDM-Reservation", [])
    lines = [f"x-robots-tag: {value.strip()}" for value in robots] + [
        f"tdm-reservation: {value.strip()}" for value in tdm
    ]
    refused = any(REFUSALS & directives_for(ROBOT, value) for value in robots)
    refused = refused or any(value.strip() == "1" for value in tdm)
    return Consent("; ".join(_printable(lines))[:300] or NO_STATEMENT, refused)


def directives_for(robot: str, header: str) -> set[str]:
    """Returns the directives for a robot in one X-Robots-Tag header, in lower case and without values.

    `unavailable_after` with a past date adds noindex. Commas separate directives but also occur in dates; the remainder
    of a date is no known directive and has no effect.
    """
    directives: set[str] = set()
    scope = "*"
    items = [item.strip() for item in header.split(",")]
    for place, item in enumerate(items):
        directive = item
        while (scoped := _SCOPED.fullmatch(directive)) and scoped[1].lower() not in _VALUED:
            scope, directive = scoped[1].lower(), scoped[2].strip()
        if scope in ("*", robot.lower()):
            name, _, value = directive.partition(":")
            directives.add(name.strip().lower())
            if name.strip().lower() == "unavailable_after" and _is_past(value, *items[place + 1 : place + 2]):
                directives.add("noindex")
    return directives - {""}


def _is_past(date: str, *rest: str) -> bool:
    """Whether a date, which may continue after a comma, has passed; false for text that is not a date."""
    until = parse_http_date(date) or parse_http_date(", ".join((date, *rest)))
    return until is not None and until < datetime.now(UTC)


_IPTC = re.compile(rb"DMI-PROHIBITED[A-Z-]*")
_C2PA = b".training-mining"
_C2PA_ENTRY = re.compile(
    rb"c(?:2pa|awg)\.(?:ai_generative_training|ai_training|data_mining).{0,24}?(?:notAllowed|constrained)", re.DOTALL
)
_C2PA_BYTES = 2048
"""Maximum distance of an entry from the name of its assertion."""


def find_refusal(body: bytes) -> str | None:
    """Finds a refusal of training in an image's own metadata.

    IPTC's plus:DataMining (Photo Metadata Standard 2023.1), and the training and data mining assertion of C2PA 1.3 and
    CAWG. Signatures are not checked: a refusal need not be signed to be respected.

    Returns:
        The refusal, for the records; None where there is none.
    """
    if b"DMI-PROHIBITED" in body and (match := _IPTC.search(body)):
        return f"iptc: {match[0].decode('ascii')}"
    entries = _C2PA_ENTRY.finditer(body) if _C2PA in body else ()
    if any(body.rfind(_C2PA, max(0, entry.start() - _C2PA_BYTES), entry.start()) >= 0 for entry in entries):
        return "c2pa: no training"
    return None


def _printable(lines: Iterable[str]) -> list[str]:
    return ["".join(c if c.isprintable() else " " for c in line).strip() for line in lines]
