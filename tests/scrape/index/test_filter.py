"""The filter: any column spelling, each row counted once, and the same candidates whatever the layout of the index."""

import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from dreamloom.base.errors import UserError
from dreamloom.base.stage import Summary
from dreamloom.base.tables.parquet_metadata import digest_table, read_metadata, write_table
from dreamloom.scrape.collection import Collection, Table, key_of
from dreamloom.scrape.collection.verify import find_damage
from dreamloom.scrape.index import scan as selection
from dreamloom.scrape.index.columns import match_columns
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.index.filter import explain, filter_laion, is_current
from dreamloom.scrape.index.words import Words

Row = dict[str, Any]


def index(path: Path, rows: list[Row], **schema: pa.DataType) -> str:
    table = pa.Table.from_pylist(rows)
    for name, kind in schema.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table.column(name).cast(kind))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=7)
    return str(path)


def row(number: int, **more: Any) -> Row:
    plain = {"URL": f"http://h{number % 3}.org/{number}.jpg", "TEXT": f"a person {number}", "WIDTH": 600, "HEIGHT": 700}
    scores = {"similarity": 0.3, "aesthetic": 5.0 + number % 7 / 10, "punsafe": 0.01, "pwatermark": 0.2}
    return {**plain, **scores, **more}


def candidates(tmp_path: Path, config: FilterConfig) -> list[Row]:
    collection = Collection(tmp_path / f"collection-{len(list(tmp_path.iterdir()))}")
    filter_laion(collection, config)
    return list(collection.read(Table.CANDIDATES).to_pylist())


def kept(tmp_path: Path, rows: list[Row], **config: Any) -> list[str]:
    path = index(tmp_path / "index" / f"{len(list(tmp_path.iterdir()))}.parquet", rows)
    return [r["url"] for r in candidates(tmp_path, FilterConfig(index=[path], **config))]


# Predicates


def test_candidates_are_whole_also_those_of_an_earlier_release(tmp_path: Path) -> None:
    collection = Collection(tmp_path / "people")
    filter_laion(collection, FilterConfig(index=[index(tmp_path / "index.parquet", [row(n) for n in range(3)])]))
    assert not list(find_damage(collection))
    rows, part = collection.read(Table.CANDIDATES), collection.part_path(Table.CANDIDATES, "00000")
    lists = rows.schema.get_field_index("labels")
    before = rows.set_column(lists, rows.schema.field(lists), pa.nulls(len(rows), rows.schema.field(lists).type))
    metadata = read_metadata(part, "filter")
    assert metadata["digest"] == digest_table(rows) != digest_table(before)
    write_table(part, rows, metadata | {"digest": digest_table(before)})
    assert not list(find_damage(collection))
    write_table(part, rows.slice(1), metadata)
    assert [path for path, _ in find_damage(collection)] == [part]


def test_each_limit_keeps_what_it_says(tmp_path: Path) -> None:
    def ends(rows: list[Row], **config: Any) -> list[int]:
        urls = [r["URL"] for r in rows]
        return [urls.index(url) for url in kept(tmp_path, rows, **config)]

    sizes = [(512, 512), (511, 900), (900, 511), (None, 900), (900, None)]
    rows = [row(i, WIDTH=w, HEIGHT=h) for i, (w, h) in enumerate(sizes)]
    assert ends(rows) == [0]
    assert ends(rows, min_side=None, max_aspect=None) == [0, 1, 2, 3, 4]
    rows = [row(i, WIDTH=w, HEIGHT=h) for i, (w, h) in enumerate([(600, 1800), (1800, 600), (600, 1801), (600, 600)])]
    assert ends(rows) == [0, 1, 3]
    rows = [row(i, punsafe=p) for i, p in enumerate([0.0, 0.09, 0.1, 0.99, None, float("nan")])]
    assert ends(rows) == [0, 1]
    assert ends(rows, max_punsafe=None) == [0, 1, 2, 3, 4, 5]
    rows = [row(i, pwatermark=p) for i, p in enumerate([0.49, 0.5, None])]
    assert ends(rows) == [0]
    rows = [row(i, aesthetic=a) for i, a in enumerate([5.0, 4.9, None, float("nan"), 6.0])]
    assert ends(rows, min_aesthetic=5.0) == [0, 4]
    rows = [row(i, similarity=s) for i, s in enumerate([0.3, 0.29, 6016.0, None])]
    assert ends(rows, min_similarity=0.3) == [0, 2]
    rows = [row(i, LANGUAGE=code) for i, code in enumerate(["en", "EN", "de", None])]
    assert ends(rows, languages=["en"]) == [0, 1]
    rows = [row(i, LICENSE=name) for i, name in enumerate(["CC0", "?", "cc-by", None, "cc0"])]
    assert ends(rows, licences=["cc0", "CC-BY"]) == [0, 2, 4]


