"""The page of the grafting benchmark: tables, plots and examples in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from families import machine_line
from grafting_captions import people_score, shown
from grafting_cut import cut_lines
from grafting_questions import QUESTIONS
from hf_chain.cost import human
from hf_chain.cost.table import markdown_table
from hf_chain.methods.graft.report.summary import GraftSummary
from hf_chain.methods.graft.report.tables import answers_table, translator_table
from hf_chain.report.words import duration

WAYS = {
    "ours": "our stages",
    "straight": "the same parts straight on the target",
    "lora": "ordinary training with LoRA",
    "published": "the published three stages",
    "shortened": "ordinary training, cut short",
}
BASELINE = "ordinary training"
METRIC = "exact_match"
NEGATIVES = ("random", "popular", "adversarial")

Row = dict[str, Any]


@dataclass(frozen=True)
class Captioned:
    """Captions of a split.

    Attributes:
        models (`Mapping[str, dict]`): title of a model of the first run -> what it said, as `captions_of` gives it.
        pictures (`list[Path]`): those that are shown.
    """

    models: Mapping[str, dict[str, Any]]
    pictures: list[Path]


@dataclass(frozen=True)
class Shown:
    """What the page shows of the first run.

    Attributes:
        captions (`Mapping[str, Captioned]`): by split.
        sheet (`Path`, *optional*): the pictures, numbered.
        beside (`bool`): whether the sheet is beside the page.
    """

    captions: Mapping[str, Captioned]
    sheet: Path | None
    beside: bool


def page(name: str, rows: list[Row], findings: list[str], first: GraftSummary, examples: Shown) -> str:
    """Writes the page.

    Args:
        name (`str`): name of the recipe's file.
        rows (`list[Row]`): every model of every run.
        findings (`list[str]`): what came out, in sentences.
        first (`GraftSummary`): the first run.
        examples (`Shown`): what is shown of it.
    """
    translator = translator_table(first)
    sections = [
        f"# Grafting: {name.removeprefix('graft_').replace('_', ', ')}",
        f"Share of questions answered exactly right, up to {QUESTIONS:,} of each split; mean and range over the "
        "seeds. Costs are everything up to a model: finding the cut, the translator, training and the evaluations "
        "of the recipe; the training of target and encoder, which stand for published models, and these questions "
        "are on no side. Learning rates and lengths were chosen on the first seed. "
        f"Made by `python benchmarks/grafting.py --recipe examples/recipes/{name}.yaml`.",
        _models(rows),
        "\n".join(f"- {line}" for line in findings),
        f"![Accuracy against cost]({name}.png)",
        *_yes_no(rows),
        *_captions(rows, examples),
        "## The cut of the first seed",
        f"![Prediction trajectory]({name}_trajectory.png)",
        "\n".join(f"- {line}" for line in cut_lines(first)),
        *([markdown_table(*translator)] if translator is not None else []),
        f"## Ten answers of the first seed, on {first.split}",
        *_sheet(examples),
        _answers(first),
        *_example_captions(examples, len(first.examples)),
        machine_line(first.record.environment),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _models(rows: list[Row]) -> str:
    splits = list(rows[0]["accuracy"])
    header = [*splits, "MACs to get there", "of the baseline", "time to get there"]

    def cells(group: list[Row]) -> list[str]:
        shares = [row["share_of_baseline"] for row in group if row["share_of_baseline"] is not None]
        return [
            *(_percent([row["accuracy"][split] for row in group]) for split in splits),
            human(statistics.mean(row["macs"] for row in group)),
            _percent(shares) if shares else "–",
            duration(statistics.mean(row["seconds"] for row in group)),
        ]

    return _by_model(rows, header, cells)


def _yes_no(rows: list[Row]) -> Iterator[str]:
    """Accuracy and F1 by how the absent things were chosen, for every split that has such questions."""
    for split in rows[0]["metrics"]:
        names = [
            f"yes_no_{way}_{part}"
            for way in NEGATIVES
            for part in ("accuracy", "f1")
            if f"yes_no_{way}_{part}" in rows[0]["metrics"][split]
        ]
        if not names:
            continue

        def cells(group: list[Row], split: str = split, names: list[str] = names) -> list[str]:
            return [_percent([row["metrics"][split][name] for row in group]) for name in names]

        header = [name.removeprefix("yes_no_").replace("_", " ").replace("f1", "F1") for name in names]
        yield f"## Yes or no, on {split}, by how the absent thing was chosen"
        yield (
            "As in POPE: things that are not there are drawn at random, from the most frequent ones, or from those "
            "taken for what is there. Always yes has an F1 of 66.7 % where both answers are as frequent."
        )
        yield _by_model(rows, header, cells)


def _captions(rows: list[Row], examples: Shown) -> Iterator[str]:
    for split, captioned in examples.captions.items():
        described = [row for row in rows if split in row.get("captions", {})]

        def cells(group: list[Row], split: str = split) -> list[str]:
            found = [row["captions"][split] for row in group]
            scores = ([100 * one[name] for one in found] for name in ("cider_d", "cider_d_shifted"))
            return [*map(_range, scores), _range([one["caption_words"] for one in found])]

        one = next(iter(captioned.models.values()))
        yield f"## Captions, on {split}"
        yield (
            f"CIDEr-D × 100 of {len(one['captions'])} pictures that trained nothing, each with "
            f"{len(one['people'][0])} captions by people; one of these, judged by the others, has "
            f"{100 * people_score(one):.1f}. “Next picture” judges every caption by what people say of another "
            "picture: a model that looks is better than that."
        )
        yield _by_model(described, ["CIDEr-D", "next picture", "words of a caption"], cells)


def _by_model(rows: list[Row], header: list[str], cells: Callable[[list[Row]], list[str]]) -> str:
    table = []
    for way, step in dict.fromkeys((row["way"], row["step"]) for row in rows):
        group = [row for row in rows if (row["way"], row["step"]) == (way, step)]
        table.append([WAYS.get(way, BASELINE), step, ", ".join(str(row["seed"]) for row in group), *cells(group)])
    return markdown_table(["way", "model", "seeds", *header], table)


def _sheet(examples: Shown) -> list[str]:
    if examples.sheet is None:
        return []
    if examples.beside:
        return [f"![The pictures, numbered]({examples.sheet.name})"]
    return [
        f"The benchmark puts the photographs, numbered, into `{examples.sheet.name}` in the folder of its runs: their "
        "licence does not let this page show them, nor what people say of them."
    ]


def _answers(first: GraftSummary) -> str:
    header, rows = answers_table(first, pictures=False)
    return markdown_table(["", *header], [[str(number), *row] for number, row in enumerate(rows, start=1)])


def _example_captions(examples: Shown, number: int) -> Iterator[str]:
    for split, captioned in examples.captions.items():
        rows = []
        for place in shown(len(next(iter(captioned.models.values()))["captions"])):
            number += 1
            rows.append([str(number), str(place), *(said["captions"][place] for said in captioned.models.values())])
        yield f"## Captions of the first seed, on {split}"
        yield markdown_table(["", "row", *captioned.models], rows)


def _percent(values: list[float]) -> str:
    mean = f"{100 * statistics.mean(values):.1f} %"
    return mean if len(values) == 1 else f"{mean} ({100 * min(values):.1f}–{100 * max(values):.1f})"


def _range(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f}–{max(values):.1f})"
