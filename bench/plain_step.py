"""The step of diffusers' training scripts, from latents and the text encoders' answers on."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamloom.train.model.device import autocast
from dreamloom.train.model.model import Model
from dreamloom.train.model.text import Condition


class PlainStep:
    """Noise, denoiser, loss, backward pass, clipping, default AdamW, and a wait for the loss.

    Trains the whole denoiser, and the text encoders if asked.

    Args:
        model: is trained in place; its denoiser is called compiled, where it was.
        precision: of the arithmetic.
        memory_format: of the noisy latents.
        train_text: train the text encoders, too; they are called outside, with gradients.
    """

    def __init__(
        self,
        model: Model,
        precision: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
        train_text: bool = False,
    ) -> None:
        modules = [model.denoiser, *(model.text_encoders.values() if train_text else [])]
        self.parameters = [p for module in modules for p in module.requires_grad_(True).parameters()]
        self.model = model
        self.precision = precision
        self.memory_format = memory_format
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-6)

    def __call__(self, latents: Tensor, condition: Condition) -> None:
        """Takes a step.

        Args:
            latents: scaled, [B, C, h, w].
            condition: what the denoiser is given of the captions.
        """
        schedule, noise = self.model.schedule, torch.randn_like(latents)
        timesteps = torch.randint(0, schedule.num_timesteps, (len(latents),), device=latents.device)
        noisy = schedule.add_noise(latents, noise, timesteps).contiguous(memory_format=self.memory_format)
        with autocast(latents.device, self.precision):
            predicted = self.model.predict(noisy, timesteps, condition)
        loss = F.mse_loss(predicted.float(), schedule.target(latents, noise, timesteps))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        loss.item()
