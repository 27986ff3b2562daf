"""Reads project.yaml: the sources, the settings of each stage, and the workspace."""

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator

from dreamloom.base.errors import UserError
from dreamloom.base.files.remote import address_of
from dreamloom.base.models.clip_config import ClipConfig
from dreamloom.base.stage import NO_RECIPE, PathKind, StageConfig
from dreamloom.base.versions import PROJECT
from dreamloom.caption.check import check as check_captioning
from dreamloom.caption.config import CaptionConfig
from dreamloom.curate import score
from dreamloom.curate.config import BalanceConfig, ChooseConfig, ScoreConfig
from dreamloom.curate.source import Role, Source
from dreamloom.flows.project.config_errors import dotted_key, error_lines, suggestion, unknown_keys
from dreamloom.flows.project.paths import missing_paths, with_absolute_paths
from dreamloom.flows.project.project_train import ProjectTrainConfig
from dreamloom.flows.project.ray_config import RayConfig
from dreamloom.flows.project.retention import RetentionConfig
from dreamloom.flows.project.schedule import ScheduleConfig
from dreamloom.flows.project.sources import AnySource
from dreamloom.flows.project.workspace import local_part, read_project_file
from dreamloom.scrape.collection import Collection
from dreamloom.scrape.datasets.folder import FolderConfig
from dreamloom.scrape.web.config import ScrapeConfig
from dreamloom.train.config import TrainConfig
from dreamloom.train.evaluate.config import EvaluateConfig
from dreamloom.train.export.config import ExportConfig
from dreamloom.train.families.check import check_models as check_training
from dreamloom.train.families.suit import suit_family

Stage = TypeVar("Stage", bound=StageConfig)

_log = logging.getLogger(__name__)


