"""Computes the losses of a model on held-out images, with the same noise and timesteps each time."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from dreamloom.base.errors import UserError
from dreamloom.base.models.device import choose_precision
from dreamloom.base.progress import Progress, silent
from dreamloom.base.text import name_some
from dreamloom.train.data.crops import View, center_view, micro_conditioning
from dreamloom.train.data.dataset import Dataset, Sample
from dreamloom.train.data.latent_cache import LatentCache
from dreamloom.train.data.loader import loss_masks
from dreamloom.train.diffusion import formulas, noise
from dreamloom.train.diffusion.rng import stream_key, uniform
from dreamloom.train.evaluate.concepts import describe
from dreamloom.train.evaluate.config import EvaluateConfig
from dreamloom.train.evaluate.measure import Evaluation, Losses, compare_losses
from dreamloom.train.model.device import autocast, choose_device
from dreamloom.train.model.model import Model
from dreamloom.train.model.text import Condition
from dreamloom.train.run.find import TrainedModel


class NonFiniteHeldOutLossError(UserError):
    """A loss on held-out images is infinite or NaN, which no limit and no comparison would notice.

    Args:
        names: of the images.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(
            f"The model's loss on held-out images is not a number ({name_some(names)}): it has diverged, is damaged, "
            "or overflows in half precision; lower the learning rate, set precision to fp32, or look at these images."
        )


_ENCODED_TOGETHER = 16
"""Batches whose captions are encoded before their losses are computed: resting text encoders wake once for them."""


def compare_models(
    trained: TrainedModel, base: str, datasets: Mapping[str, Dataset], config: EvaluateConfig, progress: Progress
) -> Evaluation:
    """Loads the base model and the trained one in turn, and computes their losses.

    Raises:
        UserError: a model can't be loaded, or the two predict different things.
    """
    device = choose_device(config.device)
    model = trained.load_base(base, device, config.precision, config.vae, config.clip_skip, config.t5_length)
    latent_cache = LatentCache(config.latent_cache, model.vae)
    datasets = {kind: drop_undecodable(dataset, latent_cache, config, progress) for kind, dataset in datasets.items()}
    base_losses = compute_losses(model, datasets, latent_cache, config, progress)
    prediction_type = model.prediction_type
    model = trained.load(model, config.use_ema)
    if model.prediction_type != prediction_type:
        raise UserError(
            f"{base} predicts {prediction_type} and {trained.name} predicts {model.prediction_type}, so their losses "
            "can't be compared; name the base model that was trained."
        )
    losses = compute_losses(model, datasets, latent_cache, config, progress)
    return compare_losses(base_losses, losses, describe(datasets), problem_lines(datasets))


def drop_undecodable(
    dataset: Dataset, latent_cache: LatentCache, config: EvaluateConfig, progress: Progress
) -> Dataset:
    """Encodes the images whose latents are not cached, and returns those that could be; the others are its problems."""
    views = partial(_views, config=config)
    return dataset.without(latent_cache.add(dataset.samples, config.num_workers, progress, views))


def problem_lines(datasets: Mapping[str, Dataset]) -> list[str]:
    """Names the held-out images that could not be evaluated, each with the reason."""
    return [f"{kind}/{p.name} ({p.reason})" for kind, dataset in datasets.items() for p in dataset.problems]


def compute_losses(
    model: Model,
    datasets: Mapping[str, Dataset],
    latent_cache: LatentCache,
    config: EvaluateConfig,
    progress: Progress = silent,
) -> dict[str, Losses]:
    """Computes the losses of the model on each dataset, as kind → losses."""
    return {
        kind: compute_dataset_losses(model, dataset, latent_cache, config, progress)
        for kind, dataset in datasets.items()
    }


