"""A Prefect flow for each kind of source in the registry.

The flow of a kind is an attribute of this module, so its entrypoint is `dreamloom.flows.ingest_flows.KIND`.
"""

from functools import cache
from pathlib import Path
from typing import Any

from prefect import Flow, flow

from dreamloom.flows.stage_flows import run_step
from dreamloom.flows.steps import IngestStep
from dreamloom.scrape.collection import Collection
from dreamloom.scrape.datasets import all_kinds


@cache
def ingest_flow(name: str) -> Flow[..., Any]:
    """Creates the flow `ingest-NAME`.

    Raises:
        KeyError: no kind of this name comes in by the stage `ingest`.
    """
    kind = {kind.name: kind for kind in all_kinds() if kind.stage == "ingest"}[name]

    def ingest(collection: Path, config: Any) -> Any:
        return run_step(IngestStep(Collection(collection), kind, config))

    ingest.__annotations__["config"] = kind.config
    return flow(name=f"ingest-{name}", flow_run_name="ingest {collection.name}", description=kind.help)(ingest)


def entrypoints() -> list[str]:
    """Returns the entrypoints of all kinds, as prefect.yaml names them."""
    return [f"{__name__}.{kind.name}" for kind in all_kinds() if kind.stage == "ingest"]


def __getattr__(name: str) -> Any:
    try:
        return ingest_flow(name)
    except KeyError:
        raise AttributeError(f"no kind of source is called {name}") from None
