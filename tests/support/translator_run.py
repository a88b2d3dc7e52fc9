"""The training of translators as a launcher starts it: `torchrun … translator_run.py FOLDER PROCESSES`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hf_chain.grafting.translator import TranslatorConfig, TranslatorTraining, fit_translator
from support.translators import some_text, target_and_surrogate


def run(folder: Path, processes: int) -> TranslatorTraining:
    """Trains on two batches a step, in one process by accumulation, and writes the surrogate to `folder`."""
    target, surrogate = target_and_surrogate(replaced="1-3,5-6")
    args = TranslatorConfig(
        output_dir=str(folder.with_suffix(".trainer")),
        max_steps=4,
        gradient_accumulation_steps=2 // processes,
        learning_rate=0.1,
        optim="sgd",
        use_cpu=True,
        disable_tqdm=True,
    )
    (training,) = fit_translator(surrogate, target, some_text(8, rows=4), "train:hidden", args=args).trainings
    if args.process_index == 0:
        surrogate.save_pretrained(folder)
    return training


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
