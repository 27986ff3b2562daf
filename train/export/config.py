"""Config of export."""

from typing import Annotated, Literal

from pydantic import Field

from dreamloom.base.stage import Group, StageConfig

SINGLE_FILE = "model.safetensors"
"""Name of the single file inside an export."""

_WEIGHTS, _FORMATS = Group("Weights"), Group("Formats")


class ExportConfig(StageConfig):
    """Settings of an export."""

    dtype: Annotated[Literal["fp16", "fp32"], _WEIGHTS] = Field("fp16", description="Data type of the weights.")
    use_ema: Annotated[bool, _WEIGHTS] = Field(
        True, description="Export a checkpoint's averaged weights if it has them."
    )
    merge_lora: Annotated[bool, _FORMATS] = Field(
        True, description="For a LoRA: also write the whole model, with the adapters merged into it."
    )
    single_file: Annotated[bool, _FORMATS] = Field(
        True, description=f"Also write {SINGLE_FILE} with Stable Diffusion's original keys, for A1111 and ComfyUI."
    )
    title: Annotated[str | None, _FORMATS] = Field(
        None, min_length=1, description="Name that the files give the model; null: the project's or the run's."
    )
