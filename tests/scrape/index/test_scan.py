"""The selection against the same rules in plain Python: what passes is kept, once, and every other row is counted."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamloom.scrape.collection import Collection, Table
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.index.filter import filter_laion
from dreamloom.scrape.index.words import Words

Row = dict[str, Any]
KINDS = {k: pa.float64() for k in ("WIDTH", "HEIGHT", "similarity", "aesthetic", "punsafe", "pwatermark")}
SCHEMA = pa.schema({**KINDS, **dict.fromkeys(("URL", "TEXT", "LANGUAGE"), pa.string())})


def index(path: Path, rows: list[Row]) -> str:
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, row_group_size=7)
    return str(path)


NUMBERS = st.none() | st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.5, 5.0, 400.0, 512.0, 2000.0, float("nan")])
ROWS = st.fixed_dictionaries(
    {
        "URL": st.none()
        | st.sampled_from(["", "http://a.org/1", "http://a.org/2", "http://x.alamy.com/1", "http://b.org/3"]),
        "TEXT": st.none() | st.sampled_from(["a cat", "dog", "CAT and dog", ""]),
        "WIDTH": NUMBERS,
        "HEIGHT": NUMBERS,
        "similarity": NUMBERS,
        "aesthetic": NUMBERS,
        "punsafe": NUMBERS,
        "pwatermark": NUMBERS,
        "LANGUAGE": st.none() | st.sampled_from(["en", "de"]),
    }
)
CONFIGS = st.fixed_dictionaries(
    {
        "min_side": st.none() | st.just(512),
        "max_aspect": st.none() | st.just(2.0),
        "min_aesthetic": st.none() | st.just(0.3),
        "max_punsafe": st.none() | st.just(0.5),
        "unscored": st.sampled_from(["drop", "keep"]),
        "languages": st.sampled_from([[], ["en"]]),
        "domains": st.sampled_from([[], ["a.org", "alamy.com"]]),
        "deduplicate_by": st.sampled_from(["url", "url_text"]),
        "words": st.sampled_from([Words(), Words(any=["cat"]), Words(none=["dog"])]),
        "limit": st.none() | st.integers(1, 3),
        "take": st.sampled_from(["first", "best", "sample"]),
        "part_rows": st.integers(1, 4),
    }
)


def passes(r: Row, c: dict[str, Any]) -> bool:
    """The filter, as one would write it down."""

    def at_least(value: float | None, limit: float | None) -> bool:
        return limit is None or (value is not None and value >= limit)

    def below(value: float | None, limit: float | None) -> bool:
        return limit is None or (value is None and c["unscored"] == "keep") or (value is not None and value < limit)

    sides = (r["WIDTH"], r["HEIGHT"])
    shaped = c["max_aspect"] is None or (
        all(s is not None and s > 0 for s in sides) and max(sides) <= c["max_aspect"] * min(sides)
    )
    words = c["words"]
    words_of_text = (r["TEXT"] or "").lower().split()
    return (
        all(at_least(side, c["min_side"]) for side in sides)
        and shaped
        and at_least(r["aesthetic"], c["min_aesthetic"])
        and below(r["punsafe"], c["max_punsafe"])
        and below(r["pwatermark"], 0.5)
        and bool(r["URL"])
        and (not c["languages"] or r["LANGUAGE"] in c["languages"])
        and "alamy" not in r["URL"]
        and (not c["domains"] or "a.org" in r["URL"])
        and (not words.any or any(w in words_of_text for w in words.any))
        and not any(w in words_of_text for w in words.none)
    )


@pytest.mark.slow
@settings(max_examples=25)
@given(rows=st.lists(ROWS, min_size=5, max_size=40), config=CONFIGS, cut=st.integers(0, 40))
def test_the_funnel_adds_up_and_keeps_what_passes(
    rows: list[Row], config: dict[str, Any], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("c")
    halves = [half for half in (rows[:cut], rows[cut:]) if half]
    paths = [index(folder / f"{i}.parquet", half) for i, half in enumerate(halves)]
    collection = Collection(folder / "c")
    funnel = filter_laion(collection, FilterConfig(index=paths, **config))
    assert funnel.rows == len(rows) == funnel.kept + sum(funnel.dropped.values())
    what = ["url", "text"] if config["deduplicate_by"] == "url_text" else ["url"]
    passing = [r for r in rows if passes({k: None if v != v else v for k, v in r.items()}, config)]
    expected = {tuple(r[name.upper()] for name in what) for r in passing}
    taken = [tuple(r.values()) for r in collection.read(Table.CANDIDATES, columns=what).to_pylist()]
    assert len(taken) == funnel.kept == min(len(expected), config["limit"] or len(expected))
    assert set(taken) <= expected
    assert len(set(taken)) == len(taken)
    summary = collection.summary(Table.CANDIDATES)
    assert (summary.rows, summary.kept, summary.dropped) == (funnel.rows, funnel.kept, funnel.dropped)
