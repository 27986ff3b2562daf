"""`dreamloom ingest KIND`: a command for each kind of source in the registry."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App

from dreamloom.base.stage import PathKind
from dreamloom.flows.chain.steps import IngestStep
from dreamloom.flows.commands.step_command import FLAGS, RAY, collection_at, run_step
from dreamloom.flows.project.ray_config import RayConfig
from dreamloom.flows.terminal.help_pages import HelpPage
from dreamloom.scrape.datasets import all_kinds
from dreamloom.scrape.datasets.source_kind import SourceKind


def make_app() -> App:
    """Creates `dreamloom ingest` with a command for each kind whose images `ingest` brings in."""
    kinds = [kind for kind in all_kinds() if kind.stage == "ingest"]
    app = App(help_formatter=HelpPage(), name="ingest", help="Bring in a folder of images, or a dataset.")
    for kind in kinds:
        app.command(_command(kind), name=kind.name, help_formatter=HelpPage(kind.config))
    return app


def _command(kind: SourceKind[Any]) -> Callable[..., None]:
    def ingest(
        collection: Annotated[Path, PathKind.ADDRESS], *, ray: Annotated[RayConfig | None, RAY] = None, config: Any
    ) -> None:
        run_step(IngestStep(collection_at(collection), kind, config, ray=ray))

    ingest.__annotations__["config"] = Annotated[kind.config, FLAGS]
    collection = "Folder of the collection to fill, or its address (s3://bucket/people)."
    ingest.__doc__ = f"{kind.help}\n\nParameters\n----------\ncollection\n    {collection}\n"
    return ingest


app = make_app()
