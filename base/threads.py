"""An ordered map over threads that work a bounded number of items ahead of whoever takes the results."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ordered(
    work: Callable[[Item], Result], items: Iterable[Item], num_threads: int, ahead: int
) -> Generator[Result]:
    """Applies `work` to each item in threads, and yields the results in the order of the items.

    Nothing begins before the first result is asked for. Closing the generator cancels what has not begun.

    Args:
        work: is called in one of the threads.
        items: are taken one by one, in the caller's thread.
        num_threads: how many items are worked on at once.
        ahead: how many items may be begun or done beyond the one whose result is taken; it bounds the memory.

    Raises:
        Exception: the first that `work` raises, in its item's place; what has not begun by then never does.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
