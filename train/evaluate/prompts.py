"""Sample prompts: sd-scripts' lines and TOML, and EveryDream 2's sample_prompts.json. Imports no torch."""

import logging
import math
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from dreamloom.base.errors import UserError
from dreamloom.base.tables.documents import DocumentError, parse_json, read_text
from dreamloom.base.text import without_surrogates
from dreamloom.train.config import TrainConfig
from dreamloom.train.samplers import SAMPLERS

_log = logging.getLogger(__name__)

_Text = Annotated[str, AfterValidator(without_surrogates)]
_Guidance = Annotated[float, Field(ge=0, le=100)]
_Side = Annotated[int, Field(ge=8, le=4096)]
_Steps = Annotated[int, Field(ge=1, le=1000)]


class SamplePrompt(BaseModel):
    """A prompt, and how it is drawn; what is None is as the config says."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    prompt: _Text = ""
    negative_prompt: _Text | None = None
    seed: int | None = Field(None, ge=-1)
    """None: the noise of its place among the prompts; -1: another each time samples are drawn."""
    size: tuple[_Side, _Side] | None = None
    """Width and height."""
    num_inference_steps: _Steps | None = None
    cfgs: list[_Guidance] | None = Field(None, min_length=1, max_length=16)
    """Guidance scales, an image for each."""
    scheduler: str | None = None
    random_caption: bool = False
    """Whether a caption of the training folder takes the place of the prompt, another each time."""


class _JsonPrompt(SamplePrompt):
    """An entry of a JSON file, also with sd-scripts' keys."""

    aspect_ratio: float | None = Field(None, gt=0.1, lt=10)
    width: _Side | None = None
    height: _Side | None = None
    sample_steps: _Steps | None = None
    scale: _Guidance | None = None
    sample_sampler: str | None = None


class _JsonFile(BaseModel):
    """EveryDream 2's sample_prompts.json. How often and how samples are drawn, dreamloom's own settings say."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, defer_build=True)

    samples: list[str | _JsonPrompt]
    seed: int | None = Field(None, ge=-1)
    cfgs: list[_Guidance] | None = Field(None, min_length=1, max_length=16)
    scheduler: str | None = None
    num_inference_steps: _Steps | None = None
    resolution: _Side | None = None
    batch_size: Any = None
    show_progress_bars: Any = None
    generate_pretrain_samples: Any = None
    generate_samples_every_n_steps: Any = None


_OPTIONS = {
    "n": "negative_prompt",
    "w": "width",
    "h": "height",
    "d": "seed",
    "s": "num_inference_steps",
    "l": "cfgs",
    "ss": "scheduler",
}
"""Option of a line, as sd-scripts has it → what it sets."""


def configured_prompts(config: TrainConfig) -> list[SamplePrompt]:
    """Returns the prompts of the config and, as it is now, of its file, which may be in the making."""
    prompts = [parse_line(line, config) for line in config.sample_prompts]
    if config.sample_prompts_file is not None:
        try:
            prompts += read_prompts(config.sample_prompts_file, config)
        except UserError as error:
            _log.warning("%s Samples are drawn without it.", error)
    return prompts


def check_prompts(config: TrainConfig) -> None:
    """Checks the prompts of the config and of its file.

    Raises:
        UserError: one can't be read.
    """
    for line in config.sample_prompts:
        try:
            parse_line(line, config)
        except ValueError as error:
            raise UserError(f"sample_prompts: {line!r}: {_sentence(error)}.") from error
    if config.sample_prompts_file is not None:
        read_prompts(config.sample_prompts_file, config)


def read_prompts(file: Path, config: TrainConfig) -> list[SamplePrompt]:
    """Reads a file of prompts in any encoding: a .json or sd-scripts' .toml, or one prompt a line, # being a comment.

    Raises:
        UserError: it can't be read.
    """
    try:
        text, _ = read_text(file.expanduser())
        if file.suffix.lower() == ".json":
            return _parse_json(parse_json(text), config)
        if file.suffix.lower() == ".toml":
            return _parse_json(_entries(tomllib.loads(text)), config)
        lines = [line.strip() for line in text.splitlines()]
        return [parse_line(line, config) for line in lines if line and not line.startswith("#")]
    except (OSError, DocumentError, ValueError, RecursionError) as error:
        raise UserError(f"sample_prompts_file {file} can't be read ({_sentence(error)}); mend it.") from error


def parse_line(line: str, config: TrainConfig) -> SamplePrompt:
    """Parses a line such as "a red car --n blurry --w 640 --h 384 --d 7 --s 25 --l 7.5", as sd-scripts does.

    Raises:
        ValueError: an option is unknown, or its value is wrong.
    """
    prompt, *options = re.split(r"(?:^|\s)--(?=[A-Za-z])", line.strip())
    given: dict[str, Any] = {"prompt": prompt.strip()}
    for option in options:
        name, *value = option.split(None, 1)
        if name.lower() not in _OPTIONS:
            raise ValueError(f"--{name} is no option of a prompt; those are --{', --'.join(_OPTIONS)}")
        if not value:
            raise ValueError(f"--{name} has no value")
        given[_OPTIONS[name.lower()]] = value[0].strip()
    if "cfgs" in given:
        given["cfgs"] = given["cfgs"].split(",")
    return _complete(_JsonPrompt.model_validate(given), config.resolution, config)


def _entries(content: dict[str, Any]) -> list[Any]:
    """Returns the prompts of sd-scripts' TOML: the tables prompt.subset, each with what stands in prompt."""
    prompt = content.get("prompt")
    shared: dict[str, Any] = prompt if isinstance(prompt, dict) else {}
    subsets = shared.pop("subset", None)
    if not isinstance(subsets, list) or not all(isinstance(subset, dict) for subset in subsets):
        raise ValueError("it has no tables [[prompt.subset]]")
    return [{**shared, **subset} for subset in subsets]