def test_rows_without_scores_may_be_kept(tmp_path: Path) -> None:
    scores = [(0.0, None), (None, None), (None, 0.9), (0.2, 0.1), (float("nan"), 0.1)]
    rows = [row(i, punsafe=unsafe, pwatermark=mark) for i, (unsafe, mark) in enumerate(scores)]
    assert kept(tmp_path, rows) == []
    assert kept(tmp_path, rows, unscored="keep") == [rows[i]["URL"] for i in (0, 1, 4)]


def test_laion_400m_s_tags_are_probabilities(tmp_path: Path) -> None:
    rows = [row(i, NSFW=tag) for i, tag in enumerate(["UNLIKELY", "UNSURE", "NSFW", None, "unlikely"])]
    for each in rows:
        del each["punsafe"]
    assert kept(tmp_path, rows) == [rows[0]["URL"], rows[4]["URL"]]
    assert kept(tmp_path, rows, max_punsafe=0.6) == [rows[i]["URL"] for i in (0, 1, 4)]


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_limits_are_met_in_the_column_s_own_precision(tmp_path: Path, kind: pa.DataType) -> None:
    path = index(tmp_path / "i.parquet", [row(1, aesthetic=5.1, punsafe=0.1)], aesthetic=kind, punsafe=kind)
    assert explain(FilterConfig(index=[path], min_aesthetic=5.1, max_punsafe=0.11)).kept == 1
    assert explain(FilterConfig(index=[path])).dropped == {"punsafe": 1}


def test_widths_may_be_floats_or_text(tmp_path: Path) -> None:
    rows = [row(1, WIDTH=600.0), row(2, WIDTH=float("nan")), row(3, WIDTH=511.0)]
    assert [c["width"] for c in candidates(tmp_path, FilterConfig(index=[index(tmp_path / "a.parquet", rows)]))] == [
        600
    ]
    rows = [row(1, WIDTH="600"), row(2, WIDTH="wide"), row(3, WIDTH="100")]
    assert [c["width"] for c in candidates(tmp_path, FilterConfig(index=[index(tmp_path / "b.parquet", rows)]))] == [
        600
    ]


def test_scores_that_are_no_finite_numbers_are_none(tmp_path: Path) -> None:
    for scores in (["6.5", "1e400", "nan", "high"], [6.5, float("inf"), float("nan"), None]):
        rows = [row(number, aesthetic=score) for number, score in enumerate(scores)]
        assert kept(tmp_path, rows, min_aesthetic=5.0) == [rows[0]["URL"]]


CAT = pa.array(["a cat"])


