"""Why a candidate has no image: the one exception of everything between an address and a stored file."""

from dreamloom.scrape.collection import Status


class Dropped(Exception):
    """A candidate that ends here. The detail is the same in every run: no times, no addresses of this machine."""

    def __init__(
        self, status: Status, detail: str = "", *, consent: str | None = None, wait_s: float | None = None
    ) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.consent = consent
        """What the host's headers said of use, where it answered."""
        self.wait_s = wait_s
        """Seconds after which the host wants to be asked again, where it said so."""
