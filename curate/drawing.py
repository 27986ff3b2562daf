"""The order in which chance draws images and concepts: the same again whatever else there is."""

import hashlib


def draw_order(seed: int, name: str) -> bytes:
    """Returns a hash by which names are sorted, so that added or removed ones change few of those drawn first."""
    return hashlib.blake2b(f"{seed} {name}".encode(), digest_size=16).digest()
