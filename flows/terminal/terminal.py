"""Prints to the terminal: progress, outcomes and tables."""

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from dreamloom.base.files.listing import left_out_note
from dreamloom.base.progress import Progress
from dreamloom.base.stage import Summary, reasons
from dreamloom.base.text import printable

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

QUIET_SECONDS = 2.0
"""Shorter work shows no progress."""
RATE_SECONDS = 30.0
"""Rates and the time left are those of so many seconds: the machine may be slower now than an hour ago."""
LINE_SECONDS = 5.0
"""Seconds between two lines of progress where stderr is no terminal."""


class Terminal:
    """Shows the progress of any number of threads on stderr, as bars in a terminal and as lines elsewhere.

    Use it as a context: its bars are removed at the end. Text printed to stdout meanwhile appears above them.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._guard = threading.Lock()
        self._bars: Bars | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._guard:
            if self._bars is not None:
                self._bars.stop()
                self._bars = None

    @contextlib.contextmanager
    def watch(self, title: str) -> Iterator[Progress]:
        """Yields the progress of one task; its bar is removed when the block ends."""
        task = _Task(self, title)
        try:
            yield task
        finally:
            if task.bar is not None:
                self._remove(task.bar)

    def draw(self, task: "_Task", done: int, total: int | None, note: str) -> None:
        """Updates the bar of a task, or prints a line about it."""
        if not self._console.is_terminal:
            print(_line(task.title, done, total, task.rate(), note), file=sys.stderr, flush=True)
            return
        with self._guard:
            if self._bars is None:
                self._bars = self._start()
            if task.bar is None:
                task.bar = self._bars.add_task(task.title, total=total, count="", rate="", left="", note="")
            rate = f"{task.rate():,.1f}/s" if task.rate() else ""
            count = f"{done:,}" if total is None else f"{done:,}/{total:,}"
            left = _left(done, total, task.rate())
            self._bars.update(task.bar, completed=done, total=total, count=count, rate=rate, left=left, note=note)

    def seconds_between(self) -> float:
        """Returns the minimum seconds between two updates of a task."""
        return 0.2 if self._console.is_terminal else LINE_SECONDS

    def _start(self) -> "Bars":
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        note = Column(ratio=1, no_wrap=True, overflow="ellipsis")  # the column that is cut in a narrow terminal
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[note]}", style="dim", table_column=note),
        )
        to_stdout = sys.stdout.isatty()
        bars = Bars(*columns, console=self._console, transient=True, redirect_stdout=to_stdout, expand=True)
        bars.start()
        return bars

    def _remove(self, bar: "TaskID") -> None:
        with self._guard:
            if self._bars is None:
                return
            self._bars.remove_task(bar)
            if not self._bars.tasks:
                self._bars.stop()
                self._bars = None


class _Task:
    """A task whose progress is shown: when it was last drawn, and its rate."""

    def __init__(self, terminal: Terminal, title: str) -> None:
        self.title = title
        self.bar: TaskID | None = None
        self._terminal = terminal
        self._drawn = time.monotonic() + QUIET_SECONDS - terminal.seconds_between()
        self._total: int | None = None
        self._samples: deque[tuple[float, int]] = deque()  # of this phase: time, done

    def __call__(self, done: int, total: int | None, note: str = "") -> None:
        now = time.monotonic()
        self._sample(now, done, total)
        if now - self._drawn >= self._terminal.seconds_between():
            self._drawn = now
            self._terminal.draw(self, done, total, note)

    def rate(self) -> float:
        """Returns the units per second of this phase in the last RATE_SECONDS; 0 in its first tenth of a second."""
        (began, before), (now, done) = self._samples[0], self._samples[-1]
        seconds = now - began
        return (done - before) / seconds if seconds > 0.1 else 0.0

    def _sample(self, now: float, done: int, total: int | None) -> None:
        """Notes how far the task is, about once in a second, and forgets what is older than RATE_SECONDS."""
        if not self._samples or total != self._total or done < self._samples[-1][1]:  # a new phase of the task
            self._samples.clear()
            self._total = total
        elif len(self._samples) > 1 and now - self._samples[-2][0] < 1:
            self._samples.pop()
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[1][0] >= RATE_SECONDS:
            self._samples.popleft()


def duration(seconds: float) -> str:
    """Returns a duration as people say it: "0.4 s", "12 s", "3 min 20 s", "2 h 05 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """Returns a number of bytes as people say it: "312 B", "4.2 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def indented(note: str) -> str:
    """Returns a note as an indented line of its own; an empty note as nothing."""
    return f"\n  {note}" if note else ""


