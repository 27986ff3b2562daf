"""Names made in columns are those that a NameWriter gives one by one."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from dreamloom.caption.filename import NameWriter
from dreamloom.curate.naming import name_images

LONG = "word " * 47
captions = st.one_of(
    st.sampled_from(
        [
            "",
            "a cat",
            "A Cat",
            "a cat.",
            " a cat",
            "a_cat",
            "con",
            "multiply",
            "-",
            "a  cat",
            "a cat-",
            "é",
            "e\u0301",
            "ß",
            "SS",
            "a\ncat",
        ]
    ),
    st.sampled_from([LONG + end for end in ("", "a", "ab", "abc", "abcdefgh", "abcdefghi", "é", "x" * 99)]),
    st.text(alphabet="aA .-_é", max_size=4),
)


@given(
    st.lists(
        st.tuples(captions, st.sampled_from([".jpg", ".png", ".png", "", "." + "x" * 17]), st.integers(0, 1)),
        max_size=30,
    )
)
def test_names_are_those_of_a_writer(images: list[tuple[str, str, int]]) -> None:
    writers = [NameWriter(), NameWriter()]
    expected = [writers[folder].name(caption, extension) for caption, extension, folder in images]
    texts, extensions = (pa.array([image[n] for image in images], pa.large_string()) for n in (0, 1))
    named = name_images(np.array([image[2] for image in images], dtype=np.int64), texts, extensions)
    assert list(zip(named.names.to_pylist(), named.needs_sidecar.tolist(), strict=True)) == expected
