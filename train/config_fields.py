"""Config fields that several configs of train have, declared once so that they mean the same in each."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from dreamloom.base.models.device import DeviceName, PrecisionName
from dreamloom.base.stage import NO_RECIPE, Group

DATA, EVALUATION, HARDWARE = Group("Data and buckets"), Group("Evaluation"), Group("Precision and hardware")


def _read_number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


WRITTEN_NUMBER = BeforeValidator(_read_number)
"""Of a choice of numbers, which the command line gives as text."""

Resolution = Annotated[
    int, Field(ge=32, le=4096, description="Side of the square bucket, in pixels; no bucket has a larger area."), DATA
]
BucketResoSteps = Annotated[
    int, Field(ge=8, le=256, description="Bucket sides are multiples of this, in pixels."), DATA
]
Upscale = Annotated[
    bool, Field(description="Enlarge images smaller than their bucket; if off, choose a bucket that they fill."), DATA
]
PadColor = Annotated[
    str | None,
    Field(
        pattern="^#[0-9a-fA-F]{6}$",
        description="Pad whole images with this color, such as #ffffff, instead of cropping them; padding does not "
        "count in the loss. null: crop.",
    ),
    DATA,
]
MaskKind = Literal["files", "alpha", "none"]
Masks = Annotated[
    MaskKind,
    Field(
        description="Weigh the loss over an image by a mask; files: x-masklabel.png beside x.jpg, where white counts; "
        "alpha: the image's own transparency; none: by nothing."
    ),
    DATA,
]
MicroConditioning = Annotated[
    Literal["images", "constant"],
    Field(
        description="What Stable Diffusion XL is told of an image's size; images: its original size and its crop; "
        "constant: that it is as large as it is shown, and not cropped."
    ),
    DATA,
]
FolderResolutions = Annotated[
    list[str],
    Field(
        description="Resolutions of single folders, each as FOLDER=PIXELS, such as faces=768; in a project a source is "
        "a folder. All others have `resolution`."
    ),
    DATA,
]
UnmaskedWeight = Annotated[
    float, Field(ge=0, le=1, description="Least weight of any place of an image that has a mask."), DATA
]
ClipSkip = Annotated[
    int,
    Field(
        ge=1,
        le=12,
        description="Layer of the text encoder that the UNet sees, from the last: 1 is the last, 2 the one before, "
        "as many anime models have it.",
    ),
    Group("Model"),
]
TokenLimit = Annotated[
    Literal[77, 256],
    WRITTEN_NUMBER,
    Field(description="Tokens of a caption that T5 reads for Stable Diffusion 3; 77 is faster, and takes less memory."),
    Group("Model"),
]
Precision = Annotated[
    PrecisionName,
    Field(
        description="Arithmetic; auto: bf16 on a GPU that computes in it, else fp32. fp16 is for GPUs that do not: it "
        "scales the loss, and skips steps whose gradients overflow."
    ),
    HARDWARE,
]
TrainDevice = Annotated[DeviceName, HARDWARE]
NumWorkers = Annotated[int, NO_RECIPE, Field(ge=1, le=256, description="Threads that decode images."), HARDWARE]
