"""Whatever bytes strangers send, every reader of them answers: it raises nothing but the dropping of a row.

Inputs that are almost right: tests/bench/test_fuzz.py.
"""

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bench.fuzz_readers import read_addresses, read_image_metadata, read_robots, read_values
from dreamloom.scrape.web.http_dates import parse_http_date


@pytest.mark.parametrize("reader", [read_values, read_robots, read_addresses, read_image_metadata])
def test_any_bytes(reader: Callable[[bytes], None]) -> None:
    @given(st.binary(max_size=200) | st.text(max_size=100).map(lambda t: t.encode("utf-8", "surrogatepass")))
    def read(data: bytes) -> None:
        reader(data)

    read()


@given(st.text(max_size=60))
@example("Mon, 01 Jan 99999999999999999999 00:00:00 GMT")
@example("9" * 5000)
@example("Fri, 31 Dec 9999 23:59:59 -2300")
def test_any_date(text: str) -> None:
    parse_http_date(text)
