"""What became of a candidate: its row in the records, and the exception that ends it without an image."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from dreamloom.scrape.collection import CaptionKind, Row, Status
from dreamloom.scrape.collection.records import IMAGE_COLUMNS

_log = logging.getLogger(__name__)


class RowDropped(Exception):
    """Ends a candidate without an image, anywhere between its URL and a stored file.

    The detail is the same in every run: it holds no times and no addresses of this machine.
    """

    def __init__(
        self, status: Status, detail: str = "", *, consent: str | None = None, wait_s: float | None = None
    ) -> None:
        """Describes why the candidate has no image.

        Args:
            status: the status of its row.
            detail: one line about the status.
            consent: what the host's headers said about use, if it responded.
            wait_s: seconds after which the host asks for a retry, if it does.
        """
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.consent = consent
        self.wait_s = wait_s


_logged_errors: set[tuple[type[Exception], str]] = set()


@contextmanager
def unforeseen_errors_cost_one_row(url: object) -> Iterator[None]:
    """Turns any error of the block into RowDropped: what a stranger sends may end its own row, and nothing else.

    The block reads what strangers wrote, and writes nothing of ours. The first error of each kind is logged with its
    traceback.

    Args:
        url: what was read, for the log.

    Raises:
        RowDropped: as the block does; internal_error for any other exception.
    """
    try:
        yield
    except RowDropped:
        raise
    except Exception as error:
        place = str(traceback.extract_tb(error.__traceback__)[-1])
        if (type(error), place) in _logged_errors:
            _log.debug("the same error again at %s: %s", url, type(error).__name__)
        else:
            _logged_errors.add((type(error), place))
            _log.exception("an unforeseen error at %s; please report it", url)
        raise RowDropped(Status.INTERNAL_ERROR, type(error).__name__) from error


def make_row(candidate: Row, image: Row, dropped: RowDropped | None = None) -> Row:
    """Makes a candidate's row of the records.

    Args:
        candidate: its row of the candidates.
        image: the known columns of IMAGE_COLUMNS.
        dropped: why it has no image; None: its status is ok.
    """
    row: Row = {
        "key": candidate["key"],
        "status": str(Status.OK),
        "url": candidate["url"],
        "text": candidate["text"],
        "text_kind": str(_text_kind(candidate)),
        "licence": candidate["licence"],
        "licence_url": candidate.get("licence_url"),
        "labels": candidate.get("labels"),
        **dict.fromkeys(IMAGE_COLUMNS),
        **image,
    }
    if dropped is not None:
        detail = "".join(c if c.isprintable() else "?" for c in dropped.detail) or None  # headers may hold any bytes
        row |= {"status": str(dropped.status), "detail": detail, "consent": dropped.consent or row["consent"]}
    return row


def _text_kind(candidate: Row) -> str:
    if not (candidate["text"] or "").strip():
        return CaptionKind.NONE
    return candidate.get("text_kind") or CaptionKind.ALT
