"""The step that diffusers' train_text_to_image.py does, once it has latents and the text encoder's answers."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamloom.train.model.device import autocast
from dreamloom.train.model.model import Model


class PlainStep:
    """Noise, UNet, loss, backward, clipping, AdamW as torch has it, and a wait for the loss: all of the UNet learns.

    Args:
        precision: of the arithmetic.
        layout: of the noisy latents in memory.
        unet: what answers in the model's UNet's place: itself, compiled.
    """

    def __init__(
        self,
        model: Model,
        precision: torch.dtype = torch.float32,
        layout: torch.memory_format = torch.contiguous_format,
        unet: Any = None,
    ) -> None:
        self.parameters = list(model.unet.requires_grad_(True).parameters())
        self.unet = unet or model.unet
        self.kept = model.alphas_cumprod
        self.precision = precision
        self.layout = layout
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-6)

    def __call__(self, latents: Tensor, states: Tensor) -> None:
        """One step; latents as the UNet takes them, [B, C, h, w], and answers, [B, L, D]."""
        noise = torch.randn_like(latents)
        times = torch.randint(0, len(self.kept), (len(latents),), device=latents.device)
        kept = self.kept[times][:, None, None, None]
        noisy = (kept.sqrt() * latents + (1 - kept).sqrt() * noise).contiguous(memory_format=self.layout)
        with autocast(latents.device, self.precision):
            predicted = self.unet(noisy, times, states, return_dict=False)[0]
        loss = F.mse_loss(predicted.float(), noise)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        loss.item()
