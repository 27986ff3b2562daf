"""What held-out images show: as balance wrote it, or else the nouns that their captions share."""

from collections.abc import Mapping

from dreamloom.base.tables.held_out import HeldOutImage
from dreamloom.caption.nouns import shared_nouns
from dreamloom.train.data.dataset import Dataset
from dreamloom.train.evaluate.statistics import MIN_UNITS


def describe(datasets: Mapping[str, Dataset]) -> dict[str, HeldOutImage]:
    """Returns what is known of the held-out images of each kind, by kind and name: "ground_truth/scenes/a dog.jpg".

    For a folder without concepts.json, concepts are the nouns that at least five captions of a kind share.
    """
    described: dict[str, HeldOutImage] = {}
    for kind, dataset in datasets.items():
        if dataset.held_out is None:
            nouns = shared_nouns([sample.caption for sample in dataset.samples], MIN_UNITS)
            known = {s.name: HeldOutImage(tuple(sorted(n))) for s, n in zip(dataset.samples, nouns, strict=True)}
        else:
            known = {s.name: dataset.held_out.get(f"{kind}/{s.name}", HeldOutImage()) for s in dataset.samples}
        described |= {f"{kind}/{name}": image for name, image in known.items()}
    return described
