"""Several processes change a document in a store, and no change is lost."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dreamloom.base.errors import UserError
from dreamloom.base.files import remote
from dreamloom.base.sharing.shared_document import Content, SharedDocument
from tests.s3 import S3


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_FIRST_WAIT_S", 0.001)


def at(address: str) -> SharedDocument:
    return SharedDocument(address, "count.json", {"count": 0})


def increment(content: Content) -> int:
    content["count"] += 1
    return int(content["count"])


@pytest.mark.parametrize("address", ["memory://documents/{}", "file://{}"])
def test_what_many_do_at_once_all_counts(address: str, tmp_path: Path) -> None:
    documents = [at(address.format(tmp_path)) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda number: documents[number % 4].change(increment), range(40)))
    assert sorted(told) == list(range(1, 41)) and documents[0].read() == {"count": 40}


def test_with_s3_a_change_is_made_anew_on_what_another_process_wrote(s3: type[S3]) -> None:
    one, other = at("s3://bucket/a"), at("s3://bucket/a")
    assert one.read() == {"count": 0} and s3.objects == {}

    def overtaken(content: Content) -> int:
        if content["count"] < 2:  # twice: when it is not there yet, and when it is
            other.change(increment)
        return increment(content)

    assert one.change(overtaken) == 3
    assert other.read() == {"count": 3} and len(s3.put) == 3
    assert one.change(lambda content: content["count"]) == 3 and len(s3.put) == 3, "nothing changed"


def test_a_change_whose_answer_is_lost_is_made_once(s3: type[S3]) -> None:
    def claim(content: Content) -> None:
        if "mine" not in content:
            content["mine"] = increment(content)

    document = at("s3://bucket/a")
    for number in (1, 2):  # of a new document, and of one that is there
        s3.late.append(503)
        document.change(claim)
        assert document.read() == {"count": number, "mine": number} and s3.late == []
        document.change(lambda content: content.pop("mine"))


def test_a_store_that_can_not_compare_is_read_and_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    other = type("Other", (MemoryFileSystem,), {"protocol": "other"})
    fsspec.register_implementation("other", other, clobber=True)
    assert at("other://a").read() == {"count": 0}
    with pytest.raises(UserError, match=r"can't compare and write in one.*s3://"):
        at("other://a").change(increment)
