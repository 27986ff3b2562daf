"""The schedulers that draw samples, under the names of EveryDream 2 and sd-scripts. Imports no torch."""

from collections.abc import Mapping
from typing import Any

_MULTISTEP, _SINGLESTEP = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
_KARRAS = {"use_karras_sigmas": True}
_PLUS_PLUS, _SDE = {"algorithm_type": "dpmsolver++"}, {"algorithm_type": "sde-dpmsolver++"}

SAMPLERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "lms": ("LMSDiscreteScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm_2": ("KDPM2DiscreteScheduler", {}),
    "dpm_2_a": ("KDPM2AncestralDiscreteScheduler", {}),
    "kdpm2": ("KDPM2AncestralDiscreteScheduler", {}),
    "dpmsolver": (_MULTISTEP, _PLUS_PLUS),  # diffusers is about to drop the first algorithm
    "dpmsolver++": (_MULTISTEP, _PLUS_PLUS),
    "dpmsingle": (_SINGLESTEP, {}),
    "dpm++": (_MULTISTEP, _PLUS_PLUS),
    "dpm++_2m": (_MULTISTEP, _PLUS_PLUS),
    "dpm++_2m_k": (_MULTISTEP, _PLUS_PLUS | _KARRAS),
    "dpm++_2m_sde": (_MULTISTEP, _SDE),
    "dpm++_2m_sde_k": (_MULTISTEP, _SDE | _KARRAS),
    "dpm++_2s": (_SINGLESTEP, {}),
    "dpm++_2s_k": (_SINGLESTEP, _KARRAS),
    "k_lms": ("LMSDiscreteScheduler", {}),
    "k_euler": ("EulerDiscreteScheduler", {}),
    "k_euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "k_dpm_2": ("KDPM2DiscreteScheduler", {}),
    "k_dpm_2_a": ("KDPM2AncestralDiscreteScheduler", {}),
}
"""Name of a sampler → diffusers' class, and the options in which it differs from the base's scheduler config."""
