"""What the UNet of a lone file predicts, and whether its noise ends in pure noise: what the file's author says.

The original config beside it wins, as in A1111; then the empty tensors `v_pred` and `ztsnr`, then its metadata.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dreamloom.base.errors import UserError
from dreamloom.base.tables.documents import DocumentError, parse_yaml, read_text
from dreamloom.train.model.safetensors_header import read_metadata

_MAX_YAML_BYTES = 2**16
"""Stable Diffusion's are of 3 KB."""
_PARAMETERIZATIONS = {"v": "v_prediction", "eps": "epsilon"}
_SCALINGS = {"VScaling": "v_prediction", "EpsScaling": "epsilon"}
"""Class of Stability's generative-models that a config of Stable Diffusion XL names → what is predicted."""
_MODEL_SPEC = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon", "eps": "epsilon"}
_ARCHITECTURES = {"stable-diffusion-v2-768-v": "v_prediction", "stable-diffusion-v2-512": "epsilon"}


def read_prediction(file: Path, names: Iterable[str]) -> dict[str, Any]:
    """Reads what a file says of its prediction, as settings of a diffusers scheduler; empty where it says nothing.

    Args:
        file: the model.
        names: the names of its tensors.

    Raises:
        UserError: the .yaml beside it can't be read.
    """
    markers = {"v_pred", "ztsnr"}.intersection(names)
    marked = "v_prediction" if markers else None
    prediction_type = _from_yaml(file.with_suffix(".yaml")) or marked or _from_metadata(read_metadata(file))
    settings: dict[str, Any] = {"prediction_type": prediction_type} if prediction_type else {}
    if "ztsnr" in markers and prediction_type == "v_prediction":
        settings |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return settings


def _from_yaml(path: Path) -> str | None:
    """Reads `parameterization` of a config, without which that code predicts noise, or what XL's scales by."""
    if not path.is_file():
        return None
    try:
        content = parse_yaml(read_text(path, _MAX_YAML_BYTES)[0])
    except (OSError, DocumentError) as error:
        raise UserError(f"{path}, the config beside the model, can't be read ({error}); mend or move it.") from error
    params = _within(content, "model", "params")
    if "denoiser_config" not in params:
        return _PARAMETERIZATIONS.get(str(params.get("parameterization", "eps"))) if params else None
    scaling = str(_within(params, "denoiser_config", "params", "scaling_config").get("target"))
    return _SCALINGS.get(scaling.rpartition(".")[2])


def _within(content: object, *keys: str) -> dict[str, Any]:
    """Returns what lies under keys of keys; nothing where it is no mapping."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def _from_metadata(metadata: dict[str, str]) -> str | None:
    said = _MODEL_SPEC.get(metadata.get("modelspec.prediction_type", "").lower())
    return said or _ARCHITECTURES.get(metadata.get("modelspec.architecture", "").lower())
