"""The headline of a run, as the dashboard shows it beside its state."""

from dreamloom.flows.chain.headline import headline
from dreamloom.flows.chain.steps import Outcome
from dreamloom.train.evaluate.measure import Evaluation, GroupMeasure, Measure

WORST = GroupMeasure("ground_truth", "concept", "cross", 12, 0.06, 0.02, 0.1, 0.05)
EVALUATION = Evaluation(
    Measure(0.607, 0.02, 1.0, 0.393, 12), Measure(0.021, 0.01, 1.0, 1.021, 64), {}, {}, groups=(WORST,)
)
DONE, THERE = Outcome("export   model; 3 MB\n  a note", changed=True), Outcome("export   there already", changed=False)


def test_a_run_says_what_was_learned_and_forgotten_and_the_worst() -> None:
    measured = "learned 60.7 %, forgotten 2.1 %, worst: cross 6 %"
    assert headline([THERE, DONE], EVALUATION) == measured
    assert headline([THERE], EVALUATION) == f"nothing to do; {measured}"


def test_without_a_measurement_the_last_outcome_is_told_in_a_line() -> None:
    assert headline([THERE, DONE], None) == "export model; 3 MB a note"
    assert headline([THERE], None) == "nothing to do"
