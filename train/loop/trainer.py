"""The trainer: weights, optimizer, average, and the one counter from which all else follows.

Nothing in this file waits for the device: no number is read back. tests/train/test_shape.py sees to that.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dreamloom.train.config import TrainConfig
from dreamloom.train.data.loader import LoadedBatch
from dreamloom.train.diffusion import noise
from dreamloom.train.diffusion.rng import stream_key
from dreamloom.train.loop.distributed import ALONE, Together
from dreamloom.train.loop.loss_window import LossWindow
from dreamloom.train.loop.objective import Objective
from dreamloom.train.loop.optimizers import Optimizer
from dreamloom.train.model.device import autocast, choose_precision
from dreamloom.train.model.model import Model
from dreamloom.train.model.trainable import trainable_parameters


class Trainer:
    """Everything a step needs and changes.

    Args:
        images: images of the whole run, for the schedule of the learning rate.
    """

    def __init__(self, model: Model, images: int, config: TrainConfig, together: Together = ALONE) -> None:
        self.model = model
        self.together = together
        self.config = config
        self.images = images
        self.images_seen = 0
        self.precision = choose_precision(config.precision, model.device)
        self.parts = trainable_parameters(model, config)
        if config.gradient_checkpointing:
            model.unet.enable_gradient_checkpointing()
        if config.compile:
            torch._dynamo.config.recompile_limit = 256  # a bucket is a shape, and 8 would be the end
            model.compiled_unet = torch.compile(model.unet, dynamic=False)
        self.parameters: list[Tensor] = [parameter for part in self.parts.values() for parameter in part.values()]
        self.average = [p.detach().float().clone() for p in self.parameters] if config.ema_half_life_images else None
        rates = {"unet": config.learning_rate, "text_encoder": config.text_encoder_learning_rate}
        groups = [list(part.values()) for part in self.parts.values()]
        self.optimizer = Optimizer(groups, [rates[part] for part in self.parts], config)
        self.window = LossWindow()
        self.objective = Objective(config, model.prediction_type, model.alphas_cumprod)
        self.posterior = stream_key(config.seed, "posterior")
        self.asked = together.synchronized(_Asked(model, self.loss))

    @property
    def steps_done(self) -> int:
        """Optimizer steps so far."""
        return -(-self.images_seen // (self.config.batch_size * self.config.gradient_accumulation_steps))

    def step(self, group: Sequence[LoadedBatch]) -> None:
        """One optimizer step on the batches of `group`, each of which counts the same."""
        factor = rate_factor(self.config, self.images_seen, self.images)
        losses = []
        for ready in group:
            with self.together.alone(self.asked) if ready is not group[-1] else nullcontext():
                loss = self.asked(ready) / len(group)
                torch.autograd.backward(loss)
            losses.append(loss.detach())
        gradient = nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm)
        self.optimizer.step(factor, self.images_seen)
        shown = sum(len(ready.loss_scales) for ready in group) * self.together.count
        self._follow(shown)
        self.images_seen += shown
        mean = self.together.mean(torch.stack(losses).sum())
        self.window.add(self.steps_done, self.images_seen, self.optimizer.rate, mean, gradient)

    def loss(self, ready: LoadedBatch) -> Tensor:
        """The loss of a batch, a single number. All its randomness comes from the sample indices."""
        model = self.model
        indices = torch.arange(len(ready.loss_scales), device=model.device) + ready.batch.first_index
        mean, deviation = self._here(ready.posteriors).float().unbind(1)
        latents = model.scale_latents(mean + deviation * noise.normal(self.posterior, indices, tuple(mean.shape[1:])))
        question = self.objective.ask(latents, indices)
        texts = self._here(ready.text)
        with autocast(model.device, self.precision):
            states = texts.float() if texts.is_floating_point() else model.encode_text(texts)
            answer = model.predict(question.noisy, question.times, states)
        inside = None if ready.loss_mask is None else self._here(ready.loss_mask)
        return self.objective.judge(answer, question, self._here(ready.loss_scales), inside)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the model has its averaged weights, where an average is kept."""
        means = self._means()
        self._swap(means)
        try:
            yield
        finally:
            self._swap(means)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs: weights and average by name, the optimizer's state, the counter."""
        means = self._means()
        return {
            "images_seen": self.images_seen,
            "weights": dict(zip(self.names(), self.parameters, strict=True)),
            "average": None if means is None else dict(zip(self.names(), means, strict=True)),
            "optimizer": self.optimizer.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        for name, parameter in zip(self.names(), self.parameters, strict=True):
            parameter.copy_(state["weights"][name])
        if self.average is not None:
            for name, mean in zip(self.names(), self.average, strict=True):
                mean.copy_(state["average"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.images_seen = state["images_seen"]

    def names(self) -> list[str]:
        """The parameters' names, e.g. unet.conv_in.weight."""
        return [name for part in self.parts.values() for name in part]

    def _here(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.model.device, non_blocking=True)

    @torch.no_grad()
    def _follow(self, shown: int) -> None:
        """Moves the average towards the weights: half of the way in `ema` images."""
        if self.average is None or self.config.ema_half_life_images is None:
            return
        share = 1 - 0.5 ** (shown / self.config.ema_half_life_images)
        if self.config.weight_dtype == "fp32":
            torch._foreach_lerp_(self.average, self.parameters, share)
            return
        for mean, parameter in zip(self.average, self.parameters, strict=True):
            mean.lerp_(parameter.float(), share)

    def _means(self) -> list[Tensor] | None:
        return self.average or self.optimizer.average()

    def _swap(self, means: list[Tensor] | None) -> None:
        for parameter, mean in zip(self.parameters, means or [], strict=means is not None):
            parameter.data, mean.data = mean.data, parameter.data


class _Asked(nn.Module):
    """UNet and text encoder as one module, whose answer is the loss: what synchronizing gradients asks for."""

    def __init__(self, model: Model, loss: Callable[[LoadedBatch], Tensor]) -> None:
        super().__init__()
        self.unet = model.unet
        self.text_encoder = model.text_encoder
        self.loss = loss

    def forward(self, ready: LoadedBatch) -> Tensor:
        return self.loss(ready)


def rate_factor(config: TrainConfig, images_seen: int, images: int) -> float:
    """What the learning rates are multiplied by in the step that begins when so many images have been seen."""
    rising = (
        min(1.0, (images_seen + config.batch_size * config.gradient_accumulation_steps) / config.lr_warmup_images)
        if config.lr_warmup_images
        else 1.0
    )
    if config.lr_scheduler == "cosine":
        return rising * 0.5 * (1 + math.cos(math.pi * images_seen / images))
    return rising
