"""An open model of Stable Diffusion XL."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from dreamloom.train.families.original_config import sgm_config
from dreamloom.train.families.original_keys import unet_layer_names
from dreamloom.train.families.sdxl.original_keys import to_original_keys
from dreamloom.train.model.lora_layers import kohya_name
from dreamloom.train.model.model import Model
from dreamloom.train.model.text import Condition

_FIRST, _SECOND = "text_encoder", "text_encoder_2"


class StableDiffusionXL(Model):
    """The last hidden states but one of two text encoders, side by side, and what the second sums up.

    The UNet is told the sizes of images, too (Podell et al. 2023, arXiv 2307.01952).
    """

    def answers(self, encoder: str) -> tuple[str, ...]:
        """See Model."""
        return ("states", "pooled") if encoder == _SECOND else ("states",)

    def answer(self, encoder: str, tokens: Tensor) -> dict[str, Tensor]:
        """See Model: the last hidden states but one, not normalized."""
        output = self.components[encoder](tokens, output_hidden_states=True)
        states = {"states": torch.as_tensor(output.hidden_states[-2])}
        return {**states, "pooled": torch.as_tensor(output[0])} if encoder == _SECOND else states

    def condition(self, answers: Mapping[str, Mapping[str, Tensor]], sizes: Tensor | None) -> Condition:
        """See Model."""
        states = torch.cat([answers[_FIRST]["states"], answers[_SECOND]["states"]], dim=-1)
        return Condition(states, answers[_SECOND]["pooled"], sizes)

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """See Model."""
        added = {"text_embeds": condition.pooled, "time_ids": condition.sizes}
        output = self.network(noisy, timesteps, condition.states, added_cond_kwargs=added, return_dict=False)
        return torch.as_tensor(output[0])

    def unused_layers(self, encoder: str) -> str | None:
        """See Model: of the first, what follows the last layer but one; the second sums up with all of its layers."""
        last = self.components[encoder].config.num_hidden_layers - 1
        return rf"(.*\.)?(encoder\.layers\.{last}|final_layer_norm)\..*" if encoder == _FIRST else None

    def pipeline_arguments(self, wanted: Condition, unwanted: Condition, negative_prompts: list[str]) -> dict[str, Any]:
        """See Model. For no negative prompt, the base was trained with zeros, where its model_index.json says so."""
        if self.settings.get("force_zeros_for_empty_prompt"):
            says = torch.tensor([[bool(prompt)] for prompt in negative_prompts], device=unwanted.states.device)
            assert unwanted.pooled is not None
            unwanted = Condition(unwanted.states * says[..., None], unwanted.pooled * says)
        return {
            "prompt_embeds": wanted.states,
            "pooled_prompt_embeds": wanted.pooled,
            "negative_prompt_embeds": unwanted.states,
            "negative_pooled_prompt_embeds": unwanted.pooled,
        }

    def kohya_names(self, component: str, layers: Collection[str]) -> dict[str, str]:
        """See Model. kohya's scripts number this UNet's blocks as the original code does."""
        if component != self.family.denoiser:
            return super().kohya_names(component, layers)
        original, beginning = unet_layer_names(self.denoiser.state_dict(), layers), self.family.kohya_parts[component]
        return {layer: kohya_name(beginning, name) for layer, name in original.items()}

    def original_weights(self) -> dict[str, Tensor]:
        """See Model."""
        return to_original_keys({name: module.state_dict() for name, module in self.components.items()})

    def original_config(self) -> str | None:
        """See Model. A1111's release 1.10 knows v-prediction by nothing else."""
        return sgm_config(self) if self.prediction_type == "v_prediction" else None

    @property
    def architecture(self) -> str:
        """See Model."""
        return "stable-diffusion-xl-v1-base"

    def kohya_metadata(self) -> dict[str, str]:
        """See Model."""
        return {
            "ss_base_model_version": "sdxl_base_v1-0",
            "ss_v2": "False",
            "ss_zero_terminal_snr": str(self.has_zero_terminal_snr),
        }
