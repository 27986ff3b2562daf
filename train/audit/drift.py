"""Drift without any data: how far two models' predictions for a prompt lie apart.

The base draws a few latents z of each prompt c, which are noised to x at a few levels t. With f the base's prediction,
g the other model's, and c' another prompt of the vocabulary,

    drift(c) = mean over z and t of ‖g(x, t, c) − f(x, t, c)‖ / D(t)
    D(t)     = mean over c and z of ‖f(x, t, c) − f(x, t, c')‖

So 1 is as far as another prompt would have moved the prediction, and 0 is exactly the same prediction.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dreamloom.base.progress import Progress, silent
from dreamloom.train.audit.config import AuditConfig
from dreamloom.train.audit.journal import Journal
from dreamloom.train.audit.pair import Pair, add_noise_at, encode_prompts, load_pair, predict, spread_timesteps
from dreamloom.train.audit.statistics import Floats
from dreamloom.train.diffusion import noise
from dreamloom.train.diffusion.rng import permutation, stream_key
from dreamloom.train.evaluate.drawings import Drawing
from dreamloom.train.evaluate.sample import draw_latents
from dreamloom.train.run.find import find_trained_model


def concept_drift(model: str, base: str, prompts: Sequence[str], config: AuditConfig) -> dict[str, float]:
    """Measures the drift of prompts from a base model to one that comes from it.

    Args:
        model: a run, a checkpoint of a run, a diffusers folder, a file or a hub ID.
        base: the base model.
        prompts: the vocabulary; D(t) is measured over all of it.
        config: how much is measured.

    Raises:
        UserError: a model is missing or damaged, or the two are not of one family.
    """
    pair = load_pair(find_trained_model(model), base, config)
    drifts = relative_drifts(measure_drift(pair, prompts, config, Journal(None), silent))
    return {prompt: float(values.mean()) for prompt, values in drifts.items()}


def measure_drift(
    pair: Pair, prompts: Sequence[str], config: AuditConfig, journal: Journal, progress: Progress
) -> dict[str, Any]:
    """Measures each prompt that the journal does not have yet.

    Returns:
        Prompt → "apart" and "spread": the distances of which `relative_drifts` makes drifts, each [latents][levels].
    """
    others = _others(list(dict.fromkeys(prompts)), config.seed)
    for done, (prompt, other) in enumerate(others.items()):
        progress(done, len(others), "drift")
        if prompt not in journal.results:
            start = time.monotonic()
            apart, spread = _measure(pair, prompt, other, config)
            journal.put(prompt, {"apart": apart, "spread": spread, "seconds": time.monotonic() - start})
    progress(len(others), len(others), "drift")
    return {prompt: journal.results[prompt] for prompt in others}


def relative_drifts(measured: Mapping[str, Any]) -> dict[str, Floats]:
    """Returns the drift of each latent of each prompt, [latents]."""
    spread = np.mean([np.mean(result["spread"], axis=0) for result in measured.values()], axis=0)
    spread = np.where(spread > 0, spread, 1.0)  # of a model that does not look at prompts
    return {prompt: np.asarray(np.array(result["apart"]) / spread).mean(axis=1) for prompt, result in measured.items()}


def _others(prompts: Sequence[str], seed: int) -> dict[str, str]:
    """Prompt → another one: the next in a shuffled circle; of a single prompt, the empty one."""
    if len(prompts) == 1:
        return {prompts[0]: ""}
    shuffled = [prompts[place] for place in permutation(stream_key(seed, "audit prompts"), len(prompts))]
    after = dict(zip(shuffled, [*shuffled[1:], shuffled[0]], strict=True))
    return {prompt: after[prompt] for prompt in prompts}


def _measure(pair: Pair, prompt: str, other: str, config: AuditConfig) -> tuple[list[list[float]], list[list[float]]]:
    latents = _draw(pair, prompt, config)
    levels, device = config.drift_timesteps, pair.base.device
    indices = torch.arange(len(latents) * levels, device=device)
    added = noise.normal(stream_key(config.seed, "audit noise", prompt), indices, tuple(latents.shape[1:]))
    timesteps = spread_timesteps(pair.base, levels).repeat(len(latents))
    noisy, _ = add_noise_at(pair.base, latents.repeat_interleave(levels, 0), added, timesteps)

    def ask(which: str, text: str) -> Tensor:
        model = getattr(pair, which)
        condition = encode_prompts(model, [text], config.resolution, pair.precision)
        of_each = condition.map(lambda one: one.expand(len(noisy), *one.shape[1:]))
        return predict(model, noisy, timesteps, of_each, pair.precision, config.batch_size)

    before = ask("base", prompt)
    distances = [_distances(ask("model", prompt), before), _distances(ask("base", other), before)]
    apart, spread = (each.view(len(latents), levels).tolist() for each in distances)
    return apart, spread


def _draw(pair: Pair, prompt: str, config: AuditConfig) -> Tensor:
    key, size = stream_key(config.seed, "audit latents", prompt), (config.resolution, config.resolution)
    drawings = [
        Drawing(prompt, "", size, config.drift_sample_steps, config.guidance_scale, "ddim", (key, number), prompt)
        for number in range(config.drift_latents)
    ]
    return draw_latents(pair.base, drawings, config)


def _distances(left: Tensor, right: Tensor) -> Tensor:
    """The root mean square difference of each prediction, [n]."""
    return ((left - right) ** 2).mean(dim=(1, 2, 3)).sqrt()
