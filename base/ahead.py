"""Work done in threads, a few items ahead of whoever uses it."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(work: Callable[[Item], Made], items: Iterable[Item], workers: int, window: int) -> Generator[Made]:
    """`work` of each item, in order; at most `window` results wait to be taken, so memory stays bounded."""
    source = iter(items)
    with ThreadPoolExecutor(workers) as threads:
        waiting: deque[Future[Made]] = deque(threads.submit(work, item) for item in islice(source, window))
        try:
            while waiting:
                made = waiting.popleft().result()
                waiting.extend(threads.submit(work, item) for item in islice(source, 1))
                yield made
        finally:
            for future in waiting:
                future.cancel()
