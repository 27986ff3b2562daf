"""A circuit breaker per host: a host that stops responding is paused, and in the end given up.

The states are those of M. Nygard, Release It!: closed (all requests pass), open (none passes), half open (one passes,
as a probe).
"""

import random
from dataclasses import dataclass

MAX_OPENINGS = 3
"""Consecutive openings after which a host is given up."""
FIRST_PAUSE_S = 2.0
"""Seconds of the first pause; each further pause is twice as long."""


@dataclass
class _Health:
    failures: int = 0
    openings: int = 0
    last_response: float = float("-inf")


class CircuitBreaker:
    """The health of each host. Times are in seconds of one clock."""

    def __init__(self, max_host_failures: int | None) -> None:
        """Creates closed breakers for all hosts.

        Args:
            max_host_failures: consecutive failures that open a host's breaker; None: it never opens.
        """
        self._max_failures = max_host_failures
        self._hosts: dict[str, _Health] = {}

    def record_response(self, host: str, now: float) -> None:
        """Records that a host responded, even if only with an error of its own."""
        health = self._hosts.setdefault(host, _Health())
        health.failures = health.openings = 0
        health.last_response = now

    def record_failure(self, host: str, began: float) -> float | None:
        """Records that a request, begun at `began`, got no response, or one that says the host is broken.

        Requests from before the host's last response do not count: where a host answers all URLs but some, those that
        hang end one after the other.

        Returns:
            Seconds for which to pause the host before one more request, 0 for no pause; None to give the host up.
        """
        health = self._hosts.setdefault(host, _Health())
        if self._max_failures is None or began < health.last_response:
            return 0.0
        health.failures += 1
        if health.failures < self._max_failures and not health.openings:
            return 0.0
        health.failures = 0
        health.openings += 1
        if health.openings > MAX_OPENINGS:
            return None
        return FIRST_PAUSE_S * 2.0 ** (health.openings - 1) * random.uniform(0.75, 1.25)
