"""Runs of grafts as the runner leaves them: a ledger written by the real `Ledger`, answers and reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from hf_chain.runs.ledger import Ledger
from support.trajectories import made_trajectory, plateau_and_fall

STAGES = {
    "encoder": ("surrogate", {"adapter": 1e-3, "image_tokens": 1e-3, "encoder.last:4": 5e-4}, 1.0),
    "graft": ("target", {}, 1.0),
    "decoder": ("target", {"adapter": 5e-5, "decoder": 5e-5}, 0.1),
}
TRANSLATOR = {"translator": ("surrogate", {"adapter": 1e-4, "translator": 1e-4}, 1.0)}
"""The published first stage, which runs have before the encoder's where a test asks for it. Nobody asks its model."""
TRANSLATOR_TRAINING = 400_000_000_000
BASELINE = {
    "alignment": ("target", {"adapter": 1e-3}, 1.0),
    "full": ("target", {"adapter": 5e-5, "decoder": 5e-5}, 1.0),
}
TRAINING = {
    "target": 9_000_000_000_000,
    "surrogate": 120_000_000_000,
    "encoder": 1_700_000_000_000,
    "graft": 0,
    "decoder": 310_000_000_000,
    "alignment": 2_300_000_000_000,
    "full": 3_100_000_000_000,
}
"""MACs."""
CUT = 20_000_000_000
"""Of the surrogate's, those of the trajectory."""
EVALUATION = 30_000_000_000
EXACT = {"encoder": 0.612, "graft": 0.634, "decoder": 0.741, "alignment": 0.552, "full": 0.725}
PARAMETERS = {"target": 4_100_000, "surrogate": 3_000_000, "encoder": 3_900_000}
KINDS = {"colour": ("what colour is the square?", "red"), "exists": ("is there a star?", "yes"), "many": ("a|b", "2")}
ENCODER = "runs/scenes/03-base"


def write_graft_run(
    run_dir: Path,
    done: tuple[str, ...] = tuple(TRAINING),
    pictures: bool = True,
    translator: bool = False,
    **recipe_values: Any,
) -> Path:
    """Writes a run of which the stages `done` are done, and that of the translator if so; the recipe has them all."""
    ledger = Ledger(run_dir)
    environment = {"versions": {"hf-chain": "0.1.0", "torch": "2.13.0"}, "hardware": "2 cores", "processes": 1}
    recipe = graft_recipe(run_dir.name, translator) | recipe_values
    if translator:
        done = (*done[:2], *TRANSLATOR, *done[2:])
    ledger.append("run_started", recipe=recipe, plan={}, environment=environment)
    for index, name in enumerate(done):
        folder = run_dir / f"{index + 1:02d}-{name}"
        folder.mkdir(parents=True)
        _write_stage(ledger, name, index, folder, translator)
        ledger.append("saved", name, folder=folder.name, weights_sha256=f"{index:064d}")
    if pictures:
        _write_pictures(run_dir / "examples" / "validation")
    if len(done) == len(TRAINING) + translator:
        ledger.append("run_finished")
    return run_dir


def graft_recipe(name: str, translator: bool = False) -> dict[str, Any]:
    """A recipe as the ledger keeps it, as far as report and cards read it."""

    def settings(stages: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            {"name": name, "decoder": decoder, "parts": parts, "epochs": epochs, "data": ["images"]}
            for name, (decoder, parts, epochs) in stages.items()
        ]

    return {
        "name": name,
        "seed": 0,
        "target": {"name_or_path": None, "revision": None, "new": {"hidden_size": 192, "data": ["text"]}},
        "surrogate": {"calibration": {"data": "text"}},
        "evaluation": {"data": ["images"], "splits": ["validation", "test"]},
        "data": {"images": {"source": "scenes"}, "text": {"source": "scenes-text"}},
        "stages": settings(TRANSLATOR | STAGES if translator else STAGES),
        "baseline": settings(BASELINE),
        "hub": {},
    }


def _write_stage(ledger: Ledger, name: str, index: int, folder: Path, translator: bool = False) -> None:
    spent = TRANSLATOR_TRAINING if name in TRANSLATOR else TRAINING[name]
    macs = {"total": spent}
    parent = _parent(name, translator)
    ledger.append("started", name, index=index, parent=parent, parameters=PARAMETERS.get(name, 5_000_000))
    seconds = spent / 2e10
    if name == "surrogate":
        macs |= {"cut": CUT, "translator": TRAINING[name] - CUT}
        ledger.append("trained", name, training_macs=macs, seconds=seconds, operator="layers 3-6, closed_form")
        (folder / "translator.json").write_text(json.dumps(translator_report()))
        (folder / "trajectory.json").write_text(made_trajectory(plateau_and_fall(8, 3)).to_json())
        return
    if spent:
        ledger.append("trained", name, training_macs=macs, seconds=seconds, samples=25_000, epochs=_epochs(name))
    if name in TRANSLATOR:
        return
    if name == "target":
        metrics = {"described": {"exact_match": 0.97}}
    else:
        (folder / "answers.json").write_text(json.dumps({"validation": answers(name)}))
        metrics = {split: metrics_of(name, scale) for split, scale in (("validation", 1.0), ("test", 0.98))}
    ledger.append("evaluated", name, metrics_after=metrics, evaluation_macs=EVALUATION)


def _parent(name: str, translator: bool = False) -> str | None:
    names = [*(TRANSLATOR if translator else ()), *STAGES], [*BASELINE]
    for side in names:
        if name in side:
            place = side.index(name)
            return side[place - 1] if place else ENCODER
    return "01-target" if name == "surrogate" else None


def _epochs(name: str) -> float:
    return (TRANSLATOR | STAGES | BASELINE).get(name, ("", {}, 1.0))[2]


def metrics_of(name: str, scale: float = 1.0) -> dict[str, float]:
    """Metrics of a stage's answers."""
    exact = scale * EXACT[name]
    return {
        "exact_match": exact,
        "exact_match_colour": exact - 0.05,
        "yes_no_accuracy": exact,
        "yes_no_f1": exact + 0.04,
    }


def answers(name: str, count: int = 20) -> list[dict[str, Any]]:
    """What a stage leaves in `answers.json`: questions of three kinds, every third one answered wrongly."""
    kinds = list(KINDS)
    rows = []
    for number in range(count):
        kind = kinds[number % 2] if number < count - 1 else kinds[2]
        question, right = KINDS[kind]
        correct = bool((number + len(name)) % 3)
        rows.append(
            {"question": f"<image>\n{question} ({number})", "expected": [right], "kind": kind, "negatives": ""}
            | {"answer": right if correct else f"wrong {name}", "correct": correct}
        )
    return rows


def translator_report() -> dict[str, Any]:
    """What the surrogate's folder holds."""
    reference = {"target_perplexity": 3.0, "dropping_perplexity": 48.0, "dropping_splice_error": [1.3]}
    quality = {"splice_error": [0.21], "perplexity": 6.0, "reference": reference}
    report = {
        "method": "closed_form",
        "replaced": ["3-6"],
        "translators": 1,
        "seconds": 4.0,
        "macs": TRAINING["surrogate"],
    }
    return report | {"fits": [], "trainings": [], "quality": quality}


def _write_pictures(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(20):
        Image.new("RGB", (32, 32), (12 * number, 80, 160)).save(folder / f"{number:02d}-0.png")
