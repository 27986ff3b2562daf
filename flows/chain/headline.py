"""What came of a run, in a line."""

from collections.abc import Sequence

from dreamloom.flows.chain.steps import Outcome
from dreamloom.train.evaluate.measure import Evaluation


def headline(outcomes: Sequence[Outcome], evaluation: Evaluation | None) -> str:
    """Returns "learned 60.7 %, forgotten 2.1 %, worst: cross 6 %", or the last outcome where nothing was measured.

    Args:
        outcomes: of all steps.
        evaluation: of the model that the run made, or found made already.
    """
    measured = _measured(evaluation) if evaluation is not None else ""
    if not any(outcome.changed for outcome in outcomes):
        return f"nothing to do; {measured}" if measured else "nothing to do"
    return measured or " ".join(outcomes[-1].message.split())


def _measured(evaluation: Evaluation) -> str:
    texts = [f"{name} {100 * measure.change:.1f} %" for name, measure in evaluation.measures().items()]
    if evaluation.worst is not None:
        texts.append(f"worst: {evaluation.worst.name} {100 * evaluation.worst.change:.0f} %")
    return ", ".join(texts)
