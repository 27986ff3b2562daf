"""What the loaders of A1111 and Forge are given in place of the interface, and how what they have is compared.

Nothing of dreamloom is imported here.
"""

import importlib.abc
import importlib.machinery
import types
from collections.abc import Iterator
from typing import Any, ClassVar

ABSENT = (
    *("gradio", "gradio_client", "fastapi", "starlette", "uvicorn", "git", "blendmodes", "fontTools", "spandrel"),
    *("pillow_avif", "jsonmerge", "lark", "inflection", "resize_right", "skimage", "cleanfid", "dctorch", "wandb"),
    *("facexlib", "basicsr", "gfpgan", "clip", "gradio_rangeslider", "gradio_imageslider"),
)
"""Packages of the interface, of samplers and of upscalers, which loading does not need."""
THIRD, THIRD_AND_T5, HALF_MORE = (f"Stable Diffusion {name}" for name in ("3 medium", "3 medium, T5", "3.5 medium, T5"))
SMALL_CLIP = "small"
"""Name by which open_clip knows the second text encoder of the tiny model of Stable Diffusion XL."""


class _Nothing:
    """Whatever is asked of a package that is not there."""

    __all__: ClassVar[list[str]] = []

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __init_subclass__(cls, **_: Any) -> None: ...

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing()

    def __iter__(self) -> Iterator[Any]:
        return iter(())


class _AbsentModule(types.ModuleType):
    __all__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (_Nothing,), {}) if name[0].isupper() else _Nothing()


class AbsentPackages(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the packages that are left out."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        absent = name.split(".")[0] in ABSENT
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if absent else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _AbsentModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None: ...


def compare(wanted: dict[str, Any], file: dict[str, Any]) -> str:
    """Tells which tensors a model wants that its file has not, and the other way round."""
    constants = ("betas", "alphas_", "sqrt_", "log_one", "posterior_", "denoiser.sigmas", "model.model_sampling.")
    again = "text_encoders.model_"  # those of 3 stand there a second time
    missing = [key for key in wanted if key not in file and not key.startswith((*constants, again))]
    more = [key for key in file if key not in wanted]
    other = [key for key in wanted if key in file and wanted[key].shape != file[key].shape]
    counts = f"missing {len(missing)} {missing[:2]}, unexpected {len(more)} {more[:2]}, of other shapes {other[:2]}"
    return f"{len(file)} tensors, {counts}"


def difference(pairs: list[tuple[Any, Any]]) -> str:
    """Tells how far pairs of tensors lie apart, in the largest value of the second ones."""
    if not pairs:
        return "nothing to compare"
    worst = max(float((one - other).abs().max()) for one, other in pairs)
    return f"largest difference {worst / max(float(other.abs().max()) for _, other in pairs):.1e}"