@torch.no_grad()
def compute_dataset_losses(
    model: Model, dataset: Dataset, latent_cache: LatentCache, config: EvaluateConfig, progress: Progress = silent
) -> Losses:
    """Computes each image's loss: the denoiser's squared error, averaged over the timesteps, all of which count alike.

    Over an image, it is weighed as in training: by the image's mask, and not where there is padding.

    Raises:
        NonFiniteHeldOutLossError: a loss is infinite or NaN.
    """
    ordered = sorted(dataset.samples, key=lambda sample: (sample.bucket, sample.name))
    batches = [
        samples[start : start + config.batch_size]
        for _, bucket in groupby(ordered, key=lambda sample: sample.bucket)
        for samples in [list(bucket)]
        for start in range(0, len(samples), config.batch_size)
    ]
    losses: Losses = {}
    for start in range(0, len(batches), _ENCODED_TOGETHER):
        group = batches[start : start + _ENCODED_TOGETHER]
        conditions = _encode(model, group, config)
        for batch, condition in zip(group, conditions, strict=True):
            for sample, loss in zip(batch, _batch_losses(model, batch, condition, latent_cache, config), strict=True):
                losses[sample.name] = loss
            progress(len(losses), len(ordered), "evaluating held-out images")
    if not_finite := sorted(name for name, loss in losses.items() if not math.isfinite(loss)):
        raise NonFiniteHeldOutLossError(not_finite)
    return dict(sorted(losses.items()))


def _encode(model: Model, batches: list[list[Sample]], config: EvaluateConfig) -> list[Condition]:
    """Computes what the denoiser is told of the images of some batches; on the CPU."""
    captions = [[sample.caption for sample in batch] for batch in batches]
    texts = [model.tokenize(each).map(lambda tokens: tokens.to(model.device)) for each in captions]
    sizes = [micro_conditioning(each, _views_of(each, config), config.micro_conditioning) for each in batches]
    with autocast(model.device, choose_precision(config.precision, model.device)):
        conditions = model.encode_all(texts, [each.to(model.device) for each in sizes])
    return [condition.map(lambda tensor: tensor.cpu()) for condition in conditions]


def _batch_losses(
    model: Model, samples: list[Sample], condition: Condition, latent_cache: LatentCache, config: EvaluateConfig
) -> list[float]:
    """Takes the means of the VAE's posteriors: sampling from them would only add noise to the measure."""
    views = _views_of(samples, config)
    posteriors = [latent_cache.get(sample, view) for sample, view in zip(samples, views, strict=True)]
    means = torch.stack([posterior[0] for posterior in posteriors]).to(model.device).float()
    mask = loss_masks(samples, views, latent_cache, config.unmasked_weight)
    mask = None if mask is None else mask.to(model.device)
    latents = model.scale_latents(means)
    precision = choose_precision(config.precision, model.device)
    condition = condition.map(lambda each: each.to(model.device))
    numbers = [content_number(latent_cache.key(sample)) for sample in samples]
    total = torch.zeros(len(samples), device=model.device)
    for stratum in range(config.eval_timesteps):
        timesteps, added = draw_timesteps_and_noise(model, numbers, stratum, config, tuple(latents.shape[1:]))
        noisy = model.schedule.add_noise(latents, added, timesteps).contiguous(memory_format=torch.channels_last)
        with autocast(model.device, precision):
            predicted = model.predict(noisy, timesteps, condition)
        target = model.schedule.target(latents, added, timesteps)
        total += formulas.sample_losses((predicted.float() - target.float()) ** 2, mask)
    return [float(value) for value in (total / config.eval_timesteps).tolist()]


def _views_of(samples: list[Sample], config: EvaluateConfig) -> list[View]:
    return [view for sample in samples for view in _views(sample, config)]


def _views(sample: Sample, config: EvaluateConfig) -> list[View]:
    """The one view in which an image is evaluated."""
    return [center_view(sample, config.pad_color)]


def draw_timesteps_and_noise(
    model: Model, numbers: list[int], stratum: int, config: EvaluateConfig, shape: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Returns each image's timestep in a stratum, [n], and its noise, [n, *shape].

    Args:
        model: its noise schedule is divided into `eval_timesteps` strata.
        numbers: what timestep and noise of each image depend on; see `content_number`.
        stratum: from 0.
        config: gives the seed and the number of strata.
        shape: of an image's latents.
    """
    indices = [number + stratum for number in numbers]
    offsets = uniform(stream_key(config.seed, "judged timestep"), indices)
    timesteps = [model.schedule.spread(stratum, config.eval_timesteps, offset) for offset in offsets.tolist()]
    drawn = noise.normal(stream_key(config.seed, "judged noise"), torch.tensor(indices, device=model.device), shape)
    return model.schedule.timesteps(timesteps), drawn


def content_number(key: str) -> int:
    """Returns a number for an image's content, a multiple of 1024, so that adding a stratum keeps numbers apart."""
    return int(key[:13], 16) << 10
