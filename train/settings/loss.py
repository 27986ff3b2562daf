"""Settings of the noise and of the loss."""

from typing import Annotated, Literal, Self

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
    huber_delta: Annotated[float | None, _LOSS] = Field(
        None, gt=0, description="δ of a Huber loss; null: squared error."
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
    min_timestep: Annotated[int, _LOSS] = Field(0, ge=0, le=9999, description="First timestep to train.")
    max_timestep: Annotated[int | None, _LOSS] = Field(
        None, ge=0, le=9999, description="Last timestep to train; null: the noise schedule's last."
    )

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
        if self.max_timestep is not None and self.max_timestep < self.min_timestep:
            raise ValueError(f"max_timestep {self.max_timestep} is less than min_timestep {self.min_timestep}")
        return self
