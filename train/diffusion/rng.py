"""Random numbers as pure functions of (seed, purpose, index): no state to save, and no order to depend on."""

import hashlib

import numpy as np
import numpy.typing as npt

GOLDEN = 0x9E3779B97F4A7C15
"""2⁶⁴ over the golden ratio, odd: the increment of SplitMix64's counter."""
MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
"""Multipliers of SplitMix64's finalizer (Steele, Lea and Flood 2014, variant 13 of Stafford)."""

Bits = npt.NDArray[np.uint64]


def stream_key(seed: int, *purpose: object) -> int:
    """Derives the 64-bit key of one stream of random numbers.

    Args:
        seed: the run's.
        purpose: what the numbers are for, e.g. "order", epoch.
    """
    text = "\0".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def random_bits(key: int, indices: npt.ArrayLike) -> Bits:
    """Computes 64 random bits for each index of the stream `key`: SplitMix64 at any place of its sequence."""
    counters = np.asarray(indices, dtype=np.uint64)
    with np.errstate(over="ignore"):
        mixed = np.uint64(key) + (counters + np.uint64(1)) * np.uint64(GOLDEN)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(MIX[0])
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(MIX[1])
    return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)


def uniform(key: int, indices: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Computes a number in [0, 1) for each index of the stream `key`."""
    return (random_bits(key, indices) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(key: int, count: int) -> npt.NDArray[np.int64]:
    """Shuffles the numbers 0 to count − 1."""
    return np.argsort(random_bits(key, np.arange(count)), kind="stable").astype(np.int64)