@pytest.mark.parametrize(
    ("column", "text"),
    [
        *((CAT.cast(kind), "a cat") for kind in (pa.large_string(), pa.string_view(), pa.binary())),
        (pa.array([b"a cat"], pa.binary(5)), "a cat"),
        (CAT.dictionary_encode(), "a cat"),
        (pa.array([["a cat"]], pa.list_(pa.string(), 1)), "a cat"),
        (pa.array([["a cat"]], pa.large_list(pa.large_string())), "a cat"),
        (pa.array([datetime(2026, 1, 1)]), None),
        (pa.array([Decimal("1.5")]), None),
        (pa.array([True]), None),
        (pa.array([None]), None),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_texts_of_any_type_are_captions_and_dates_and_numbers_none(
    tmp_path: Path, column: pa.Array, text: str | None
) -> None:
    table = pa.Table.from_pylist([row(1)])
    pq.write_table(table.set_column(1, "TEXT", column), tmp_path / "i.parquet")
    (candidate,) = candidates(tmp_path, FilterConfig(index=[str(tmp_path / "i.parquet")]))
    assert candidate["text"] == text


def test_domains_are_left_out_with_their_subdomains(tmp_path: Path) -> None:
    out = ["http://alamy.com/a", "HTTPS://C8.Alamy.Com/a", "http://x@l450v.alamy.com:80/a", "http://alamy.com"]
    out += ["//thumbs.dreamstime.com/a".join(["http:", ""]), "http:\\\\alamy.com\\a", "http://alamy.com\\@h.net/a"]
    stay = [
        "http://notalamy.com/a",
        "http://alamy.com.example/a",
        "http://h.org/alamy.com/a",
        "http://h.org\\@alamy.com/a",
        "http://h.org/?u=http://alamy.com/",
    ]
    rows = [row(i, URL=url) for i, url in enumerate(out + stay)]
    assert kept(tmp_path, rows) == stay
    assert kept(tmp_path, rows, exclude_domains=[]) == out + stay
    assert kept(tmp_path, rows, exclude_domains=["org"]) == [r["URL"] for r in rows if "h.org" not in r["URL"]]


def test_domains_to_take_are_taken_with_their_subdomains(tmp_path: Path) -> None:
    urls = ["http://a.org/1", "http://www.A.org/2", "http://aa.org/3", "http://alamy.com/4", "http://b.net./5"]
    rows = [row(i, URL=url) for i, url in enumerate(urls)]
    assert kept(tmp_path, rows, domains=["a.org", "alamy.com", "b.net"]) == [urls[0], urls[1], urls[4]]
    path = index(tmp_path / "i.parquet", rows)
    assert explain(FilterConfig(index=[path], domains=["a.org"])).dropped == {"other_domain": 3}


def test_a_url_with_several_captions_is_one_row_or_several(tmp_path: Path) -> None:
    captions = ["one", "two", "one", None, None, ""]
    path = index(tmp_path / "i.parquet", [row(1, TEXT=text) for text in captions] + [row(2)])
    assert explain(FilterConfig(index=[path])).dropped == {"duplicate_url": 5}
    config = FilterConfig(index=[path], deduplicate_by="url_text")
    assert explain(config).dropped == {"duplicate_url_text": 3}
    selected = candidates(tmp_path, config)
    assert [c["text"] for c in selected] == ["one", "two", None, "a person 2"]
    bare = index(tmp_path / "bare.parquet", [{"URL": "http://h.org/1"}, {"URL": "http://h.org/1"}])
    assert explain(FilterConfig(index=[bare], deduplicate_by="url_text")).kept == 1
    assert len({c["key"] for c in selected}) == 4


def test_rows_without_url_and_repeated_urls_are_dropped(tmp_path: Path) -> None:
    rows = [row(1), row(2, URL=None), row(3, URL="  "), row(1, TEXT="again"), row(4, URL=" http://h1.org/1.jpg ")]
    path = index(tmp_path / "i.parquet", rows)
    assert explain(FilterConfig(index=[path])).dropped == {"no_url": 2, "duplicate_url": 2}
    (only,) = candidates(tmp_path, FilterConfig(index=[path]))
    assert (only["text"], only["key"]) == ("a person 1", key_of("url", "http://h1.org/1.jpg"))


def test_a_row_is_counted_at_the_first_predicate_that_it_fails(tmp_path: Path) -> None:
    rows = [row(1, WIDTH=1, punsafe=1.0, TEXT="no"), row(2, punsafe=1.0, TEXT="no"), row(3, TEXT="no"), row(4), row(5)]
    path = index(tmp_path / "i.parquet", rows)
    funnel = explain(FilterConfig(index=[path], words=Words(any=["person"]), limit=1))
    assert list(funnel.dropped.items()) == [("size", 1), ("punsafe", 1), ("words", 1), ("limit", 1)]
    assert (funnel.rows, funnel.kept) == (5, 1)


# Which are taken


def test_first_best_and_sample(tmp_path: Path) -> None:
    rows = [row(i, aesthetic=None if i == 3 else float(i * 7 % 11)) for i in range(30)]
    urls = [r["URL"] for r in rows]
    by_score = sorted(rows, key=lambda r: -1 if r["aesthetic"] is None else r["aesthetic"], reverse=True)
    assert kept(tmp_path, rows, limit=4) == urls[:4]
    assert kept(tmp_path, rows, limit=6, take="best") == [r["URL"] for r in by_score[:6]]
    seed_1, seed_2 = (kept(tmp_path, rows, limit=10, take="sample", seed=s) for s in (1, 2))
    assert set(seed_1) != set(seed_2)
    assert seed_1 != sorted(seed_1, key=urls.index)
    assert kept(tmp_path, rows, limit=20, take="sample", seed=1)[:10] == seed_1
    assert kept(tmp_path, rows[::-1], limit=10, take="sample", seed=1) == seed_1


@pytest.mark.slow
def test_the_first_of_many_keep_their_order(tmp_path: Path) -> None:
    rows = [row(i * 7 % 6000) for i in range(9000)]
    urls = list(dict.fromkeys(r["URL"] for r in rows))
    assert kept(tmp_path, rows, part_rows=777) == urls
    assert kept(tmp_path, rows, part_rows=777, limit=5001) == urls[:5001]


def test_a_sample_is_uniform(tmp_path: Path) -> None:
    rows = [row(i) for i in range(2000)]
    taken = kept(tmp_path, rows, limit=1000, take="sample")
    early = sum(int(url.rsplit("/", 1)[1][:-4]) < 1000 for url in taken)
    assert abs(early - 500) < 60  # about five standard deviations


@pytest.mark.slow
@pytest.mark.parametrize("take", ["first", "best", "sample"])
def test_candidates_do_not_depend_on_threads_or_row_groups(tmp_path: Path, take: str) -> None:
    rows = [row(i % 900, aesthetic=float(i % 13), TEXT=f"a person {i}") for i in range(1000)]
    path = Path(index(tmp_path / "small.parquet", rows))
    pq.write_table(pq.read_table(path), tmp_path / "one.parquet")
    answers = []
    for file, threads in ((path, 1), (path, 4), (tmp_path / "one.parquet", 4)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(selection._SETTINGS, "threads", threads)
            answers.append(candidates(tmp_path, FilterConfig(index=[str(file)], take=take, limit=100)))
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.slow
@pytest.mark.parametrize("take", ["first", "best", "sample"])
def test_candidates_do_not_depend_on_the_files(tmp_path: Path, take: str) -> None:
    rows = [row(i, aesthetic=float(i % 13)) for i in range(300)] + [row(i, TEXT="again") for i in range(0, 300, 5)]
    whole = [index(tmp_path / "whole.parquet", rows)]
    split = [index(tmp_path / "split" / f"{i:02d}.parquet", rows[i * 50 : i * 50 + 50]) for i in range(8)]
    config = {"take": take, "limit": 200, "part_rows": 64}
    expected = candidates(tmp_path, FilterConfig(index=whole, **config))
    assert candidates(tmp_path, FilterConfig(index=split, **config)) == expected
    assert candidates(tmp_path, FilterConfig(index=[str(tmp_path / "split" / "*.parquet")], **config)) == expected
    assert candidates(tmp_path, FilterConfig(index=[str(tmp_path / "split")], **config)) == expected
    if take == "sample":
        assert candidates(tmp_path, FilterConfig(index=split[::-1], **config)) == expected


SPELLINGS = [
    {},
    {"URL": "url", "TEXT": "caption", "WIDTH": "original_width", "HEIGHT": "original_height"},
    {"aesthetic": "AESTHETIC_SCORE", "LICENSE": "license_type", "md5": "md5_hash"},
    {"URL": "Url", "TEXT": "top_caption", "aesthetic": "aesthetic_score_laion_v2", "pwatermark": "watermark_score"},
    {"similarity": "clip_l14_similarity_score", "aesthetic": "aesthetics_score", "LANGUAGE": "language"},
]


@pytest.mark.parametrize("names", SPELLINGS)
def test_any_column_spelling_gives_the_same_candidates(tmp_path: Path, names: dict[str, str]) -> None:
    more = {"LANGUAGE": "en", "LICENSE": "CC-BY 4.0", "md5": "0123", "sha256": "4567", "reason": "a name of ours"}
    rows = [row(i, **more) for i in range(20)]
    expected = candidates(tmp_path, FilterConfig(index=[index(tmp_path / "laion.parquet", rows)], min_aesthetic=5.2))
    spelled = [{names.get(k, k): v for k, v in r.items()} for r in rows]
    path = index(tmp_path / "other.parquet", spelled)
    assert candidates(tmp_path, FilterConfig(index=[path], min_aesthetic=5.2)) == expected
    assert expected[0] | {"key": ""} == {
        "key": "", "url": "http://h2.org/2.jpg", "text": "a person 2", "width": 600, "height": 700,
        "similarity": pytest.approx(0.3), "aesthetic": pytest.approx(5.2), "punsafe": pytest.approx(0.01),
        "pwatermark": pytest.approx(0.2), "language": "en", "licence": "CC-BY 4.0", "md5": "0123", "sha256": "4567",
        "text_kind": None, "licence_url": None, "labels": None,
    }  # fmt: skip


def test_files_of_different_spellings_stand_side_by_side(tmp_path: Path) -> None:
    spelled = [[row(1)], [{"url": "http://x.org/2", "caption": "a person"}], [row(3, WIDTH=700.0)]]
    paths = [index(tmp_path / f"{i}.parquet", rows) for i, rows in enumerate(spelled)]
    assert [c["url"] for c in candidates(tmp_path, FilterConfig(index=paths))] == [
        "http://h1.org/1.jpg",
        "http://x.org/2",
        "http://h0.org/3.jpg",
    ]


def test_paths_are_taken_literally_where_they_exist(tmp_path: Path) -> None:
    path = index(tmp_path / "a[1]'*.parquet", [row(1)])
    index(tmp_path / "a1'x.parquet", [row(2)])
    assert len(candidates(tmp_path, FilterConfig(index=[path]))) == 1


def test_an_unknown_licence_is_none(tmp_path: Path) -> None:
    rows = [row(1, LICENSE="?"), row(2, LICENSE="cc0")]
    selected = candidates(tmp_path, FilterConfig(index=[index(tmp_path / "i.parquet", rows)]))
    assert [c["licence"] for c in selected] == [None, "cc0"]


# The families, by the columns that each is known to have

NUMBERS = ["SAMPLE_ID", "hash", "id", "text_length", "num_faces", "image_phash"]
FAMILIES = {
    "LAION-400M": "SAMPLE_ID URL TEXT HEIGHT WIDTH LICENSE NSFW similarity",
    "laion2B-multi, joined": "URL TEXT WIDTH HEIGHT similarity LANGUAGE hash punsafe pwatermark",
    "laion2B-en-aesthetic": "URL TEXT WIDTH HEIGHT similarity hash punsafe pwatermark aesthetic",
    "improved_aesthetics_6.5plus": "URL TEXT WIDTH HEIGHT similarity punsafe pwatermark AESTHETIC_SCORE hash",
    "re-LAION": "url caption similarity width height punsafe pwatermark md5",
    "laion-coco": "URL TEXT top_caption WIDTH HEIGHT similarity hash pwatermark punsafe",
    "DataComp": "uid url text original_width original_height clip_b32_similarity_score clip_l14_similarity_score "
    "sha256",
    "COYO": "id url text width height image_phash text_length num_faces clip_similarity_vitb32 "
    "clip_similarity_vitl14 nsfw_score_opennsfw2 nsfw_score_gantman watermark_score aesthetic_score_laion_v2",
    "PD12M": "id url s3_key caption md5_hash mime_type width height license_type source",
    "mscoco.parquet": "URL TEXT",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read_by_its_own_columns(tmp_path: Path, family: str) -> None:
    says = {"url": "http://h.org/1.jpg", "text": "a person", "width": 600, "height": 700, "similarity": 0.3}
    says |= {"aesthetic": 6.0, "punsafe": 0.01, "pwatermark": 0.2, "language": "en", "licence": "cc0"}
    says |= {"md5": "01", "sha256": "23"}
    names = FAMILIES[family].split()
    ours = {theirs: our for our, theirs in match_columns(names).items()}
    rows = [{n: "UNLIKELY" if n == "NSFW" else 7 if n in NUMBERS else says.get(ours.get(n, ""), 0.9) for n in names}]
    (candidate,) = candidates(tmp_path, FilterConfig(index=[index(tmp_path / "i.parquet", rows)]))
    for our in says:
        expected = 0.0 if family == "LAION-400M" and our == "punsafe" else says[our] if our in ours.values() else None
        assert candidate[our] == (pytest.approx(expected) if isinstance(expected, float) else expected), our
    assert {"url", "text"} <= set(ours.values())


def test_laion_coco_s_own_captions_are_asked_for_by_column(tmp_path: Path) -> None:
    path = index(tmp_path / "i.parquet", [row(1, top_caption="a dog on a beach"), row(2, top_caption="a cat")])
    config = FilterConfig(index=[path], text_column="TOP_CAPTION", words=Words(any=["dog"]))
    assert [c["text"] for c in candidates(tmp_path, config)] == ["a dog on a beach"]
    with pytest.raises(UserError, match="no column named captoin"):
        explain(FilterConfig(index=[path], text_column="captoin"))


def test_aesthetic_scores_of_two_scales_are_not_compared(tmp_path: Path) -> None:
    old = index(tmp_path / "1.parquet", [row(1, aesthetic=6.0)])
    new = index(tmp_path / "2.parquet", [{**row(2), "AESTHETIC_SCORE": 6.0, "aesthetic": 4.0}])
    only = index(tmp_path / "3.parquet", [{k: v for k, v in row(3, AESTHETIC_SCORE=6.0).items() if k != "aesthetic"}])
    with pytest.raises(UserError, match="two scales"):
        explain(FilterConfig(index=[old, only], min_aesthetic=5.0))
    with pytest.raises(UserError, match="two scales"):
        explain(FilterConfig(index=[old, only], take="best"))
    assert explain(FilterConfig(index=[old, only])).kept == 2
    assert explain(FilterConfig(index=[old, only], min_aesthetic=5.0, aesthetic_scale="v2")).kept == 2
    with pytest.raises(UserError, match="`aesthetic_scale` is v1"):
        explain(FilterConfig(index=[only], min_aesthetic=5.0, aesthetic_scale="v1"))
    assert explain(FilterConfig(index=[new], min_aesthetic=5.0)).kept == 0
    assert explain(FilterConfig(index=[new], min_aesthetic=5.0, aesthetic_scale="v2")).kept == 1


# Far away


def test_an_index_may_lie_in_any_store_that_fsspec_knows(tmp_path: Path) -> None:
    rows = [row(i) for i in range(30)]
    near = [index(tmp_path / f"{i}.parquet", rows[i * 10 : i * 10 + 10]) for i in range(3)]
    store = fsspec.filesystem("memory")
    for file in near:
        store.pipe(f"/laion[1]/{Path(file).name}", Path(file).read_bytes())
    expected = candidates(tmp_path, FilterConfig(index=near))
    for pattern in ("memory://laion[1]", "memory://laion[[]1]/*.parquet"):
        assert candidates(tmp_path, FilterConfig(index=[pattern])) == expected
    collection, config = Collection(tmp_path / "c"), FilterConfig(index=["memory://laion[1]/1.parquet", near[0]])
    filter_laion(collection, config)
    assert [c["url"] for c in collection.read(Table.CANDIDATES).to_pylist()] == [
        r["URL"] for r in (*rows[10:20], *rows[:10])
    ]
    assert is_current(collection, config)
    store.pipe("/laion[1]/1.parquet", Path(near[2]).read_bytes())
    assert not is_current(collection, config)


def test_a_store_need_not_know_when_a_file_was_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the Hub's (hf://), which does not of the files in a dataset."""

    def modified(_: Any, path: str) -> None:
        raise NotImplementedError(path)

    monkeypatch.setattr(MemoryFileSystem, "modified", modified)
    near = index(tmp_path / "1.parquet", [row(i) for i in range(3)])
    fsspec.filesystem("memory").pipe("/undated/1.parquet", Path(near).read_bytes())
    expected = candidates(tmp_path, FilterConfig(index=[near]))
    assert candidates(tmp_path, FilterConfig(index=["memory://undated"])) == expected


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("memory://nothing/*.parquet", "No parquet file is at"),
        ("nonsense://x/y.parquet", "can't be reached"),
        ("s3://bucket/key.parquet", "can't be reached"),
    ],
)
def test_a_store_that_does_not_answer_is_said(pattern: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with pytest.raises(UserError, match=message):
        explain(FilterConfig(index=[pattern]))


# What the user does wrong


def test_mistakes_are_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "not.parquet").write_text("no parquet at all")
    bare = index(tmp_path / "bare.parquet", [{"URL": "http://h.org/1", "TEXT": "x"}])
    no_url = index(tmp_path / "no_url.parquet", [{"TEXT": "x"}])
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"index": [str(tmp_path / "*.pq")]}, "No parquet file is at"),
        ({"index": []}, "`index` is empty"),
        ({"index": [str(tmp_path / "not.parquet")]}, "can't be read as parquet"),
        ({"index": [no_url]}, "has no column named url"),
        ({"index": [bare], "min_aesthetic": 5.0}, "no column for aesthetic"),
        ({"index": [bare], "max_punsafe": 0.2}, "no column for punsafe"),
        ({"index": [bare], "min_side": 256}, "no column for width"),
        ({"index": [bare], "languages": ["en"]}, "no column for language"),
        ({"index": [bare], "take": "best"}, "no aesthetic scores"),
        ({"index": [bare], "licences": ["cc0"]}, "no column for licence"),
        ({"index": [bare], "words": Words(regex=["(a"])}, "not a regular expression"),
    ]
    for config, message in mistakes:
        with pytest.raises(UserError, match=message) as caught:
            filter_laion(Collection(tmp_path / "c"), FilterConfig(**config))
        assert "\n" not in str(caught.value)
    assert explain(FilterConfig(index=[bare])).kept == 1  # limits left alone ask for no column
    assert Collection(tmp_path / "c").parts(Table.CANDIDATES) == []


