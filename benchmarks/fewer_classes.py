"""Twenty of the two hundred classes of Tiny ImageNet, which small models learn something about in minutes.

    python benchmarks/fewer_classes.py [--source ../shared/data/tiny-imagenet] [--every 10]

Writes runs/data/tiny-imagenet-20, where examples/recipes/graft_photographs.yaml looks for it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets import ClassLabel, Dataset, load_dataset

from hf_chain.files import whole_folder


def main() -> None:
    """Keeps every tenth class and numbers those that are left anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="../shared/data/tiny-imagenet")
    parser.add_argument("--every", type=int, default=10)
    arguments = parser.parse_args()
    splits = load_dataset(arguments.source)
    names = splits["train"].features["label"].names[:: arguments.every]
    with whole_folder(Path(f"runs/data/tiny-imagenet-{len(names)}")) as folder:
        for split, rows in splits.items():
            kept_classes(rows, arguments.every, names).to_parquet(folder / f"{split}.parquet")


def kept_classes(rows: Dataset, every: int, names: list[str]) -> Dataset:
    """The rows of some classes.

    Args:
        rows (`datasets.Dataset`): With a `label`, a `ClassLabel`.
        every (`int`): One class in so many stays.
        names (`list[str]`): Their names.
    """
    labels = rows["label"]
    left = rows.select([number for number, label in enumerate(labels) if label % every == 0])
    numbers = [label // every for label in left["label"]]
    return left.remove_columns("label").add_column("label", numbers).cast_column("label", ClassLabel(names=names))


if __name__ == "__main__":
    main()
