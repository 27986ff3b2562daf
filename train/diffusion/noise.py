"""Noise and timesteps, computed on the device as functions of (stream key, sample index)."""

import math

import torch
from torch import Tensor

from dreamloom.train.diffusion.rng import GOLDEN, MIX


def random_bits(key: int, indices: Tensor) -> Tensor:
    """Computes 64 random bits for each index: the same bits as `dreamloom.train.diffusion.rng.random_bits`.

    Args:
        key: names the stream of random numbers.
        indices: int64, of any shape.

    Returns:
        int64, of the shape of `indices`.
    """
    mixed = _signed(key) + (indices + 1) * _signed(GOLDEN)
    mixed = (mixed ^ _shift_right(mixed, 30)) * _signed(MIX[0])
    mixed = (mixed ^ _shift_right(mixed, 27)) * _signed(MIX[1])
    return mixed ^ _shift_right(mixed, 31)


def normal(key: int, indices: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Computes standard normal numbers; row i depends on `key` and indices[i] alone.

    Box and Muller's transform of two 32-bit uniforms a number, so its tails reach 6.6 standard deviations.

    Args:
        key: names the stream of random numbers.
        indices: int64 [n], on the device where the noise is needed.
        shape: the shape of a row.

    Returns:
        float32 [n, *shape].
    """
    count = math.prod(shape)
    elements = torch.arange(1, count + 1, device=indices.device) * _signed(GOLDEN)
    counters = random_bits(key, indices)[:, None] + elements[None, :]
    bits = random_bits(0, counters)
    radius = ((_shift_right(bits, 32) + 1).double() * 2.0**-32).log_().mul_(-2).sqrt_()
    angle = (bits & 0xFFFFFFFF).double() * (2 * math.pi * 2.0**-32)
    return (radius * angle.cos_()).float().view(len(indices), *shape)


def sample_timesteps(key: int, indices: Tensor, count: Tensor | int, first: Tensor | int = 0) -> Tensor:
    """Computes a timestep in [first, first + count) for each sample index.

    Additive recurrence by the golden ratio: any run of consecutive samples is spread evenly over the timesteps, which
    lowers the variance of the loss as antithetic timesteps do (Kingma et al. 2021, "Variational diffusion models").

    Args:
        key: names the stream of random numbers.
        indices: int64 [n].
        count: the number of timesteps, or that of each sample, int64 [n].
        first: the lowest timestep, or that of each sample, int64 [n].

    Returns:
        int64 [n].
    """
    position = _signed(key) + indices * _signed(GOLDEN)
    return first + ((_shift_right(position, 32) * count) >> 32)


def sample_shares(key: int, indices: Tensor) -> Tensor:
    """Computes a number between 0 and 1 for each sample index, spread as `sample_timesteps` spreads timesteps.

    Args:
        key: names the stream of random numbers.
        indices: int64 [n].

    Returns:
        float64 [n], neither 0 nor 1.
    """
    position = _signed(key) + indices * _signed(GOLDEN)
    return (_shift_right(position, 32).double() + 0.5) * 2.0**-32


def _signed(word: int) -> int:
    """The signed 64-bit integer of the same bits."""
    return word - 2**64 if word >= 2**63 else word


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's own keeps the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)
