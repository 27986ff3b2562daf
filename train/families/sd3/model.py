"""An open model of Stable Diffusion 3 or 3.5."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dreamloom.train.families.sd3.original_keys import layer_place, to_original_keys
from dreamloom.train.model.lora_layers import kohya_name
from dreamloom.train.model.model import Model
from dreamloom.train.model.text import Condition

_FIRST, _SECOND, _T5 = "text_encoder", "text_encoder_2", "text_encoder_3"


class StableDiffusion3(Model):
    """The last hidden states but one of two CLIPs, behind them those of T5; and what both CLIPs sum up.

    T5 reads `t5_length` tokens. Where there is none, as many zeros stand for it, as in a part of the base's own
    training (Esser et al. 2024, arXiv 2403.03206).
    """

    @property
    def patch(self) -> int:
        """See Model."""
        return int(self.denoiser.config.patch_size)

    def answers(self, encoder: str) -> tuple[str, ...]:
        """See Model."""
        return ("states",) if encoder == _T5 else ("states", "pooled")

    def token_length(self, encoder: str) -> int:
        """See Model."""
        return self.t5_length if encoder == _T5 else super().token_length(encoder)

    def answer(self, encoder: str, tokens: Tensor) -> dict[str, Tensor]:
        """See Model: CLIP's last hidden states but one, not normalized; T5's last."""
        if encoder == _T5:
            return {"states": torch.as_tensor(self.components[encoder](tokens)[0])}
        output = self.components[encoder](tokens, output_hidden_states=True)
        return {"states": torch.as_tensor(output.hidden_states[-2]), "pooled": torch.as_tensor(output[0])}

    def condition(self, answers: Mapping[str, Mapping[str, Tensor]], sizes: Tensor | None) -> Condition:
        """See Model."""
        clip = torch.cat([answers[_FIRST]["states"], answers[_SECOND]["states"]], dim=-1)
        width = self.denoiser.config.joint_attention_dim
        clip = F.pad(clip, (0, width - clip.shape[-1]))
        t5 = answers[_T5]["states"] if _T5 in answers else clip.new_zeros((len(clip), self.t5_length, width))
        pooled = torch.cat([answers[_FIRST]["pooled"], answers[_SECOND]["pooled"]], dim=-1)
        return Condition(torch.cat([clip, t5], dim=-2), pooled)

    def predict(self, noisy: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """See Model."""
        output = self.network(noisy, condition.states, condition.pooled, timesteps, return_dict=False)
        return torch.as_tensor(output[0])

    def unused_layers(self, encoder: str) -> str | None:
        """See Model: CLIPs sum up with all of their layers."""
        return None

    def pipeline_arguments(self, wanted: Condition, unwanted: Condition, negative_prompts: list[str]) -> dict[str, Any]:
        """See Model."""
        return {
            "prompt_embeds": wanted.states,
            "pooled_prompt_embeds": wanted.pooled,
            "negative_prompt_embeds": unwanted.states,
            "negative_pooled_prompt_embeds": unwanted.pooled,
        }

    def pipeline_components(self, scheduler: Any) -> dict[str, Any]:
        """See Model."""
        return {_T5: None, "tokenizer_3": None, **super().pipeline_components(scheduler)}

    def original_weights(self) -> dict[str, Tensor]:
        """See Model."""
        return to_original_keys({name: module.state_dict() for name, module in self.components.items()})

    def original_config(self) -> str | None:
        """See Model: programs know this family by its tensors."""
        return None

    @property
    def architecture(self) -> str:
        """See Model."""
        config = self.denoiser.config
        if not config.qk_norm:
            return "stable-diffusion-v3-medium"
        return f"stable-diffusion-v3.5-{'medium' if config.dual_attention_layers else 'large'}"

    def kohya_names(self, component: str, layers: Collection[str]) -> dict[str, str]:
        """See Model. kohya's scripts and ComfyUI name this transformer's layers as single files do."""
        if component != self.family.denoiser:
            return super().kohya_names(component, layers)
        places = {layer: layer_place(layer) for layer in layers}
        return {
            layer: kohya_name("lora_unet_", name)
            for layer, (name, _) in sorted(places.items(), key=lambda item: (item[1][0], item[1][1] or 0))
        }

    def kohya_metadata(self) -> dict[str, str]:
        """See Model."""
        return {"ss_base_model_version": "sd3", "ss_v2": "False"}