# Again, and after a kill


def test_again_is_no_work_and_another_config_or_index_is(tmp_path: Path) -> None:
    collection, path = Collection(tmp_path / "c"), tmp_path / "i.parquet"
    config = FilterConfig(index=[index(path, [row(i) for i in range(10)])], part_rows=3)
    assert not is_current(collection, config)
    first = filter_laion(collection, config)
    assert (first.parts_done, first.parts_before) == (4, 0)
    before = [p.stat().st_mtime_ns for p in sorted((collection.root / "candidates").iterdir())]
    again = filter_laion(collection, config)
    assert (again.parts_done, again.parts_before, again.kept) == (0, 4, 10)
    assert [p.stat().st_mtime_ns for p in sorted((collection.root / "candidates").iterdir())] == before
    assert is_current(collection, config)
    moved = index(tmp_path / "moved.parquet", [row(i) for i in range(10)])
    assert is_current(collection, config.model_copy(update={"index": [moved]}))
    fewer = config.model_copy(update={"limit": 4})
    assert not is_current(collection, fewer)
    assert filter_laion(collection, fewer).parts_done == 2
    assert collection.parts(Table.CANDIDATES) == ["00000", "00001"]
    index(path, [row(i) for i in range(11)])
    assert not is_current(collection, fewer)
    assert sorted(p.name for p in collection.root.iterdir()) == [".workers", "candidates"]


