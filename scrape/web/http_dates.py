"""Dates in HTTP headers."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def parse_http_date(text: str) -> datetime | None:
    """Parses a date of RFC 9110, RFC 822, RFC 850 or ISO 8601, as UTC; None where it is not a valid date."""
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        try:
            date = datetime.fromisoformat(text.strip())
        except ValueError:
            return None
    try:
        return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
    except OverflowError:
        return None
