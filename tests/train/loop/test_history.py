"""A run's history of evaluations goes on from its file, or says why it can't."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dreamloom.base.errors import UserError
from dreamloom.train.loop.history import EvaluationHistory


@pytest.mark.parametrize("damaged", [b"", b"\xff\xfe", b"[]", b'{"points": [', b'{"schema": "1.0", "points": [{}]}'])
def test_damaged_evaluations_are_one_sentence(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "evaluation.json").write_bytes(damaged)
    history = EvaluationHistory.__new__(EvaluationHistory)
    history.run, history.datasets = tmp_path, cast(Any, {"training": SimpleNamespace()})
    with pytest.raises(UserError, match=r"evaluation\.json is damaged .*; name a new folder for the run"):
        history.resume(8)