def stage_line(stage: str, source: str, summary: Summary) -> str:
    """Returns one line about what a stage did, or that there was nothing to do."""
    if summary.parts_before and not summary.parts_done:
        cost = "there already"
    else:
        cost = duration(summary.seconds)
        if summary.bytes_written:
            cost += f", {size(summary.bytes_written)}"
    num_dropped = sum(summary.dropped.values())
    dropped = f", {num_dropped:,} dropped ({reasons(summary.dropped)})" if num_dropped else ""
    marked = f", of which {reasons(summary.marked)}" if summary.marked else ""
    line = f"{stage:<9}{source:<12}{summary.rows:>9,} in {summary.kept:>9,} kept{marked}{dropped}; {cost}"
    return line + indented(left_out_note(summary.left_out) or "")


def funnel_table(funnel: Mapping[str, Mapping[str, Summary]]) -> Table:
    """Returns a table of the rows that each stage kept, a line per source, with the dropped ones below each number.

    Args:
        funnel: source → stage → summary.
    """
    longest_first = sorted(funnel.values(), key=len, reverse=True)  # the longest has all stages, in the right order
    stages = list(dict.fromkeys(stage for summaries in longest_first for stage in summaries))
    table = Table(title="Where the images went", title_justify="left", show_lines=True)
    table.add_column("source")
    for stage in stages:
        table.add_column(stage, justify="right")
    for source, summaries in funnel.items():
        table.add_row(source, *(_cell(summaries.get(stage)) for stage in stages))
    return table


def rows_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Returns a table of rows with equal keys.

    Numbers are right-aligned, None is an empty cell, and each text of a list has a line of its own.
    """
    table = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ():
        is_number = any(isinstance(row[name], int | float) for row in rows)
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
    return table


def rules_rows(summary: Summary) -> list[dict[str, Any]]:
    """Returns a row for each rule of a filter, in the order of their application: rows dropped and rows left."""
    remaining = summary.rows
    rows: list[dict[str, Any]] = [{"rule": "rows of the index", "drops": None, "leaves": remaining}]
    for reason, count in summary.dropped.items():
        remaining -= count
        rows.append({"rule": reason, "drops": count, "leaves": remaining})
    return rows


def print_line(line: str) -> None:
    """Prints a line to stdout; lines of several threads do not mix."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def print_table(table: Table) -> None:
    """Prints a table to stdout, as wide as the terminal, or 120 columns wide elsewhere."""
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _cell(summary: Summary | None) -> str:
    if summary is None:
        return ""
    drops = sorted(summary.dropped.items(), key=lambda i: (-i[1], i[0]))
    lines = [f"{count:,} {mark}" for mark, count in summary.marked.items() if count]
    lines += [f"-{count:,} {reason}" for reason, count in drops if count]
    return "\n".join([f"{summary.kept:,}", *(f"[dim]{line}[/dim]" for line in lines)])


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
    if isinstance(value, list):
        return "\n".join(map(_text, value))
    return escape(printable(str(value)))  # escaped, as rich takes brackets for markup


def _line(title: str, done: int, total: int | None, rate: float, note: str) -> str:
    text = f"{title}: {done:,}"
    if total:
        text += f" of {total:,} ({100 * done / total:.0f} %)"
    if rate:
        text += f", {rate:,.1f}/s"
    return ", ".join(filter(None, (text, _left(done, total, rate), note)))


def _left(done: int, total: int | None, rate: float) -> str:
    return f"{duration((total - done) / rate)} left" if total and rate and done < total else ""
