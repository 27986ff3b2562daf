"""An open model of Stable Diffusion 1.x or 2.x."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dreamloom.train.families.original_config import ldm_config
from dreamloom.train.families.sd.original_keys import to_original_keys
from dreamloom.train.model.model import Model
from dreamloom.train.model.text import Condition

_ENCODER = "text_encoder"


class StableDiffusion(Model):
    """One text encoder, whose last hidden states a UNet is given."""

    @property
    def is_version_2(self) -> bool:
        """Whether the text encoder is Stable Diffusion 2's, which is open_clip's: gelu, where 1's has quick_gelu."""
        return bool(self.components[_ENCODER].config.hidden_act == "gelu")

    def answer(self, encoder: str, tokens: Tensor) -> dict[str, Tensor]:
        """See Model: the hidden states of the last layer, or of that of `clip_skip`, normalized."""
        module = self.components[encoder]
        if self.clip_skip == 1:
            return {"states": torch.as_tensor(module(tokens)[0])}
        states = module(tokens, output_hidden_states=True).hidden_states[-self.clip_skip]
        inside = getattr(module, "text_model", module)  # transformers 5 dropped this level
        return {"states": torch.as_tensor(inside.final_layer_norm(states))}

    def condition(self, answers: Mapping[str, Mapping[str, Tensor]], sizes: Tensor | None) -> Condition:
        """See Model."""
        return Condition(answers[_ENCODER]["states"])

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """See Model."""
        return torch.as_tensor(self.network(noisy, timesteps, condition.states, return_dict=False)[0])

    def unused_layers(self, encoder: str) -> str | None:
        """See Model: those that clip_skip leaves out."""
        layers = self.components[encoder].config.num_hidden_layers
        skipped = range(layers + 1 - self.clip_skip, layers)
        return rf".*encoder\.layers\.({'|'.join(map(str, skipped))})\..*" if skipped else None

    def pipeline_arguments(self, wanted: Condition, unwanted: Condition, negative_prompts: list[str]) -> dict[str, Any]:
        """See Model."""
        return {"prompt_embeds": wanted.states, "negative_prompt_embeds": unwanted.states}

    def original_weights(self) -> dict[str, Tensor]:
        """See Model."""
        unet, vae, text_encoder = (self.components[name].state_dict() for name in ("unet", "vae", _ENCODER))
        return to_original_keys(unet, vae, text_encoder, open_clip=self.is_version_2)

    def original_config(self) -> str | None:
        """See Model. Without it, A1111 takes any file for version 1 predicting noise."""
        if self.is_version_2 or self.prediction_type == "v_prediction":
            return ldm_config(self, self.is_version_2)
        return None

    @property
    def architecture(self) -> str:
        """See Model."""
        if not self.is_version_2:
            return "stable-diffusion-v1"
        return "stable-diffusion-v2-768-v" if self.prediction_type == "v_prediction" else "stable-diffusion-v2-512"

    def kohya_metadata(self) -> dict[str, str]:
        """See Model."""
        version = "sd_v2" if self.is_version_2 else "sd_v1"
        suffix = "_v" if self.prediction_type == "v_prediction" else ""
        return {
            "ss_base_model_version": version + suffix,
            "ss_v2": str(self.is_version_2),
            "ss_zero_terminal_snr": str(self.has_zero_terminal_snr),
        }
