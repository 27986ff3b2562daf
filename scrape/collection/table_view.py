"""A table in memory, for notebooks: as Arrow, as pandas, and as HTML."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from dreamloom.base.html import table as html_table

if TYPE_CHECKING:
    import pandas as pd

_SHOWN_ROWS = 10
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, repr=False)
class TableView:
    """A table in memory.

    It implements Arrow's PyCapsule interface, so `polars.DataFrame(view)`, `pyarrow.table(view)` and DuckDB accept it.
    """

    _rows: pa.Table

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._rows.schema.names)

    def to_arrow(self) -> pa.Table:
        """Returns the rows as an Arrow table, without a copy."""
        return self._rows

    def to_pandas(self) -> "pd.DataFrame":
        """Returns the rows as a DataFrame with Arrow-backed columns, so nulls stay null and integers stay integers."""
        import pandas as pd

        return self._rows.to_pandas(types_mapper=pd.ArrowDtype)

    def __len__(self) -> int:
        return len(self._rows)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._rows.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return f"<{len(self):,} rows: {', '.join(self.columns)}>"

    def _repr_html_(self) -> str:
        rows = [
            {name: _shortened(value) for name, value in row.items()}
            for row in self._rows.slice(0, _SHOWN_ROWS).to_pylist()
        ]
        left = f"<p>… {len(self) - _SHOWN_ROWS:,} more rows</p>" if len(self) > _SHOWN_ROWS else ""
        return html_table(rows) + left


def _shortened(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    shown = str(value)
    return shown if len(shown) <= _SHOWN_CHARACTERS else f"{shown[: _SHOWN_CHARACTERS - 1]}…"
