"""The optimizers that a config can name. A new one is a file beside these, and a line in this one.

Importing the registry imports no torch, as configs take their choices from it.
"""

from collections.abc import Mapping

from dreamloom.train.optimizers.adafactor import ADAFACTOR
from dreamloom.train.optimizers.adamw import ADAMW
from dreamloom.train.optimizers.adamw8bit import ADAMW8BIT
from dreamloom.train.optimizers.dadapt_adam import DADAPT_ADAM
from dreamloom.train.optimizers.kind import OptimizerKind
from dreamloom.train.optimizers.lion import LION
from dreamloom.train.optimizers.lion8bit import LION8BIT
from dreamloom.train.optimizers.prodigy import PRODIGY
from dreamloom.train.optimizers.schedule_free import SCHEDULE_FREE

_KINDS = (
    ADAMW,
    ADAMW8BIT,
    ADAFACTOR,
    LION,
    LION8BIT,
    PRODIGY,
    DADAPT_ADAM,
    SCHEDULE_FREE,
)

OPTIMIZERS: Mapping[str, OptimizerKind] = {kind.name: kind for kind in _KINDS}
"""TrainConfig.optimizer → the optimizer."""


def estimates_rate(name: object) -> bool:
    """Tells whether there is an optimizer of this name that estimates its rate; the config's is a factor of it."""
    kind = OPTIMIZERS.get(str(name))
    return kind is not None and kind.estimates_rate


def describe_optimizers() -> str:
    """Returns what each is good for: "adafactor saves memory; prodigy estimates the learning rate"."""
    return "; ".join(f"{kind.name} {kind.help}" for kind in OPTIMIZERS.values() if kind.help)
