"""The sources of a project.yaml: the keys of each kind, from the registry, and those that all kinds share."""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import Field, create_model, model_validator

from dreamloom.base.stage import StageConfig
from dreamloom.caption.config import EditConfig
from dreamloom.curate.source import Role
from dreamloom.scrape.datasets import all_kinds, get_kind
from dreamloom.scrape.datasets.source_kind import SourceKind


class SourceConfig(StageConfig):
    """The keys that sources of all kinds share."""

    kind: str
    role: Role = Field(
        description="training: what the model is to learn; ground_truth: what it is to keep; witness: what "
        "it is never trained on, to measure what becomes of what is not rehearsed."
    )
    share: float = Field(1.0, gt=0, description="Ground truth only: its weight relative to the other sources.")
    multiply: float = Field(1.0, gt=0, le=10_000, description="Training images only: how often an epoch shows each.")
    edit: EditConfig | None = Field(
        None, description="How this source's captions are edited; null: as the caption section says."
    )

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        if self.role is Role.TRAINING and "share" in self.model_fields_set:
            raise ValueError("share is for ground truth; use multiply to set how often training images are shown")
        if self.role is Role.GROUND_TRUTH and "multiply" in self.model_fields_set:
            raise ValueError("multiply is for training images; use share to set how much ground truth is shown")
        if self.role is Role.WITNESS and {"share", "multiply"} & self.model_fields_set:
            raise ValueError("a witness is never trained on; leave share and multiply out")
        return self


def source_model(kind: SourceKind[Any]) -> type[SourceConfig]:
    """Creates the model of a kind's sources: the fields of the kind's config and those of SourceConfig."""
    tag: dict[str, Any] = {"kind": (Literal[kind.name], Field(description=kind.help))}
    bases = (kind.config, SourceConfig)
    name = f"{kind.name.capitalize()}Source"
    return cast(type[SourceConfig], create_model(name, __base__=bases, __module__=__name__, __doc__=kind.help, **tag))


if TYPE_CHECKING:
    AnySource = SourceConfig  # a union that is made when the program runs is nothing that mypy could check
else:
    AnySource = Annotated[reduce(or_, map(source_model, all_kinds())), Field(discriminator="kind")]


def kind_of(source: SourceConfig) -> SourceKind[Any]:
    """Returns the kind of a source."""
    return get_kind(source.kind)


def kind_config(source: SourceConfig) -> StageConfig:
    """Returns the config of a source's kind, such as FolderConfig, without the keys that only a project has."""
    config: type[StageConfig] = kind_of(source).config
    values = {name: getattr(source, name) for name in config.model_fields}
    return config.model_construct(**values)  # the source has validated them
