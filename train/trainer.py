"""The trainer: weights, optimizer, average, and the one counter from which all else follows.

Nothing in this file waits for the device: no number is read back. tests/train/test_trainer.py sees to that.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from train import noise
from train.config import TrainConfig
from train.device import autocast, choose_precision
from train.learned import learning_parameters
from train.loader import Ready
from train.losses import LossWindow
from train.model import Model
from train.question import Objective
from train.rng import stream


class Trainer:
    """Everything a step needs and changes.

    Args:
        images: pictures of the whole run, for the schedule of the learning rate.
    """

    def __init__(self, model: Model, images: int, config: TrainConfig) -> None:
        self.model = model
        self.config = config
        self.images = images
        self.images_seen = 0
        self.precision = choose_precision(config.precision, model.device)
        self.parts = learning_parameters(model, config)
        if config.gradient_checkpointing:
            model.unet.enable_gradient_checkpointing()
        self.parameters: list[Tensor] = [parameter for part in self.parts.values() for parameter in part.values()]
        self.average = [p.detach().clone() for p in self.parameters] if config.ema else None
        self.optimizer = self._optimizer()
        self.window = LossWindow()
        self.objective = Objective(config, model.prediction, model.alphas_cumprod)
        self.posterior = stream(config.seed, "posterior")

    @property
    def steps_done(self) -> int:
        """Optimizer steps so far."""
        return -(-self.images_seen // (self.config.batch * self.config.accumulate))

    def step(self, group: Sequence[Ready]) -> None:
        """One optimizer step on the batches of `group`, each of which counts the same."""
        factor = rate_factor(self.config, self.images_seen, self.images)
        for settings in self.optimizer.param_groups:
            settings["lr"] = settings["full_rate"] * factor
        losses = []
        for ready in group:
            loss = self.loss(ready) / len(group)
            torch.autograd.backward(loss)
            losses.append(loss.detach())
        gradient = nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        shown = sum(len(ready.scales) for ready in group)
        self._follow(shown)
        self.images_seen += shown
        rate = self.config.learning_rate * factor
        batches = [ready.batch for ready in group]
        self.window.add(self.steps_done, self.images_seen, rate, torch.stack(losses).sum(), gradient, batches)

    def loss(self, ready: Ready) -> Tensor:
        """The loss of a batch, a single number. All its randomness comes from the sample indices."""
        model = self.model
        indices = torch.arange(len(ready.scales), device=model.device) + ready.batch.first
        mean, deviation = self._here(ready.posteriors).float().unbind(1)
        latents = model.scaled(mean + deviation * noise.normal(self.posterior, indices, tuple(mean.shape[1:])))
        question = self.objective.ask(latents, indices)
        texts = self._here(ready.texts)
        with autocast(model.device, self.precision):
            states = texts.float() if texts.is_floating_point() else model.states(texts)
            answer = model.predict(question.noisy, question.times, states)
        inside = None if ready.inside is None else self._here(ready.inside)
        return self.objective.judge(answer, question, self._here(ready.scales), inside)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the model has its averaged weights, where an average is kept."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs: weights and average by name, the optimizer's state, the counter."""
        return {
            "images_seen": self.images_seen,
            "weights": dict(zip(self.names(), self.parameters, strict=True)),
            "average": None if self.average is None else dict(zip(self.names(), self.average, strict=True)),
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

    def _optimizer(self) -> torch.optim.AdamW:
        rates = {"unet": self.config.learning_rate, "text_encoder": self.config.text_encoder_rate}
        groups = [
            {"params": list(part.values()), "lr": rates[name], "full_rate": rates[name]}
            for name, part in self.parts.items()
        ]
        return torch.optim.AdamW(groups, weight_decay=self.config.weight_decay, fused=True)

    @torch.no_grad()
    def _follow(self, shown: int) -> None:
        """Moves the average towards the weights: half of the way in `ema` pictures."""
        if self.average is not None and self.config.ema is not None:
            torch._foreach_lerp_(self.average, self.parameters, 1 - 0.5 ** (shown / self.config.ema))

    def _swap(self) -> None:
        if self.average is not None:
            for parameter, mean in zip(self.parameters, self.average, strict=True):
                parameter.data, mean.data = mean.data, parameter.data


def rate_factor(config: TrainConfig, images_seen: int, images: int) -> float:
    """What the learning rates are multiplied by in the step that begins when so many pictures have been seen."""
    rising = min(1.0, (images_seen + config.batch * config.accumulate) / config.warmup) if config.warmup else 1.0
    if config.schedule == "cosine":
        return rising * 0.5 * (1 + math.cos(math.pi * images_seen / images))
    return rising