class Project(StageConfig):
    """The content of project.yaml. Each section is the config of the stage of that name."""

    version: str = Field(PROJECT.version, description="Version of the file's format; by default this release's.")
    name: str = Field(min_length=1, description="Name of the project in lists and logs.")
    workspace: Annotated[Path, PathKind.OUTPUT] = Field(
        description="Folder for everything that is made. An address, such as s3://bucket/own, is short for store: "
        "s3://bucket/own and workspace: own."
    )
    store: str | None = Field(
        None,
        pattern=r"^[a-z][a-z0-9+.-]+://.*[^/]$",
        description="Address of the collections and the training set, such as s3://bucket/own; runs, the model and "
        "the report stay in the workspace. null: all is there.",
    )
    sources: dict[str, AnySource] = Field(min_length=1, description="Where images come from: name → source.")
    scrape: ScrapeConfig = Field(ScrapeConfig(), description="How images are downloaded.")
    score: ScoreConfig | None = Field(None, description="How images are scored; null: not at all.")
    choose: ChooseConfig = Field(ChooseConfig(), description="Which images go on.")
    caption: CaptionConfig = Field(CaptionConfig(), description="Which captions are kept, and how others are written.")
    balance: BalanceConfig = Field(BalanceConfig(), description="How much ground truth is mixed in.")
    train: ProjectTrainConfig = Field(ProjectTrainConfig(), description="How the model is trained.")
    evaluate: EvaluateConfig | None = Field(
        None, description="A further evaluation after training, with other settings; null: only that of training."
    )
    export: ExportConfig = Field(ExportConfig(), description="In which formats the model is written.")
    retention: RetentionConfig = Field(RetentionConfig(), description="How long `dreamloom clean` keeps things.")
    schedule: ScheduleConfig | None = Field(None, description="When `dreamloom up` runs the chain; null: by hand only.")
    notify: Annotated[str | None, NO_RECIPE] = Field(
        None,
        pattern="^https?://",
        description='Web hook that `dreamloom up` has a failed run told to, as {"text": …}; null: nobody is told.',
    )

    engine: Literal["local", "ray"] = Field(
        "local", description="What makes the parts of filter, ingest, scrape, score and caption: this process, or Ray."
    )
    ray: RayConfig = Field(RayConfig(), description="Where Ray runs, with engine: ray, and what each worker gets.")
    keep_runs: int | None = Field(
        None,
        ge=1,
        description="Finished training runs to keep, the newest; older ones on which nothing hangs are removed after a "
        "run. null: all.",
    )

    @model_validator(mode="before")
    @classmethod
    def _workspace_in_a_store(cls, content: Any) -> Any:
        workspace = content.get("workspace") if isinstance(content, dict) else None
        if not isinstance(workspace, str | Path) or not (address := address_of(workspace)):
            return content
        if content.get("store") not in (None, address):
            raise ValueError("workspace and store are two addresses; name a folder as workspace")
        return {**content, "workspace": local_part(workspace), "store": address}

    @field_validator("version", mode="before")
    @classmethod
    def _number_or_text(cls, version: Any) -> Any:
        return str(version) if isinstance(version, int | float) else version

    @field_validator("sources")
    @classmethod
    def _names_are_folders(cls, sources: dict[str, AnySource]) -> dict[str, AnySource]:
        for name in sources:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}", name) or name != name.rstrip(" ."):
                raise ValueError(
                    f"{name!r} names a folder, so it may have the letters a to z, digits, spaces, dots, dashes and "
                    "underscores only, at most 64, and begins with a letter or digit"
                )
        if len({name.lower() for name in sources}) < len(sources):
            raise ValueError("two names differ in capitals only, which is one folder on many systems")
        if not any(source.role is Role.TRAINING for source in sources.values()):
            raise ValueError("none has role: training, so there is nothing to learn")
        return sources

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        if self.choose.min_aesthetic is not None and (self.score is None or self.score.aesthetic_head is None):
            raise ValueError("choose.min_aesthetic: needs aesthetic scores; set score.aesthetic_head, or leave it out")
        if self.choose.min_similarity is not None and self.score is None:
            raise ValueError("choose.min_similarity: needs scores; write a score section, or leave it out")
        train = self.train
        if self.balance.ratio == "auto" and train.limit_mean is None and train.limit_worst is None:
            raise ValueError("balance.ratio: auto holds a limit; set train.limit_mean or train.limit_worst")
        if self.balance.ratio == "auto" and train.evaluate_every_n_steps == 0:
            raise ValueError("balance.ratio: auto is decided at evaluations; set train.evaluate_every_n_steps")
        if self.evaluate is not None and self.balance.held_out == 0:
            raise ValueError("evaluate: needs images to measure by; raise balance.held_out, or leave it out")
        for name in self.caption.templates.keys() - self.sources.keys():
            raise ValueError(
                f"caption.templates.{name}: there is no such source; {suggestion(name, list(self.sources))}"
            )
        return self

    def collection(self, name: str) -> Collection:
        """Returns the collection of a source.

        Raises:
            UserError: the project has no source of this name.
        """
        if name not in self.sources:
            raise UserError(f"{self.name} has no source {name}; {suggestion(name, list(self.sources))}")
        return Collection(f"{self.store or self.workspace}/collections/{name}")

    def sources_of(self, role: Role) -> list[str]:
        """Returns the names of the sources of a role."""
        return [name for name, source in self.sources.items() if source.role is role]

    def caption_config(self, source: str) -> CaptionConfig:
        """Returns the caption section for one source, with its own edits and, unless it names a CLIP, with score's."""
        clip, templates = self.caption.clip, self.caption.templates
        if self.score is not None and "model" not in clip.model_fields_set:
            inherited = ClipConfig.model_fields.keys() - clip.model_fields_set
            clip = clip.model_copy(update={name: getattr(self.score, name) for name in sorted(inherited)})
        templates = {source: templates[source]} if source in templates else {}
        edit = self.sources[source].edit or self.caption.edit
        return self.caption.model_copy(update={"clip": clip, "templates": templates, "edit": edit})

    def choose_config(self) -> ChooseConfig:
        """Returns the choose section, for the resolution of train where it gives none."""
        names = {"resolution", "folder_resolutions", "bucket_reso_steps", "upscale"}
        fields = names - self.choose.model_fields_set
        train = suit_family(self.train, self.train.base)
        return self.choose.model_copy(update={name: getattr(train, name) for name in fields})

    def train_config(self) -> TrainConfig:
        """Returns the train section, as it suits the base's family.

        It gets the sources of ground truth where it needs them and names none.
        """
        train = suit_family(self.train, self.train.base)
        auto_ratio = train.auto_ratio or self.balance.ratio == "auto"
        if not (train.prior_prediction or auto_ratio or train.ground_truth_ratio is not None):
            return train
        names = train.ground_truth or self.sources_of(Role.GROUND_TRUTH)
        known = {"auto_ratio": auto_ratio, "ground_truth": names}
        return train.model_copy(update=known)

    def all_sources(self) -> list[Source]:
        """Returns the sources with their roles, as choose and balance take them."""
        return [Source(self.collection(n), s.role, s.share, s.multiply) for n, s in self.sources.items()]


