"""Settings of the noise and of the loss."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from dreamloom.base.stage import Group, StageConfig

_LOSS = Group("Loss and noise")


class LossSettings(StageConfig):
    """The noise, and the loss."""

    prediction_type: Annotated[Literal["auto", "epsilon", "v_prediction"], _LOSS] = Field(
        "auto", description="What the UNet predicts; auto: as the base's scheduler config says."
    )
    zero_terminal_snr: Annotated[bool, _LOSS] = Field(
        False, description="Rescale the noise schedule so that its last step is pure noise; needs v_prediction."
    )
    min_snr_gamma: Annotated[float | None, _LOSS] = Field(
        5.0,
        gt=0,
        description="γ of min-SNR loss weighting; null: weigh all timesteps equally; if not set, null with "
        "debiased_estimation_loss or zero_terminal_snr.",
    )
    debiased_estimation_loss: Annotated[bool, _LOSS] = Field(
        False, description="Weigh losses by 1/√SNR (debiased estimation) instead of min-SNR."
    )
    debiased_v_weight: Annotated[Literal["exact", "kohya"], _LOSS] = Field(
        "exact",
        description="Debiased weight of v; exact: √SNR/(SNR + 1), which weighs images' errors as that of epsilon does; "
        "kohya: 1/(SNR + 1), as sd-scripts.",
    )
    timestep_weights: Annotated[list[float], _LOSS] = Field(
        [],
        description="Weights of the loss at evenly spaced timesteps, from the first to the last; those between are "
        "interpolated. None: all alike.",
    )
    loss_type: Annotated[Literal["mse", "huber", "pseudo_huber", "smooth_l1", "mse_huber", "huber_mse"], _LOSS] = Field(
        "mse",
        description="Loss of an error. pseudo_huber and smooth_l1: sd-scripts' huber and smooth_l1. mse_huber: from "
        "Huber's loss at the first timestep to the squared error at the last, as EveryDream 2; huber_mse: the reverse. "
        "If not set, huber with huber_delta.",
    )
    huber_delta: Annotated[float | None, _LOSS] = Field(
        None,
        gt=0,
        description="δ, beyond which a loss grows linearly; null with mse. If not set, 0.1 with pseudo_huber and "
        "smooth_l1, 1 with the other Huber losses.",
    )
    huber_schedule: Annotated[Literal["constant", "exponential", "snr"], _LOSS] = Field(
        "constant", description="How δ falls from the first timestep to the last, as in sd-scripts."
    )
    noise_offset: Annotated[float, _LOSS] = Field(
        0.0, ge=0, le=1, description="Strength of noise that is constant over each channel."
    )
    multires_noise_discount: Annotated[float, _LOSS] = Field(
        0.0,
        ge=0,
        lt=1,
        description="Strength of each coarser octave of noise relative to the finer one (pyramid noise); 0: off.",
    )
    input_perturbation: Annotated[float, _LOSS] = Field(
        0.0, ge=0, le=1, description="Strength of extra noise that the UNet sees but does not predict; usually 0.1."
    )
    embedding_perturbation: Annotated[float, _LOSS] = Field(
        0.0, ge=0, le=10, description="γ of noise of γ/√width that is added to the captions' embeddings; usually 1."
    )
    min_timestep: Annotated[int, _LOSS] = Field(0, ge=0, le=9999, description="First timestep to train.")
    max_timestep: Annotated[int | None, _LOSS] = Field(
        None, ge=0, le=9999, description="Last timestep to train; null: the noise schedule's last."
    )
    timestep_curriculum_power: Annotated[float, _LOSS] = Field(
        0.0,
        ge=0,
        le=100,
        description="Begin with the timesteps from initial_min_timestep on, and come to min_timestep at the run's end; "
        "1: evenly, greater: faster at first, 0: off.",
    )
    initial_min_timestep: Annotated[int, _LOSS] = Field(
        800, ge=0, le=9999, description="First timestep to train at the start of a timestep curriculum."
    )

    timestep_sampling: Annotated[Literal["logit_normal", "mode", "uniform"], _LOSS] = Field(
        "logit_normal",
        description="How a rectified flow (Stable Diffusion 3) is trained over its time.",
    )
    logit_mean: Annotated[float, _LOSS] = Field(
        0.0, ge=-10, le=10, description="Mean of the normal numbers of logit_normal; above 0: more noise."
    )
    logit_std: Annotated[float, _LOSS] = Field(1.0, gt=0, le=10, description="Their standard deviation.")
    mode_scale: Annotated[float, _LOSS] = Field(
        1.29, ge=-1, le=1.75, description="Scale of mode; above 0: more in the middle of a flow."
    )
    timestep_shift: Annotated[float | None, _LOSS] = Field(
        None,
        gt=0,
        le=100,
        description="How far a flow's time is shifted towards noise; null: as the base's at 1024 pixels, and in "
        "proportion to the sides at others.",
    )
    flow_weighting: Annotated[Literal["sigma_sqrt", "cosmap"] | None, _LOSS] = Field(
        None, description="Weigh a flow's losses over its time, as diffusers' script; null: all alike."
    )

    @model_validator(mode="before")
    @classmethod
    def _apply_loss_defaults(cls, given: Any) -> Any:
        """Fills in the defaults that depend on other settings of the loss."""
        if not isinstance(given, dict):
            return given
        defaults: dict[str, Any] = {}
        if given.get("debiased_estimation_loss") or given.get("zero_terminal_snr"):
            defaults["min_snr_gamma"] = None
        if given.get("huber_delta") is not None:
            defaults["loss_type"] = "huber"
        elif given.get("loss_type", "mse") != "mse":
            defaults["huber_delta"] = 0.1 if given["loss_type"] in ("pseudo_huber", "smooth_l1") else 1.0
        return {**defaults, **given}

    @model_validator(mode="after")
    def _check_zero_terminal_snr(self) -> Self:
        if self.zero_terminal_snr and self.prediction_type == "epsilon":
            raise ValueError(
                "zero_terminal_snr needs prediction_type v_prediction: epsilon can't be learned from pure noise"
            )
        if self.zero_terminal_snr and self.min_snr_gamma is not None:
            raise ValueError("zero_terminal_snr needs min_snr_gamma null: min-SNR gives pure noise no weight")
        if self.zero_terminal_snr and self.debiased_estimation_loss:
            raise ValueError("zero_terminal_snr needs debiased_estimation_loss off: it gives pure noise no weight")
        return self

    @model_validator(mode="after")
    def _check_loss(self) -> Self:
        if self.debiased_estimation_loss and self.min_snr_gamma is not None:
            raise ValueError("debiased_estimation_loss needs min_snr_gamma null: both weigh the loss")
        if self.loss_type == "mse" and (self.huber_delta is not None or self.huber_schedule != "constant"):
            raise ValueError("loss_type mse has no huber_delta or huber_schedule: choose another, or leave them out")
        if self.loss_type != "mse" and self.huber_delta is None:
            raise ValueError(f"loss_type {self.loss_type} needs a huber_delta")
        if len(self.timestep_weights) == 1 or any(weight < 0 for weight in self.timestep_weights):
            raise ValueError("timestep_weights needs two weights or more, none below 0")
        if self.timestep_curriculum_power and self.initial_min_timestep < self.min_timestep:
            raise ValueError("initial_min_timestep is less than min_timestep, to which a curriculum falls")
        if self.timestep_curriculum_power and self.initial_min_timestep > (self.max_timestep or 9999):
            raise ValueError("initial_min_timestep is more than max_timestep; lower it")
        if self.max_timestep is not None and self.max_timestep < self.min_timestep:
            raise ValueError(f"max_timestep {self.max_timestep} is less than min_timestep {self.min_timestep}")
        return self
