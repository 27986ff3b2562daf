"""Pieces of groups go into the places of batches in few forward passes."""

import numpy as np
import pytest

from dreamloom.train.data.packing import Piece, fill_parts, pack_batch_ids


@pytest.mark.parametrize(
    ("sizes", "counts", "parts"),
    [
        ([1, 2, 2, 1], [3, 3], [[2, 1], [2, 1]]),
        ([3, 1, 4, 2], [4, 4, 2], [[4], [3, 1], [2]]),
        ([3, 5], [4, 4], [[3, 1], [4]]),
        ([7], [2, 3, 2], [[2], [3], [2]]),
        ([2, 2], [0, 4, 0], [[], [2, 2], []]),
    ],
)
def test_each_part_takes_the_largest_that_fit(sizes: list[int], counts: list[int], parts: list[list[int]]) -> None:
    pieces = [Piece(group, np.arange(10 * group, 10 * group + size)) for group, size in enumerate(sizes)]
    filled = fill_parts(pieces, counts)
    assert [[len(piece.sample_ids) for piece in part] for part in filled] == parts
    taken = np.concatenate([piece.sample_ids for part in filled for piece in part])
    assert sorted(taken) == sorted(np.concatenate([piece.sample_ids for piece in pieces]))


def test_steps_up_to_the_last_are_filled_with_one_batch_id() -> None:
    batch_ids = ["", "a", "b", "a", "b", ""]
    order = pack_batch_ids(batch_ids, begin=2, per_step=2, key=0)
    assert sorted(order) == list(range(6))
    assert {tuple(batch_ids[number] for number in order[at : at + 2]) for at in (2, 4)} == {("a", "a"), ("b", "b")}