def load_project(path: Path | str) -> Project:
    """Reads a project.yaml. Relative paths in it are relative to its folder.

    Keys that a newer minor version of the format added are ignored, with a warning.

    Args:
        path: the file, or its folder.

    Raises:
        UserError: the file can't be read, or keys are wrong; a line for each key, as it is written in the file.
    """
    path = Path(path)
    file = path / "project.yaml" if path.is_dir() else path
    content = read_project_file(file)
    version = PROJECT.check(content.get("version", PROJECT.version), file)
    try:
        project = _validate(content, version, file)
    except ValidationError as error:
        lines = [*_too_new(version), *error_lines(error, Project)]
        raise UserError("\n".join(f"{file}: {line}" for line in lines)) from None
    project = with_absolute_paths(project, file.absolute().parent)
    if project.workspace.exists() and not project.workspace.is_dir():
        raise UserError(f"{file}: workspace: {project.workspace} is a file; name a folder.")
    errors = list(missing_paths(project)) or [*_same_folders(project), *dict.fromkeys(model_errors(project))]
    if errors:
        raise UserError("\n".join(f"{file}: {line}" for line in errors))
    return project


def _same_folders(project: Project) -> Iterator[str]:
    """Yields a sentence for each folder that is another source's, too, or that takes in what is made.

    Of one source twice, all images would be copies; and ingest itself sees where a folder holds its collection.
    """
    seen: dict[Path, str] = {}
    for name, source in project.sources.items():
        if isinstance(source, FolderConfig):
            first = seen.setdefault(source.path.resolve(), name)
            if first != name:
                yield f"sources.{name}.path: {source.path} is the folder of {first}, too; name another one"
            if project.store is not None and project.workspace.resolve().is_relative_to(source.path.resolve()):
                yield (
                    f"sources.{name}.path: {source.path} holds {project.workspace}, in which runs and the model are "
                    f"written; write store: {project.store}, and workspace: with another folder"
                )


def _validate(content: dict[str, Any], version: str, file: Path) -> Project:
    """Validates a project; of a newer minor version, keys that this release does not know are left out, with a warning.

    Raises:
        ValidationError: a value is wrong, or a key that the file's version does not have.
    """
    try:
        return Project.model_validate(content)
    except ValidationError as error:
        unknown = unknown_keys(error, Project)
        if not PROJECT.is_newer(version) or len(unknown) < error.error_count():
            raise
    for key in unknown:
        section: Any = content
        for element in key[:-1]:
            section = section[element]
        del section[key[-1]]
        _log.warning("%s: %s is ignored: it is of version %s of the format.", file, dotted_key(key), version)
    return Project.model_validate(content)


def _too_new(version: str) -> list[str]:
    """What may be why a key is not known."""
    if not PROJECT.is_newer(version):
        return []
    return [f"it is written for version {version} of the format, and this dreamloom knows {PROJECT.version}."]


def model_errors(project: Project) -> Iterator[str]:
    """Yields what the stages reject about the models in their configs. Does not import torch."""
    if project.score is not None:
        yield from _rejection("score", score.check, project.score)
    for source in project.sources:
        yield from _rejection("caption", check_captioning, project.caption_config(source))
    yield from _own_outputs(project)
    yield from _rejection("train", check_training, project.train)


def _own_outputs(project: Project) -> Iterator[str]:
    """Yields a sentence for each model to train from that the project itself makes, so that each run made another."""
    made = [(project.workspace / name).resolve() for name in ("model", "runs")]
    for name in ("base", "vae", "init_lora"):
        value = getattr(project.train, name)
        if value is not None and any(Path(value).expanduser().resolve().is_relative_to(folder) for folder in made):
            yield (
                f"train.{name}: {value} is this project's own output, so every run would train on its own result, and "
                "measure what is forgotten against it. To train longer, use `dreamloom continue RUN --epochs N` "
                f"(`dreamloom runs {project.workspace}` lists them); to build on this model, name another workspace."
            )


def _rejection(section: str, check: Callable[[Stage], None], config: Stage) -> Iterator[str]:
    try:
        check(config)
    except UserError as error:
        yield f"{section}: {error}"
