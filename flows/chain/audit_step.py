"""An audit as a step; see dreamloom.flows.chain.steps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from dreamloom.base.progress import Progress
from dreamloom.flows.chain.steps import Outcome, Step
from dreamloom.flows.terminal.terminal import duration, indented, rows_table
from dreamloom.train.audit.audit import RESULTS, audit, check_output
from dreamloom.train.audit.config import AuditConfig
from dreamloom.train.audit.results import read_audit

SHOWN = 20
"""Most rows of a table in the terminal; audit.json and the page have all."""


@dataclass(frozen=True)
class AuditStep(Step):
    """Compares two models, concept by concept."""

    model: str
    base: str
    output: Path
    class_images: Path | None
    config: AuditConfig
    stage = "audit"

    def run(self, progress: Progress, parts: Sequence[str] | None = None) -> Outcome:
        """Measures what is not measured yet, and writes the results."""
        found = audit(self.model, self.base, self.output, self.config, self.class_images, progress)
        deeper = [f"{what}: about {duration(seconds)} more" for what, seconds in found.deeper.items()]
        notes = [f"{self.output / 'index.html'} shows it; {self.output / RESULTS} has the numbers", *deeper]
        return Outcome(f"{'audit':<21}{found.verdict}{''.join(map(indented, notes))}", changed=True)

    def tables(self) -> Iterator[Table]:
        """Yields what was found, the worst first."""
        found = read_audit(self.output / RESULTS)
        assert found is not None
        titles = {"Zero-shot accuracy, the least of the margin left first": found.class_rows()}
        titles["Drift, the greatest first; 1 is as far as another prompt is"] = found.drift_rows()
        titles["Means, which hide what single concepts lost"] = found.mean_rows()
        for title, rows in titles.items():
            if rows:
                yield rows_table(title, rows[:SHOWN])

    @property
    def log_folder(self) -> Path:
        """In the audit's folder."""
        check_output(self.output)
        return self.output / "logs"
