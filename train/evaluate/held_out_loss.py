"""The losses of a model on held-out images: the same noise and timesteps whenever it is asked."""

from collections.abc import Mapping
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from dreamloom.base.errors import UserError
from dreamloom.base.progress import Progress, silent
from dreamloom.train.data.crops import View, center_view
from dreamloom.train.data.dataset import Dataset, Sample
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.data.loader import loss_masks
from dreamloom.train.diffusion import formulas, noise
from dreamloom.train.diffusion.rng import stream_key, uniform
from dreamloom.train.evaluate.evaluate import EvaluateConfig, Evaluation, Losses, measure_all
from dreamloom.train.model.device import autocast, choose_device, choose_precision
from dreamloom.train.model.model import Model
from dreamloom.train.run.find import Source


def compare(
    source: Source, base: str, kinds: Mapping[str, Dataset], config: EvaluateConfig, progress: Progress
) -> Evaluation:
    """Loads both models in turn and judges them; see dreamloom.train.evaluate.evaluate.evaluate."""
    device = choose_device(config.device)
    model = source.load_base(base, device, config.vae)
    latents = LatentCache(config.latent_cache, model.vae)
    kinds = {kind: decodable(data, latents, config, progress) for kind, data in kinds.items()}
    before = judge_all(model, kinds, latents, config, progress)
    prediction = model.prediction_type
    model = source.load(model, config.use_ema)
    if model.prediction_type != prediction:
        raise UserError(
            f"{base} predicts {prediction} and {source.name} {model.prediction_type}: their losses don't compare."
        )
    now = judge_all(model, kinds, latents, config, progress)
    problems = tuple(f"{kind}/{p.name} ({p.reason})" for kind, data in kinds.items() for p in data.problems)
    return Evaluation(*measure_all(before, now), before, now, problems)


def decodable(data: Dataset, latents: LatentCache, config: EvaluateConfig, progress: Progress) -> Dataset:
    """The images whose latents there are now, where they were not; the others are its problems."""
    views = partial(_shown, config=config)
    return data.without(latents.add(data.samples, config.num_workers, progress, views))


def judge_all(
    model: Model,
    kinds: Mapping[str, Dataset],
    latents: LatentCache,
    config: EvaluateConfig,
    progress: Progress = silent,
) -> dict[str, Losses]:
    """Kind → losses of the model on its images."""
    return {kind: judge(model, data, latents, config, progress) for kind, data in kinds.items()}


@torch.no_grad()
def judge(
    model: Model, data: Dataset, latents: LatentCache, config: EvaluateConfig, progress: Progress = silent
) -> Losses:
    """Each image's loss, as the mean over `timesteps` strata: squared error of what the UNet predicts, unweighted."""
    ordered = sorted(data.samples, key=lambda sample: (sample.bucket, sample.name))
    groups = [
        members[start : start + config.batch_size]
        for _, found in groupby(ordered, key=lambda sample: sample.bucket)
        for members in [list(found)]
        for start in range(0, len(members), config.batch_size)
    ]
    losses: Losses = {}
    for group in groups:
        for sample, loss in zip(group, _judge_group(model, group, latents, config), strict=True):
            losses[sample.name] = loss
        progress(len(losses), len(ordered), "judging held-out pictures")
    return dict(sorted(losses.items()))


def _judge_group(model: Model, group: list[Sample], latents: LatentCache, config: EvaluateConfig) -> list[float]:
    """The images are as their VAE's posterior means: its deviation would only add noise to the measure."""
    views = [view for sample in group for view in _shown(sample, config)]
    means = torch.stack([latents.get(*shown)[0] for shown in zip(group, views, strict=True)]).to(model.device).float()
    inside = loss_masks(group, views, means).to(model.device) if config.pad_color else None
    clean = model.scale_latents(means)
    precision = choose_precision(config.precision, model.device)
    with autocast(model.device, precision):
        states = model.encode_text(model.tokenize([sample.caption for sample in group]).to(model.device))
    own = [number_of(latents.key(sample)) for sample in group]
    total = torch.zeros(len(group), device=model.device)
    for stratum in range(config.eval_timesteps):
        times, added = draw(model, own, stratum, config, tuple(clean.shape[1:]))
        kept = model.alphas_cumprod[times]
        noisy = formulas.add_noise(clean, added, kept).contiguous(memory_format=torch.channels_last)
        with autocast(model.device, precision):
            predicted = model.predict(noisy, times, states)
        total += formulas.sample_losses(
            predicted, formulas.prediction_target(model.prediction_type, clean, added, kept), None, inside
        )
    return [float(value) for value in (total / config.eval_timesteps).tolist()]


def _shown(sample: Sample, config: EvaluateConfig) -> list[View]:
    """The one view in which an image is judged."""
    return [center_view(sample, config.pad_color)]


def draw(
    model: Model, own: list[int], stratum: int, config: EvaluateConfig, shape: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Each image's timestep in this stratum, [n], and its noise, [n, *shape]; both depend on its content alone."""
    indices = [number + stratum for number in own]
    luck = uniform(stream_key(config.seed, "judged timestep"), indices)
    count = len(model.alphas_cumprod)
    times = [min(count - 1, int((stratum + u) * count / config.eval_timesteps)) for u in luck.tolist()]
    places = torch.tensor(indices, device=model.device)
    return torch.tensor(times, device=model.device), noise.normal(
        stream_key(config.seed, "judged noise"), places, shape
    )


def number_of(key: str) -> int:
    """A number for an image's content, with room below it for the strata."""
    return int(key[:13], 16) << 10
