"""The step of diffusers' train_text_to_image.py, from latents and the text encoder's states on."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamloom.train.model.device import autocast
from dreamloom.train.model.model import Model


class PlainStep:
    """Noise, UNet, loss, backward pass, clipping, default AdamW, and a wait for the loss. Trains the whole UNet, and
    the text encoder if asked.

    Args:
        model: is trained in place.
        precision: of the arithmetic.
        memory_format: of the noisy latents.
        unet: called instead of the model's UNet: the same, compiled.
        train_text_encoder: train it, too; it is called outside, with gradients.
    """

    def __init__(
        self,
        model: Model,
        precision: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
        unet: Any = None,
        train_text_encoder: bool = False,
    ) -> None:
        modules = [model.unet, *([model.text_encoder] if train_text_encoder else [])]
        self.parameters = [p for module in modules for p in module.requires_grad_(True).parameters()]
        self.unet = unet or model.unet
        self.alphas_cumprod = model.alphas_cumprod
        self.precision = precision
        self.memory_format = memory_format
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-6)

    def __call__(self, latents: Tensor, states: Tensor) -> None:
        """Takes a step.

        Args:
            latents: scaled, [B, C, h, w].
            states: the text encoder's hidden states, [B, L, D].
        """
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, len(self.alphas_cumprod), (len(latents),), device=latents.device)
        alphas_cumprod = self.alphas_cumprod[timesteps][:, None, None, None]
        noisy = (alphas_cumprod.sqrt() * latents + (1 - alphas_cumprod).sqrt() * noise).contiguous(
            memory_format=self.memory_format
        )
        with autocast(latents.device, self.precision):
            predicted = self.unet(noisy, timesteps, states, return_dict=False)[0]
        loss = F.mse_loss(predicted.float(), noise)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        loss.item()
