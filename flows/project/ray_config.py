"""How stages run on Ray: the config of the section `ray`."""

from typing import Annotated

from pydantic import Field

from dreamloom.base.stage import NO_RECIPE, StageConfig


class RayConfig(StageConfig):
    """Where Ray runs, and what it gives each worker, which is a process that makes parts of a stage."""

    address: Annotated[str | None, NO_RECIPE] = Field(
        None,
        description="Address of the cluster's head, such as auto or 10.0.0.1:6379; null: what RAY_ADDRESS says, else "
        "this machine alone, on which nothing need be set up.",
    )
    num_workers: Annotated[int, NO_RECIPE] = Field(
        0, ge=0, description="Workers of a stage at most; 0: as many as the cluster has room for when it begins."
    )
    num_cpus: Annotated[float, NO_RECIPE] = Field(1.0, gt=0, description="CPU cores that each worker asks for.")
    num_gpus: Annotated[float, NO_RECIPE] = Field(
        0.0,
        ge=0,
        description="GPUs that each worker of score and caption asks for; 0.25 puts four on one. 0: their models run "
        "on the CPU.",
    )
    resources: Annotated[dict[str, float], NO_RECIPE] = Field(
        {}, description="What else each worker asks for, as the cluster names it."
    )
    max_restarts: Annotated[int, NO_RECIPE] = Field(
        3, ge=0, description="How often a worker that died, or whose machine did, is started again."
    )
