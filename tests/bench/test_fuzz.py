"""Whatever bytes strangers send, every reader of them answers, or refuses in the words that it documents."""

from pathlib import Path

import pytest

from bench.fuzz import MAX_BYTES, make_case, run
from bench.fuzz_readers import Reader, make_readers


@pytest.mark.slow
def test_readers_raise_only_what_they_document(tmp_path: Path) -> None:
    results = run(make_readers(tmp_path), seed=1, cases=20_000)
    assert sum(result.cases for result in results.values()) > 19_900
    faults = {name: result.faults for name, result in results.items() if result.faults.keys() - {"slow"}}
    assert not faults


def test_golden_inputs_are_read(tmp_path: Path) -> None:
    for reader in make_readers(tmp_path):
        for data in reader.golden:
            reader.read(data)


def test_a_fault_is_told_once_with_the_case_that_makes_it_again(capsys: pytest.CaptureFixture[str]) -> None:
    def read(data: bytes) -> None:
        if len(data) % 3 == 0:
            raise KeyError(len(data))
        if len(data) % 3 == 1:
            raise ValueError(len(data))

    reader = Reader("lengths", read, [b"abcdef"], (ValueError,))
    result = run([reader], seed=5, cases=200)["lengths"]
    assert "lengths" in capsys.readouterr().out
    ((fault, (number, traceback)),) = result.faults.items()
    assert fault.startswith("KeyError at test_fuzz.py:") and "raise KeyError" in traceback
    assert 0 < result.refused < 200
    assert len(make_case(reader, 5, number)) % 3 == 0
    assert max(len(make_case(reader, 5, number)) for number in range(200)) <= MAX_BYTES
