"""A circuit breaker for each host: one that does not answer any more is left alone, and at last given up.

The states are those of M. Nygard, Release It!: closed (all is well), open (nobody asks), half open (one asks, to see).
"""

import random
from dataclasses import dataclass

OPENINGS = 3
"""Openings in a row after which a host is given up."""
REST_S = 2.0
"""The first rest, in seconds; each further one is twice as long."""


@dataclass
class _Trouble:
    failures: int = 0
    openings: int = 0
    answered: float = float("-inf")


class Breaker:
    """What is known of each host's health. Times are those of one clock, in seconds."""

    def __init__(self, failures: int | None) -> None:
        """Args:
        failures: of a host in a row, that open its breaker; None: none ever does.
        """
        self._most = failures
        self._hosts: dict[str, _Trouble] = {}

    def answered(self, host: str, now: float) -> None:
        """A host gave an answer of its own, if only that there is no such page."""
        trouble = self._hosts.setdefault(host, _Trouble())
        trouble.failures = trouble.openings = 0
        trouble.answered = now

    def failed(self, host: str, began: float) -> float | None:
        """A request that began then got no answer, or one that says the host is broken.

        Requests from before the host's last answer say nothing: of a host that answers all but one address, the ones
        that hang end one after the other.

        Returns:
            For how many seconds to leave the host alone before one more request, 0 for not at all; None to give it up.
        """
        trouble = self._hosts.setdefault(host, _Trouble())
        if self._most is None or began < trouble.answered:
            return 0.0
        trouble.failures += 1
        if trouble.failures < self._most and not trouble.openings:
            return 0.0
        trouble.failures = 0
        trouble.openings += 1
        if trouble.openings > OPENINGS:
            return None
        return REST_S * 2.0 ** (trouble.openings - 1) * random.uniform(0.75, 1.25)
