"""Processes that share the weights (FSDP2) train as one process that has them all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dreamloom.train.config import TrainConfig
from dreamloom.train.data.schedule import Batch
from dreamloom.train.export.config import ExportConfig
from dreamloom.train.export.export import export
from dreamloom.train.loop.distributed import DistributedGroup
from dreamloom.train.run.checksums import check_files
from dreamloom.train.run.folder import list_checkpoints, read_summary
from tests.train.loop.test_nodes import assert_close, launch, weights


@pytest.mark.slow
def test_processes_whose_number_changes_equal_one(
    tiny_base: str, folder: Path, heldout: Path, tmp_path: Path, config: Callable[..., TrainConfig]
) -> None:
    settings = config(
        base=tiny_base,
        shard=True,
        batch_size=4,
        gradient_accumulation_steps=2,
        gradient_checkpointing=True,
        epochs=3,
        ema_half_life_images=8,
        caption_dropout_rate=0.3,
        learning_rate=1e-4,
        checkpoint_every_n_steps=1,
    )
    common: dict[str, Any] = {"config": settings.model_dump(mode="json", exclude_unset=True), "folder": str(folder)}
    common |= {"heldout": str(heldout), "machines": 1}
    groups = [
        {"name": "one", "run": "one", "each": 1},
        {"name": "first", "run": "changing", "each": 2, "kill": [1, 8]},
        {"name": "second", "run": "changing", "each": 1, "kill": [0, 16]},
        {"name": "third", "run": "changing", "each": 2},
    ]
    codes = launch(tmp_path, [{**common, **group} for group in groups])
    assert codes == {"one": [0], "first": [2, -9], "second": [-9], "third": [0, 0]}
    assert_close(weights(tmp_path / "changing"), weights(tmp_path / "one"), 2e-5)
    one, changing = (read_summary(tmp_path / name) for name in ("one", "changing"))
    assert one is not None and changing is not None
    assert changing.learned == pytest.approx(one.learned, rel=1e-2) and one.learned != 0
    assert len(list((tmp_path / "changing" / "samples").glob("0*.png"))) == 2

    newest = list_checkpoints(tmp_path / "changing")[-1]
    assert len(list((newest / "optimizer").glob("*.distcp"))) == 2
    check_files(newest)
    export(newest, tmp_path / "model", ExportConfig())


def test_what_can_not_be_shared_is_refused(config: Callable[..., TrainConfig]) -> None:
    for settings, name in (
        ({"lora_rank": 4}, "lora_rank"),
        ({"optimizer": "adafactor"}, "adafactor"),
        ({"optimizer": "adamw8bit"}, "adamw8bit"),
        ({"l2_sp": 0.1}, "l2_sp"),
        ({"fused_backward": True, "max_grad_norm": None}, "fused_backward"),
        ({"weight_dtype": "bf16"}, "bf16"),
    ):
        with pytest.raises(ValidationError, match=f"shard .*{name}"):
            config(shard=True, **settings)


def test_all_processes_have_as_many_batches() -> None:
    step = (
        (Batch((64, 64), "", (5, 3, 8, 1), (20, 21, 22, 23)),),
        (Batch((64, 64), "", (7,), (24,)), Batch((32, 128), "", (2, 4, 6), (25, 26, 27))),
    )
    shares = [DistributedGroup(rank, 2).shard_evenly(step) for rank in range(2)]
    assert [len(share) for share in shares] == [3, 3]
    assert [batch.padding for share in shares for batch in share] == [0, 0, 0, 0, 0, 1]
