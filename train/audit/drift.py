"""Drift without any data: how far apart lies what two models make of a prompt and the same noise.

From each of a few noises z, both models predict, step by step, the latents of each prompt c. With f(z, c) what the base
ends with, g(z, c) what the other model does, and c' another prompt of the vocabulary,

    drift(c) = mean over z of ‖g(z, c) − f(z, c)‖ / D
    D        = mean over c and z of ‖f(z, c) − f(z, c')‖

So 1 is as far as another prompt would have led, and 0 is exactly the same. Each model goes its own way: asked about
noisy latents of the base's, a model that draws something else still predicts much of what it is shown.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from dreamloom.base.progress import Progress, silent
from dreamloom.train.audit.config import AuditConfig
from dreamloom.train.audit.journal import Journal
from dreamloom.train.audit.pair import Pair, load_pair
from dreamloom.train.audit.statistics import Floats
from dreamloom.train.diffusion.rng import permutation, stream_key
from dreamloom.train.evaluate.drawings import Drawing
from dreamloom.train.evaluate.sample import draw_latents
from dreamloom.train.model.model import Model
from dreamloom.train.run.find import find_trained_model


def concept_drift(model: str, base: str, prompts: Sequence[str], config: AuditConfig) -> dict[str, float]:
    """Measures the drift of prompts from a base model to one that comes from it.

    Args:
        model: a run, a checkpoint of a run, a diffusers folder, a file or a hub ID.
        base: the base model.
        prompts: the vocabulary; D is measured over all of it.
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

    As many are drawn together as a batch holds: the same ones, whatever the journal has, so that a killed audit ends
    with the same numbers.

    Returns:
        Prompt → "apart" and "spread": the distances of which `relative_drifts` makes drifts, each [noises].
    """
    others = _others(list(dict.fromkeys(prompts)), config.seed)
    names, together = list(others), max(1, config.batch_size // config.drift_latents)
    for start in range(0, len(names), together):
        progress(start, len(names), "drift")
        part = names[start : start + together]
        if any(prompt not in journal.results for prompt in part):
            begin = time.monotonic()
            base = _draw(pair.base, part, part, config)
            apart = _distances(_draw(pair.model, part, part, config), base)
            spread = _distances(_draw(pair.base, [others[prompt] for prompt in part], part, config), base)
            seconds = (time.monotonic() - begin) / len(part)
            for prompt, moved, other in zip(part, apart, spread, strict=True):
                journal.put(prompt, {"apart": moved, "spread": other, "seconds": seconds})
    progress(len(names), len(names), "drift")
    return {prompt: journal.results[prompt] for prompt in others}


def relative_drifts(measured: Mapping[str, Any]) -> dict[str, Floats]:
    """Returns the drift of each prompt, from each noise, [noises]."""
    spread = float(np.mean([result["spread"] for result in measured.values()]))
    spread = spread or 1.0  # of a model that does not look at prompts
    return {prompt: np.asarray(result["apart"]) / spread for prompt, result in measured.items()}


def _others(prompts: Sequence[str], seed: int) -> dict[str, str]:
    """Prompt → another one: the next in a shuffled circle; of a single prompt, the empty one."""
    if len(prompts) == 1:
        return {prompts[0]: ""}
    shuffled = [prompts[place] for place in permutation(stream_key(seed, "audit prompts"), len(prompts))]
    after = dict(zip(shuffled, [*shuffled[1:], shuffled[0]], strict=True))
    return {prompt: after[prompt] for prompt in prompts}


def _draw(model: Model, prompts: Sequence[str], noises_of: Sequence[str], config: AuditConfig) -> Tensor:
    """Draws the latents of prompts, each from the noises of a prompt, [prompts, noises, C, h, w]."""
    size = (config.resolution, config.resolution)
    keys = [stream_key(config.seed, "audit latents", prompt) for prompt in noises_of]
    drawings = [
        Drawing(prompt, "", size, config.drift_sample_steps, config.guidance_scale, "ddim", (key, number), prompt)
        for prompt, key in zip(prompts, keys, strict=True)
        for number in range(config.drift_latents)
    ]
    latents = draw_latents(model, drawings, config)
    return latents.view(len(prompts), config.drift_latents, *latents.shape[1:])


def _distances(left: Tensor, right: Tensor) -> list[list[float]]:
    """The root mean square difference of each noise, of each prompt."""
    distances: list[list[float]] = ((left - right) ** 2).mean(dim=(2, 3, 4)).sqrt().tolist()
    return distances
