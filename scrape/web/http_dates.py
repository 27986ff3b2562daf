"""Dates in HTTP headers."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_MAX_LENGTH = 100
"""Characters of the longest text that is read as a date; the forms of RFC 850 have some 40."""


def parse_http_date(text: str) -> datetime | None:
    """Parses a date of RFC 9110, RFC 822, RFC 850 or ISO 8601, as UTC; None where it is not a valid date."""
    if len(text) > _MAX_LENGTH:
        return None
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # OverflowError: a year of twenty digits
        try:
            date = datetime.fromisoformat(text.strip())
        except (ValueError, OverflowError):
            return None
    try:
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except OverflowError:
        return None
