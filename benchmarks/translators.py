"""Ways of making a translator side by side, on the target of a grafting recipe and at the cut that it chose.

    python benchmarks/translators.py [--recipe examples/recipes/graft_scenes_long.yaml] [--run runs/grafting/…-ours-0]

Splice error and perplexity are measured on held-out conversations. Results go to
docs/benchmarks/<recipe>_translators.{md,json}.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from families import ROOT, machine_line
from hf_chain.cli import exit_cleanly
from hf_chain.files import write_json, write_text
from hf_chain.grafting.translator.fit import compare_translators
from hf_chain.grafting.translator.report import translator_table
from hf_chain.grafting.translator.translator_config import TranslatorConfig
from hf_chain.methods.graft.card.numbers import read_translator
from hf_chain.methods.graft.data import Conversations
from hf_chain.methods.graft.recipe import load_graft_recipe
from hf_chain.methods.graft.record import SURROGATE, TARGET, graft_record
from hf_chain.runs.environment import describe_environment
from hf_chain.runs.ledger import read_family

EPOCHS, LEARNING_RATE = 3, 1e-3
"""Of the trained ones, over the calibration text; small models learn at larger rates than the default."""

PAGE = """# Translators: {name}

Layers {replaced} of a target of {layers} layers, replaced by {translators} layer(s). The closed form and the trained
ones see the same {samples} conversations, the trained ones {epochs} times at a learning rate of {rate:g}; all are
measured on {held_out} others. Made by `python benchmarks/translators.py --recipe examples/recipes/{recipe}.yaml`.

{table}

{machine}
"""


def main() -> None:
    """Compares the translators of one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=ROOT / "examples/recipes/graft_scenes_long.yaml")
    parser.add_argument("--run", type=Path, help="Run of that recipe; by default that of benchmarks/grafting.py.")
    arguments = parser.parse_args()
    recipe = load_graft_recipe(arguments.recipe)
    run = arguments.run or Path("runs/grafting") / f"{recipe.name}-ours-0"
    graft = graft_record(read_family(run))
    folder = run / graft.stage(TARGET).record.folder
    settings, conversations = recipe.surrogate.calibration, Conversations(recipe)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    target = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    replaced = ",".join(read_translator(run / graft.stage(SURROGATE).record.folder)["replaced"])
    with tempfile.TemporaryDirectory() as scratch:
        reports = compare_translators(
            target,
            replaced,
            conversations.calibration(tokenizer, settings.translator_samples),
            conversations.calibration(tokenizer, settings.samples, skip=settings.translator_samples),
            translators=recipe.surrogate.translators,
            args=TranslatorConfig(
                output_dir=scratch, num_train_epochs=EPOCHS, learning_rate=LEARNING_RATE, report_to="none"
            ),
        )
    environment = describe_environment()
    page = PAGE.format(
        name=recipe.name,
        replaced=replaced,
        layers=target.config.num_hidden_layers,
        translators=recipe.surrogate.translators,
        samples=settings.translator_samples,
        held_out=settings.samples,
        epochs=EPOCHS,
        rate=LEARNING_RATE,
        recipe=arguments.recipe.stem,
        table=translator_table(reports),
        machine=machine_line(environment),
    )
    path = ROOT / "docs/benchmarks" / f"{arguments.recipe.stem}_translators"
    write_text(path.with_suffix(".md"), page)
    rows = [asdict(report) for report in reports]
    write_json(path.with_suffix(".json"), {"environment": environment, "translators": rows})


if __name__ == "__main__":
    exit_cleanly(main)
