"""How much a step computes, and how fast a device can."""

import time

import torch

from bench.families import denoiser_arguments
from dreamloom.train.families.parts import make_network
from dreamloom.train.model.model import Model


def matmul_rate(device: torch.device) -> float:
    """Measures the FLOP per second of a large matrix product in bfloat16."""
    side, times = (8192, 30) if device.type == "cuda" else (1024, 5)
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    synchronize(device)
    start = time.perf_counter()
    for _ in range(times):
        a @ b
    synchronize(device)
    return 2 * side**3 * times / (time.perf_counter() - start)


def count_flops(model: Model, side: int) -> float:
    """Counts the FLOP per image of so many pixels a side, taking backward as twice forward; without computing."""
    from torch.utils.flop_counter import FlopCounterMode

    config, family = model.denoiser.config, model.family
    size = side // 2 ** (len(model.vae.config.block_out_channels) - 1)
    with torch.device("meta"):
        denoiser = make_network(family, family.denoiser, config)
        noisy, arguments = torch.empty(1, config.in_channels, size, size), denoiser_arguments(denoiser, 1)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            denoiser(noisy, timestep=torch.zeros(1, dtype=torch.long), **arguments)
    return float(3 * counter.get_total_flops())


def synchronize(device: torch.device) -> None:
    """Waits for the GPU, if the device is one."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
