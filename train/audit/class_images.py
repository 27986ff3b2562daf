"""The real images that a model classifies, and what each shows."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dreamloom.base.errors import UserError
from dreamloom.base.tables.synsets import known_synset_names
from dreamloom.caption.nouns import followed
from dreamloom.train.audit.config import AuditConfig
from dreamloom.train.data.dataset import Dataset, Sample, read_dataset
from dreamloom.train.diffusion.rng import permutation, stream_key
from dreamloom.train.evaluate.concepts import describe
from dreamloom.train.evaluate.evaluate import KINDS, read_heldout

MIN_IMAGES = 5
"""Fewest images of a concept of held-out images that make it a class."""


@dataclass(frozen=True)
class ClassImages:
    """Images with the classes that each shows."""

    dataset: Dataset
    """Images by name, which is unique."""
    classes: Mapping[str, tuple[str, ...]]
    """Name of an image → its classes."""

    def names(self) -> list[str]:
        """Returns the names of all classes, sorted."""
        return sorted({name for classes in self.classes.values() for name in classes})

    def of_classes(self, names: Container[str]) -> "ClassImages":
        """Leaves classes out, and images that show none of the others."""
        shown = {image: tuple(name for name in own if name in names) for image, own in self.classes.items()}
        return ClassImages(self.dataset, shown).without(image for image, own in shown.items() if not own)

    def without(self, broken: Iterable[str]) -> "ClassImages":
        """Leaves images out that can't be decoded."""
        left_out = set(broken)
        samples = tuple(sample for sample in self.dataset.samples if sample.name not in left_out)
        return ClassImages(
            replace(self.dataset, samples=samples), {sample.name: self.classes[sample.name] for sample in samples}
        )


def read_class_images(folder: Path, config: AuditConfig) -> ClassImages:
    """Reads images of several classes, and chooses some of each class by the seed.

    Args:
        folder: a folder of held-out images, whose concepts are the classes (those that at least five images show, and
            at most half of all); or a folder with a subfolder for each class, whose name it is, or whose synset.
        config: says how many.

    Raises:
        UserError: the images can't be read, or are of fewer than two classes.
    """
    is_held_out = any((folder / kind).is_dir() for kind in KINDS)
    dataset, classes = _of_held_out(folder, config) if is_held_out else _of_subfolders(folder, config)
    names = sorted({name for shown in classes.values() for name in shown})
    if len(names) < 2:
        what = f"no two concepts that {MIN_IMAGES} images show" if is_held_out else "fewer than two folders of images"
        raise UserError(f"{folder} has {what}, so there is nothing to tell apart; name a folder with more classes.")
    chosen = _choose(classes, names, config)
    samples = tuple(sample for sample in dataset.samples if sample.name in chosen)
    return ClassImages(replace(dataset, samples=samples), {name: classes[name] for name in sorted(chosen)})


def _of_subfolders(folder: Path, config: AuditConfig) -> tuple[Dataset, dict[str, tuple[str, ...]]]:
    dataset = read_dataset(folder, config.resolution, config.bucket_reso_steps, config.num_workers)
    return dataset, {sample.name: (_class_name(sample.name.split("/")[0]),) for sample in dataset.samples}


def _class_name(folder: str) -> str:
    """The name of a class: that of its synset, or of its folder, where _ stands for a blank."""
    synset = known_synset_names().get(folder)
    return synset[0] if synset else folder.replace("_", " ")


def _of_held_out(folder: Path, config: AuditConfig) -> tuple[Dataset, dict[str, tuple[str, ...]]]:
    datasets = read_heldout(folder, config.resolution, config.bucket_reso_steps, config.num_workers, upscale=True)
    known = describe(datasets)
    samples: list[Sample] = []
    for kind, dataset in datasets.items():
        samples += [replace(s, image=replace(s.image, name=f"{kind}/{s.name}")) for s in dataset.samples]
    shown = followed([known[sample.name].concepts for sample in samples], MIN_IMAGES)
    classes = {s.name: tuple(sorted(names)) for s, names in zip(samples, shown, strict=True) if names}
    first = next(iter(datasets.values()))
    return replace(first, samples=tuple(samples)), classes


def _choose(classes: Mapping[str, tuple[str, ...]], names: list[str], config: AuditConfig) -> set[str]:
    """Chooses images so that each class has as many as asked for, or all that there are."""
    chosen: set[str] = set()
    for name in names:
        images = sorted(image for image, shown in classes.items() if name in shown)
        places = permutation(stream_key(config.seed, "audit images", name), len(images))
        chosen |= {images[place] for place in places[: config.images_per_class]}
    return chosen
