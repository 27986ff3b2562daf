"""What becomes of the rows of a part once it is fetched: a limit, and copies."""

from typing import Any

import pytest

from dreamloom.scrape.collection import Status, key_of
from dreamloom.scrape.web.dedup import apply_limit, mark_copies
from dreamloom.scrape.web.outcome import RowDropped, make_row


def test_images_behind_the_limit_are_not_needed_but_those_that_were_there_stay() -> None:
    candidates: list[dict[str, Any]] = [
        {"key": key, "url": f"http://host/{key}", "text": None, "licence": None} for key in "abcde"
    ]
    rows: list[Any] = [{**make_row(c, {}, RowDropped(Status.HTTP_404)), "status": Status.OK} for c in candidates]
    rows[1] = None
    limited = apply_limit(rows, 2, {"e": rows[4]}, candidates)
    assert [row["status"] for row in limited] == ["ok", "not_needed", "ok", "not_needed", "ok"]
    assert [row["status"] for row in apply_limit(rows, None, {}, candidates)].count("ok") == 4


@pytest.mark.parametrize("max_copies", [None, 2])
def test_a_copy_is_the_same_row_whether_or_not_it_was_decoded(max_copies: int | None) -> None:
    """One that arrives after an equal file is not decoded, one that arrives before it is."""

    def rows(of_copy: dict[str, Any], dropped: RowDropped | None) -> list[Any]:
        decoded = {"sha256": "of the file", "pixels_sha256": "of the pixels", "bytes": 1, "image_sha256": "stored"}
        decoded |= {"original_width": 64, "original_height": 48}
        urls = [{"key": key, "url": f"http://host/{key}", "text": None, "licence": None} for key in "ab"]
        return [make_row(urls[0], decoded), make_row(urls[1], decoded | of_copy, dropped)]

    early = rows({}, None)
    undecoded = ("pixels_sha256", "bytes", "image_sha256", "original_width", "original_height")
    late = rows(dict.fromkeys(undecoded), RowDropped(Status.DUPLICATE))
    first, copy = mark_copies(late, {}, max_copies)
    assert mark_copies(early, {}, max_copies) == [first, copy]
    assert copy is not None and copy["status"] == ("duplicate" if max_copies is None else "placeholder")
    assert (copy["pixels_sha256"], copy["original_width"], copy["image_sha256"]) == ("of the pixels", 64, None)


def stored(url: str, sha256: str = "of the file", **own: Any) -> dict[str, Any]:
    candidate = {"key": url, "url": url, "text": None, "licence": None, **own}
    return make_row(candidate, {"sha256": sha256, "original_width": 64, "original_height": 48})


def test_a_placeholder_is_what_one_host_gives() -> None:
    def statuses(*urls: str) -> list[str]:
        return [row["status"] for row in mark_copies([stored(url) for url in urls], {}, 3) if row]

    assert statuses("http://a/1", "http://a/2", "http://b/1", "http://b/2") == ["ok", *["duplicate"] * 3]
    assert statuses("http://a/1", "http://a/2", "http://a/3") == ["placeholder"] * 3


def test_a_caption_of_an_address_stays_once() -> None:
    url = "http://a/1"
    rows = [stored(url, key=key_of("url", url, text), text=text) for text in ("one", "two", "one")]
    assert [row["status"] for row in mark_copies(rows, {}, None) if row] == ["ok", "ok", "duplicate"]
    earlier = {"of the file": dict(rows[0])}
    assert [row["status"] for row in mark_copies(rows[:2], earlier, None) if row] == ["duplicate", "ok"]
