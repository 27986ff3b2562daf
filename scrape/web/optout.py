"""Reads refusals of use in HTTP headers: X-Robots-Tag, TDM-Reservation and Content-Usage.

Those in images: dreamloom.base.images.metadata; those in robots.txt: dreamloom.scrape.web.robots_rules.

X-Robots-Tag (Google's "robots meta tag specifications"; noai and noimageai are DeviantArt's additions): any number of
headers, each a list of directives; those after "name:" are for that robot only. TDM-Reservation: W3C's TDMRep, 1 where
rights are reserved. Content-Usage: IETF's AIPREF.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from multidict import CIMultiDictProxy

from dreamloom.scrape.web.http_dates import parse_http_date
from dreamloom.scrape.web.robots_rules import training_preference

ROBOT = "dreamloom"
"""The name by which robots.txt and X-Robots-Tag address this program."""

REFUSALS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"""Directives that refuse use; "none" is noindex and nofollow together."""

_VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Directives with a value after a colon, which are not names of robots."""
_ROBOT_NAME = re.compile(r"[a-z*][\w.*/-]*", re.IGNORECASE)
_MAX_HEADERS = 16 * 1024
"""Characters of a response's opt-out headers that are read. A host with more to say has refused."""
NO_STATEMENT = "nothing said"
"""Consent in the records for a host whose headers say nothing."""
_STATEMENT_LENGTH = 300
"""Characters of a statement in the records."""


@dataclass(frozen=True)
class Consent:
    """What a host said about use."""

    statement: str
    """Its headers, or NO_STATEMENT; for the records."""
    refused: bool


def join_consent(*said: str | None) -> str:
    """Joins what redirects, robots.txt, headers and the image say, in one line; None: it says nothing."""
    statements = [each for each in said if each not in (None, NO_STATEMENT)]
    return "; ".join(map(str, statements)) or NO_STATEMENT


def read_consent(headers: CIMultiDictProxy[str]) -> Consent:
    """Reads the headers of a response."""
    robots, tdm = headers.getall("X-Robots-Tag", []), headers.getall("TDM-Reservation", [])
    lines = [f"x-robots-tag: {value.strip()}" for value in robots]
    lines += [f"tdm-reservation: {value.strip()}" for value in tdm]
    usage = headers.getall("Content-Usage", [])
    lines += [f"content-usage: {value.strip()}" for value in usage]
    statement = "; ".join(_printable(line[:_STATEMENT_LENGTH] for line in lines[:_STATEMENT_LENGTH]))
    if sum(map(len, lines)) > _MAX_HEADERS:
        return Consent(f"too long to be read: {statement}"[:_STATEMENT_LENGTH], True)
    refused = any(REFUSALS & directives_for(ROBOT, value) for value in robots)
    refused = refused or any(each.strip(' "') == "1" for value in tdm for each in value.split(","))
    refused = refused or training_preference(",".join(usage)) is False
    return Consent(statement[:_STATEMENT_LENGTH] or NO_STATEMENT, refused)


def directives_for(robot: str, header: str) -> set[str]:
    """Returns the directives for a robot in one X-Robots-Tag header, in lower case and without values.

    `unavailable_after` with a past date adds noindex. Commas separate directives but also occur in dates; the remainder
    of a date is no known directive and has no effect. Semicolons, blanks and quotes are read as what they mean.
    """
    directives: set[str] = set()
    scope = "*"
    items = [item.strip() for item in re.split("[,;]", header.replace('"', ""))]
    for place, item in enumerate(items):
        robots, name, value = _split_item(item)
        scope = robots[-1] if robots else scope
        if scope.partition("/")[0] in ("*", robot.lower()):
            directives.update(name.split())
            if name == "unavailable_after" and _is_past(value, *items[place + 1 : place + 2]):
                directives.add("noindex")
    return directives - {""}


def _split_item(item: str) -> tuple[list[str], str, str]:
    """Splits "robot: robot: directive: value" into the robots, the directive, both in lower case, and its value."""
    fields = [field.strip() for field in item.split(":")]
    num_robots = 0
    for field in fields[:-1]:
        if field.lower() in _VALUED or not _ROBOT_NAME.fullmatch(field):
            break
        num_robots += 1
    robots = [field.lower() for field in fields[:num_robots]]
    return robots, fields[num_robots].lower(), ":".join(fields[num_robots + 1 :])


def _is_past(date: str, *rest: str) -> bool:
    """Whether a date, which may continue after a comma, has passed; false for text that is not a date."""
    until = parse_http_date(date) or parse_http_date(", ".join((date, *rest)))
    return until is not None and until < datetime.now(UTC)


def _printable(lines: Iterable[str]) -> list[str]:
    return ["".join(c if c.isprintable() else " " for c in line).strip() for line in lines]
