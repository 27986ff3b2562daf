"""The trainer: weights, optimizer, average, and the one counter from which everything else follows.

Nothing in this file waits for the device: no number is read back. tests/train/test_shape.py makes sure of it. (In
float16, the gradient scaler reads the gradient's norm.)
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dreamloom.base.models.device import choose_precision
from dreamloom.train.config import TrainConfig
from dreamloom.train.data.loader import LoadedBatch
from dreamloom.train.data.schedule import BatchSchedule
from dreamloom.train.diffusion import noise
from dreamloom.train.diffusion.rng import stream_key
from dreamloom.train.loop.average import Average, in_float32, swap
from dreamloom.train.loop.distributed import SINGLE_PROCESS, DistributedGroup
from dreamloom.train.loop.grad_scaler import GradScaler
from dreamloom.train.loop.loss_window import LossWindow
from dreamloom.train.loop.optimizers import Optimizer
from dreamloom.train.model.device import autocast
from dreamloom.train.model.model import Model
from dreamloom.train.model.trainable import trainable_parameters
from dreamloom.train.objectives import make_objectives
from dreamloom.train.objectives.noise_process import NoiseProcess
from dreamloom.train.objectives.objective import ForwardPass

if TYPE_CHECKING:
    from dreamloom.train.loop.sharding import Sharding


class Trainer:
    """Everything that an optimizer step needs and changes.

    Args:
        model: is trained in place.
        schedule: of the run: its length, which the learning rate follows.
        config: the run's.
        distributed: the processes that train this model.
    """

    def __init__(
        self,
        model: Model,
        schedule: BatchSchedule,
        config: TrainConfig,
        distributed: DistributedGroup = SINGLE_PROCESS,
    ) -> None:
        self.model = model
        self.distributed = distributed
        self.config = config
        self.schedule = schedule
        self.step_size = config.batch_size * config.gradient_accumulation_steps
        self.images_seen = 0
        self.precision = choose_precision(config.precision, model.device)
        self.parts = trainable_parameters(model, config)
        if config.gradient_checkpointing:
            model.denoiser.enable_gradient_checkpointing()
        if config.compile:
            torch._dynamo.config.recompile_limit = 256  # each bucket is a shape; the default is 8
            model.compiled_denoiser = torch.compile(model.denoiser, dynamic=False)
        self.noise_process = NoiseProcess(config, model.schedule, schedule.num_images)
        self.objectives = make_objectives(config, model)  # which may copy the base
        self.sharding = self._share_weights() if config.shard and distributed.world_size > 1 else None
        self.parameters: list[Tensor] = [parameter for part in self.parts.values() for parameter in part.values()]
        self.average = Average(self.parameters, config) if config.ema_half_life_images else None
        self.optimizer = Optimizer({name: list(part.values()) for name, part in self.parts.items()}, config)
        self.norms: dict[int, Tensor] = {}
        """Index of a parameter → norm of its gradient, while it is stepped in the backward pass."""
        if config.fused_backward:
            for index, parameter in enumerate(self.parameters):
                hook = partial(self._step_alone, index)
                parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
        self.scaler = GradScaler(self.precision)
        self.window = LossWindow()
        self.posterior_stream = stream_key(config.seed, "posterior")
        loss_module = _LossModule(model, self.loss)
        self.loss_module = loss_module if self.sharding else distributed.wrap(loss_module)
        self.has_settled = distributed.world_size == 1 or self.sharding is not None

    @property
    def device(self) -> torch.device:
        """Where a checkpoint's state is loaded to."""
        return torch.device("cpu") if self.sharding else self.model.device

    def _share_weights(self) -> "Sharding":
        from dreamloom.train.loop.sharding import Sharding  # imports much of torch that few need

        sharding = Sharding(self.model, self.parts, self.distributed)
        self.parts = sharding.parts
        return sharding

    @property
    def num_steps(self) -> int:
        """Optimizer steps so far."""
        return -(-self.images_seen // self.step_size)

    def step(self, batches: Sequence[LoadedBatch]) -> None:
        """Takes an optimizer step on some batches, of which each image counts the same."""
        images = min(self.step_size, self.schedule.num_images - self.images_seen)
        losses, gradient = self._fused_step(batches) if self.config.fused_backward else self._step(batches)
        self.images_seen += images
        if self.average is not None:
            self.average.update(self.num_steps, self.images_seen)
        loss = self.distributed.mean(torch.stack(losses).sum()) * (self.step_size / images)
        self.window.add(self.num_steps, self.images_seen, self.optimizer.learning_rate, loss, gradient)

    def _step(self, batches: Sequence[LoadedBatch]) -> tuple[list[Tensor], Tensor | None]:
        """Returns the batches' shares of the loss, and the gradient's norm; None: the step was skipped."""
        if not self.has_settled:
            self._settle(batches[0])
        losses = []
        for batch in batches:
            with self.distributed.no_sync(self.loss_module) if batch is not batches[-1] else nullcontext():
                loss = self._share(batch)
                torch.autograd.backward(loss * self.scaler.scale)
            losses.append(loss.detach())
        if self.sharding:
            self.sharding.take_gradients()
        self.scaler.unscale(self.parameters)
        gradient = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.sharding:
            gradient = self.sharding.total_norm(gradient)
        if self.config.max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.config.max_grad_norm, gradient)
        if self.scaler.accepts(gradient):
            self.optimizer.step(self.images_seen, self.schedule.progress(self.images_seen))
            return losses, gradient
        for parameter in self.parameters:
            parameter.grad = None
        return losses, None

    def _settle(self, batch: LoadedBatch) -> None:
        """Makes a backward pass for nothing, after which DistributedDataParallel groups gradients as they become ready.

        In these groups they are added up, in an order of the processes that depends on the place in the group. So the
        first step of a run that goes on has the bits that it has in one that nobody stopped.
        """
        self.has_settled = True
        torch.autograd.backward(self._share(batch) * 0)
        for parameter in self.parameters:
            parameter.grad = None

    def _fused_step(self, batches: Sequence[LoadedBatch]) -> tuple[list[Tensor], Tensor]:
        """Takes a step in one backward pass, which comes to the batches in the order in which they are added up."""
        self.optimizer.begin(self.images_seen, self.schedule.progress(self.images_seen))
        losses = [self._share(batch) for batch in reversed(batches)]
        torch.autograd.backward(torch.stack(losses).sum())
        norms = [norm for _, norm in sorted(self.norms.items())]
        self.norms.clear()
        return [loss.detach() for loss in reversed(losses)], torch.linalg.vector_norm(torch.stack(norms))

    def _step_alone(self, index: int, parameter: Tensor) -> None:
        self.norms[index] = torch.linalg.vector_norm(parameter.grad)
        self.optimizer.step_alone(index)

    def _share(self, batch: LoadedBatch) -> Tensor:
        """Computes a batch's share of the loss of the step."""
        share: Tensor = self.loss_module(batch) * (self.distributed.world_size / self.step_size)
        return share

    def loss(self, batch: LoadedBatch) -> Tensor:
        """Computes the sum of a batch's losses, a scalar. All its randomness comes from the images' indices."""
        model = self.model
        indices = self._to_device(batch.indices)
        mean, deviation = self._to_device(batch.posteriors).float().unbind(1)
        sampled = mean + deviation * noise.normal(self.posterior_stream, indices, tuple(mean.shape[1:]))
        noisy = self.noise_process.add_noise(model.scale_latents(sampled), indices)
        text, sizes = batch.text.map(self._to_device), self._to_device(batch.sizes)
        with autocast(model.device, self.precision):
            condition = model.encode(text, sizes)
            states = self.noise_process.perturb_embeddings(condition.states, indices)
            condition = replace(condition, states=states)
            predicted = model.predict(noisy.latents, noisy.timesteps, condition)
        mask = None if batch.loss_mask is None else self._to_device(batch.loss_mask)
        loss_scales = self._to_device(batch.loss_scales)
        forward = ForwardPass(batch, indices, noisy, condition, predicted, loss_scales, mask)
        return torch.stack([objective.loss(forward) for objective in self.objectives.values()]).sum()

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Gives the model its averaged weights inside the block, if an average is kept; whole ones, if they are shared.

        All processes must enter it. In those that are not the main one, the model is of no use in it.
        """
        if self.sharding:
            with self.sharding.holding(self._current_average()):
                yield
            return
        average = self._current_average() if self.distributed.is_main else None
        if average is None:
            yield
            return
        parts = [self.model.components[part] for part in self.parts if part in self.model.components]
        frozen = [p for part in parts for p in part.parameters() if not p.requires_grad and p.ndim < 2]
        swap(self.parameters, average)
        try:
            with in_float32(frozen):  # norms between averages: a processor wants both in one dtype
                yield
        finally:
            swap(self.parameters, average)

    def state_dict(self) -> dict[str, Any]:
        """Returns all that a resumed run needs.

        Weights and average by name, the state of the optimizer and of the gradient scaler, and the counter. Where
        processes share the weights, all must call it, and the main one is given weights and average.
        """
        average = self._current_average()
        if self.sharding:
            names, optimizer = self.parameter_names(), self.optimizer.state_dict()
            return {
                "images_seen": self.images_seen,
                "weights": self.sharding.gather(names, self.parameters),
                "average": None if average is None else self.sharding.gather(names, average),
                "optimizer": self.sharding.without_rows(optimizer),
                "write_shards": partial(self.sharding.write_optimizer, optimizer),
                "scaler": self.scaler.state_dict(),
            }
        return {
            "images_seen": self.images_seen,
            "weights": dict(zip(self.parameter_names(), self.parameters, strict=True)),
            "average": None if average is None else dict(zip(self.parameter_names(), average, strict=True)),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        for name, parameter in zip(self.parameter_names(), self.parameters, strict=True):
            parameter.copy_(self._own(state["weights"][name]))
        if self.average is not None:
            for name, mean in zip(self.parameter_names(), self.average.means, strict=True):
                mean.copy_(self._own(state["average"][name]))
        self.optimizer.load_state_dict(self._own_optimizer_state(state["optimizer"], state.get("shards")))
        self.scaler.load_state_dict(state["scaler"])
        self.images_seen = state["images_seen"]

    def _own(self, whole: Tensor) -> Tensor:
        return self.sharding.rows_of(whole) if self.sharding else whole

    def _own_optimizer_state(self, state: dict[str, Any], shards: Path | None) -> dict[str, Any]:
        """Returns the optimizer's state for the parameters as this process has them, whoever wrote it."""
        by_index = state["state"]
        if shards is not None:
            from dreamloom.train.run.optimizer_shards import place_whole, read_shards

            found = read_shards(shards, self.sharding.placed if self.sharding else place_whole)
            by_index = {index: values | found.get(index, {}) for index, values in by_index.items()}
        elif self.sharding:
            by_index = self.sharding.own_state(by_index)
        laid_out = {
            index: {name: _laid_out_as(self.parameters[index], value) for name, value in values.items()}
            for index, values in by_index.items()
        }
        return {**state, "state": laid_out}

    def parameter_names(self) -> list[str]:
        """Returns the names of the trained parameters, such as unet.conv_in.weight."""
        return [name for part in self.parts.values() for name in part]

    def _to_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.model.device, non_blocking=True)

    def _current_average(self) -> list[Tensor] | None:
        return self.average.means if self.average else self.optimizer.average()


def _laid_out_as(parameter: Tensor, value: Any) -> Any:
    """Returns a tensor of the optimizer's state in the memory layout of its parameter.

    Fused optimizers take that for granted, and where processes share weights, it is not channels_last.
    """
    if not isinstance(value, Tensor) or value.shape != parameter.shape or value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


class _LossModule(nn.Module):
    """The networks that may learn as one module that returns the loss, as DistributedDataParallel needs it."""

    def __init__(self, model: Model, loss: Callable[[LoadedBatch], Tensor]) -> None:
        super().__init__()
        awake = [module for name, module in model.text_encoders.items() if name not in model.resting]
        self.networks = nn.ModuleList((model.denoiser, *awake))
        self.loss = loss

    def forward(self, batch: LoadedBatch) -> Tensor:
        return self.loss(batch)