def test_no_row_passing_leaves_one_empty_part(tmp_path: Path) -> None:
    collection = Collection(tmp_path / "c")
    config = FilterConfig(index=[index(tmp_path / "i.parquet", [row(1, WIDTH=1)])])
    assert filter_laion(collection, config).dropped == {"size": 1}
    assert collection.read(Table.CANDIDATES).num_rows == 0
    assert is_current(collection, config)


@pytest.mark.slow
def test_killed_anywhere_and_run_again_it_ends_as_if_undisturbed(tmp_path: Path, crash: Any) -> None:
    path = index(tmp_path.parent / f"{tmp_path.name}.parquet", [row(i) for i in range(10)])
    config = f"FilterConfig(index=[{path!r}], part_rows=4)"
    script = f"""
from pathlib import Path
from dreamloom.scrape.collection import Collection
from dreamloom.scrape.index.config import FilterConfig
from dreamloom.scrape.index.filter import filter_laion
collection = Collection(Path({str(tmp_path / "c")!r}))
filter_laion(collection, FilterConfig(index=[{path!r}], limit=9, part_rows=3))
filter_laion(collection, {config})
"""
    expected = Collection(tmp_path.parent / f"{tmp_path.name}-calm")
    wanted = FilterConfig(index=[path], part_rows=4)
    filter_laion(expected, wanted)
    at = 1
    while crash.run(script, at):
        collection = Collection(tmp_path / "c")
        assert not is_current(collection, wanted) or collection.read(Table.CANDIDATES).equals(
            expected.read(Table.CANDIDATES)
        )
        filter_laion(collection, wanted)
        assert collection.read(Table.CANDIDATES).equals(expected.read(Table.CANDIDATES))
        assert collection.stamps(Table.CANDIDATES) == expected.stamps(Table.CANDIDATES)
        assert sorted(p.name for p in collection.root.rglob("*") if "tmp" in p.name) == []
        at += 19


# The real sample


def test_the_real_laion_sample(shared_data: Path, tmp_path: Path) -> None:
    sample = shared_data / "laion" / "laion2b-en-sample.parquet"
    rows = pq.read_table(sample).to_pylist()
    config = FilterConfig(index=[str(sample)], words=Words(any=["beach"]), min_side=300, exclude_domains=[])
    selected = candidates(tmp_path, config)
    expected = []
    for r in rows:
        sides = sorted((r["WIDTH"] or 0, r["HEIGHT"] or 0))
        if sides[0] >= 300 and sides[1] <= 3 * sides[0] and re.search(r"(?i)(?<!\w)beach(?!\w)", r["TEXT"] or ""):
            expected.append(r["URL"])
    assert [c["url"] for c in selected] == list(dict.fromkeys(expected))
    assert len(selected) >= 4
    assert all(c["punsafe"] == 0 and c["licence"] is None for c in selected)
    funnel: Summary = explain(config)
    assert funnel.rows == len(rows) == funnel.kept + sum(funnel.dropped.values())
    assert set(funnel.dropped) <= {"size", "aspect", "punsafe", "no_url", "words", "duplicate_url"}