def _parse_json(content: Any, config: TrainConfig) -> list[SamplePrompt]:
    file = _JsonFile.model_validate(content if isinstance(content, dict) else {"samples": content})
    shared = file.model_dump(include={"seed", "cfgs", "scheduler", "num_inference_steps"})
    side = file.resolution or config.resolution
    prompts = []
    for entry in file.samples:
        prompt = parse_line(entry, config) if isinstance(entry, str) else _complete(entry, side, config)
        missing = {name: value for name, value in shared.items() if getattr(prompt, name) is None}
        if file.resolution and prompt.size is None:
            missing["size"] = (side, side)
        prompts.append(SamplePrompt.model_validate(prompt.model_dump() | missing))
    return [_checked(prompt) for prompt in prompts]


def _complete(entry: _JsonPrompt, side: int, config: TrainConfig) -> SamplePrompt:
    """Brings all ways to say a thing to one."""
    size = entry.size
    if entry.width or entry.height:
        size = (entry.width or side, entry.height or side)
    elif size is None and entry.aspect_ratio:
        size = _size_of(entry.aspect_ratio, side, config.bucket_reso_steps)
    return _checked(
        SamplePrompt(
            prompt=entry.prompt,
            negative_prompt=entry.negative_prompt,
            seed=entry.seed,
            size=size,
            num_inference_steps=entry.num_inference_steps or entry.sample_steps,
            cfgs=entry.cfgs if entry.scale is None else [entry.scale],
            scheduler=entry.scheduler or entry.sample_sampler,
            random_caption=entry.random_caption,
        )
    )


def _checked(prompt: SamplePrompt) -> SamplePrompt:
    if prompt.scheduler is not None and prompt.scheduler not in SAMPLERS:
        raise ValueError(f"there is no scheduler {prompt.scheduler}; choose of {', '.join(SAMPLERS)}")
    return prompt


def _size_of(aspect_ratio: float, side: int, step: int) -> tuple[int, int]:
    """Returns width and height of about the square's area with this ratio, in whole steps."""
    width, height = side * math.sqrt(aspect_ratio), side / math.sqrt(aspect_ratio)
    return max(step, round(width / step) * step), max(step, round(height / step) * step)


def _sentence(error: Exception) -> str:
    if isinstance(error, ValidationError):
        last = error.errors()[-1]  # the first ones say that an object is no line
        return f"{'.'.join(map(str, last['loc']))}: {last['msg']}"
    return str(error)
