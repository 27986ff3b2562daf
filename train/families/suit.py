"""Settings that suit a base: what is not given follows from its family, and from what its files say."""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from dreamloom.base.errors import UserError
from dreamloom.base.stage import StageConfig
from dreamloom.train.config import TrainConfig
from dreamloom.train.families.check import check_base_model
from dreamloom.train.families.files import SINGLE_FILE_SUFFIXES, find_family, read_model_json
from dreamloom.train.model.family import Config, Family

AnyConfig = TypeVar("AnyConfig", bound=StageConfig)


def resolve_models(config: TrainConfig, may_download: bool = False) -> TrainConfig:
    """Returns the config with what the models on this machine say; hub ids stay as they are.

    Paths become absolute: a run is resumed and exported from any folder, and a relative path must never be taken for a
    hub id there. What is not given suits the base's family. A base of zero terminal SNR is trained with it.

    Args:
        config: as the user gave it.
        may_download: see dreamloom.train.model.names.check_name.

    Raises:
        UserError: other settings do not go with such a base, or there is none of this name.
    """
    if not Path(config.base).expanduser().exists():
        check_base_model(config.base, may_download)  # which sees to it that its family is known
    names = ("base", "vae", "likeness_clip")
    models = {name: Path(value).expanduser() for name in names if (value := getattr(config, name))}
    absolute: dict[str, str | Path] = {name: str(path.absolute()) for name, path in models.items() if path.exists()}
    for name in ("init_lora", "latent_cache", "sample_prompts_file"):
        if value := getattr(config, name):
            absolute[name] = value.expanduser().absolute()
    config = suit_family(config.model_copy(update=absolute), config.base)
    if config.zero_terminal_snr or not _has_zero_terminal_snr(config.base):
        return config
    given = config.model_dump(include=config.model_fields_set)
    try:
        return TrainConfig.model_validate({**given, "zero_terminal_snr": True})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"The noise schedule of {config.base} has zero terminal SNR: {reason}.") from error


def check_opened(config: TrainConfig, family: Family, denoiser: Config, vae: Config) -> None:
    """Checks that a run suits its base, now that it is open: before, nothing may have told the family, as of a .ckpt.

    Args:
        config: the run's.
        family: the base's.
        denoiser: the config of its denoiser.
        vae: the config of its VAE.

    Raises:
        UserError: a setting means nothing for the family, or its defaults were not known.
    """
    family.check(config, denoiser, vae)
    suited, given = _suit(config, family).model_dump(), config.model_dump()
    if unlike := {name: value for name, value in suited.items() if value != given[name]}:
        wanted = ", ".join(f"{name}: {'null' if value is None else value}" for name, value in unlike.items())
        raise UserError(
            f"{config.base} is {family.title}, which only the opened model told; start again if it was downloaded just "
            f"now, convert a .ckpt to safetensors, or set what suits it yourself: {wanted}."
        )


def suit_family(config: AnyConfig, base: str) -> AnyConfig:
    """Returns the config with the defaults of a base's family, as far as it has such fields and they were not given.

    Args:
        config: of training, of an evaluation, or another that draws or measures.
        base: the model.

    Raises:
        UserError: what was given does not go with these defaults.
    """
    family = find_family(base)
    return _suit(config, family) if family else config


def _suit(config: AnyConfig, family: Family) -> AnyConfig:
    given = config.model_dump(include=config.model_fields_set)
    defaults = {name: value for name, value in family.defaults(given).items() if name in type(config).model_fields}
    if not defaults:
        return config
    try:
        return type(config).model_validate({**defaults, **given})
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"The settings do not go with the defaults for {family.title}: {reason}.") from error


def _has_zero_terminal_snr(base: str) -> bool:
    is_local = Path(base).is_dir() or Path(base).suffix in SINGLE_FILE_SUFFIXES
    return is_local and bool(read_model_json(base, "scheduler", "scheduler_config.json").get("rescale_betas_zero_snr"))
