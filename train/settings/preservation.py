"""Settings that hold a model to what its base predicted."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from dreamloom.base.stage import Group, StageConfig

_PRESERVATION = Group("Preservation")


class PreservationSettings(StageConfig):
    """Objectives beside denoising, each off by default. All but l2_sp ask the base for a prediction at each step."""

    prior_prediction: Annotated[float, _PRESERVATION] = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the ground truth shown whose target is what the base predicts, instead of the noise.",
    )
    prior_prediction_weight: Annotated[float, _PRESERVATION] = Field(
        1.0, gt=0, le=1, description="Weight of that target; the rest is the true one."
    )
    ground_truth: Annotated[list[str], _PRESERVATION] = Field(
        [],
        description="Folders inside the training folder that hold ground truth, for prior_prediction, auto_ratio, "
        "ground_truth_ratio and held_out; in a project: its sources of that role, if left out.",
    )
    ground_truth_ratio: Annotated[float | None, _PRESERVATION] = Field(
        None,
        ge=0,
        le=1000,
        description="Images of ground truth shown for each other image, whatever multiply.txt says; 0: none; null: as "
        "multiply.txt says, or in a project balance.ratio.",
    )
    class_preservation: Annotated[float, _PRESERVATION] = Field(
        0.0,
        ge=0,
        le=100,
        description="Weight of differential output preservation: what the base predicts for captions with class_word "
        "in place of concept_word is kept.",
    )
    concept_word: Annotated[str | None, _PRESERVATION] = Field(
        None, description="Word of the captions that names what is taught, for class_preservation."
    )
    class_word: Annotated[str | None, _PRESERVATION] = Field(
        None, description="Word of what it is one of, such as person or dog."
    )
    blank_preservation: Annotated[float, _PRESERVATION] = Field(
        0.0,
        ge=0,
        le=100,
        description="Weight of blank-prompt preservation: what the base predicts for the empty caption is kept.",
    )
    l2_sp: Annotated[float, _PRESERVATION] = Field(
        0.0, ge=0, le=1e6, description="Strength of L2-SP, which pulls the weights back to the base's."
    )

    @property
    def asks_base(self) -> bool:
        """Whether an objective needs the base's predictions."""
        return bool(self.prior_prediction or self.class_preservation or self.blank_preservation)

    @model_validator(mode="after")
    def _check_words(self) -> Self:
        if self.class_preservation and not (self.concept_word and self.class_word):
            raise ValueError("class_preservation needs concept_word and class_word, such as ted and person")
        return self
