"""What a graft saves, on one target and one encoder: our stages; the same parts for as many epochs straight on the
target, which says what the surrogate itself saves; ordinary training, also with LoRA, and cut short to what ours cost;
and the three stages as published.

    python benchmarks/grafting.py [--recipe examples/recipes/graft_scenes_long.yaml] [--seeds 0 1 2]

A target that the recipe trains itself stands for a published model: that of seed 0 is everybody's. Ways share it, the
encoder, the data and the evaluation, as well as the settings of every stage that they share. Killed anywhere, the same
command goes on. Results are written after every run to docs/benchmarks/<recipe>.{md,json,png}.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from families import ROOT, take_over
from grafting_captions import ask_captions
from grafting_page import WAYS
from grafting_questions import ask_more
from grafting_results import write_results
from hf_chain.cli import exit_cleanly
from hf_chain.errors import HfChainError
from hf_chain.methods.graft.data import Conversations
from hf_chain.methods.graft.recipe import GraftRecipe, GraftStageSettings, load_graft_recipe
from hf_chain.methods.graft.record import TARGET, graft_record
from hf_chain.methods.graft.runner import run_graft
from hf_chain.methods.graft.straight import straight
from hf_chain.runs.ledger import read_family

PUBLISHED_DECODER_SHARE = 0.2
"""Share of the data that the decoder is trained on in the published cost example (arXiv 2505.22664)."""
PUBLISHED_DECODER_RATE = 3e-4
"""Learning rate of that training, the best of three on the scenes' validation."""
PUBLISHED_TEXT_SHARE = 500 / 665
"""Conversations without an image for each one with an image, in the published first stage."""
LORA_RATE = 2e-3
"""Learning rate of LoRA in ordinary training; that of our stages, to be tuned for each recipe."""
TEXT = "translator-text"
"""Name of the data that these come from."""


def main() -> None:
    """Runs all ways of all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=ROOT / "examples/recipes/graft_scenes_long.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--output_dir", default="runs/grafting")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for way in arguments.ways:
            recipe = load_graft_recipe(arguments.recipe, [f"seed={seed}", f"output_dir={arguments.output_dir}"])
            family = recipe.name
            ours, first = (recipe.model_copy(update={"name": f"{family}-ours-{of}"}) for of in (seed, 0))
            recipe = recipe.model_copy(update={"name": f"{family}-{way}-{seed}"})
            if way == "published":
                recipe = as_published(recipe)
            if way == "straight":
                recipe = straight(recipe).model_copy(update={"name": recipe.name})
            if way == "lora":
                recipe = as_lora(recipe)
            if way == "shortened":
                recipe = as_ordinary(recipe, _share_of_baseline(ours))
            if recipe.target.new is not None and recipe.run_dir != first.run_dir:
                _begin_with_target(recipe, first)
            run_graft(recipe)
            ask_more(recipe)
            ask_captions(recipe)
            write_results(arguments.recipe, family, Path(arguments.output_dir), ROOT / "docs/benchmarks")


def _begin_with_target(recipe: GraftRecipe, source: GraftRecipe) -> None:
    done = [record for record in read_family(source.run_dir).members if record.status == "saved"]
    folders = [record.folder for record in done if record.name == TARGET]
    if not folders:
        raise HfChainError(f"{recipe.name} needs the target of {source.run_dir}: run {source.name} first")
    take_over(source.run_dir, recipe, [TARGET], folders)


def _share_of_baseline(recipe: GraftRecipe) -> float:
    """What a finished run cost of its own baseline, in MACs."""
    compared = graft_record(read_family(recipe.run_dir)).comparison()
    if compared is None:
        raise HfChainError(f"{recipe.run_dir} is not finished: run {recipe.name} first")
    return 1 - compared.saving


def as_ordinary(recipe: GraftRecipe, share: float) -> GraftRecipe:
    """The baseline alone, with every stage as much shorter.

    Args:
        recipe (`GraftRecipe`): ours.
        share (`float`): how much of the baseline's length is left.
    """
    stages = [stage.model_copy(update={"epochs": round(share * stage.epochs, 4)}) for stage in recipe.baseline]
    return recipe.model_copy(update={"stages": stages, "baseline": []})


def as_lora(recipe: GraftRecipe) -> GraftRecipe:
    """The baseline alone, with LoRA on every linear layer of the decoder instead of all its weights.

    Args:
        recipe (`GraftRecipe`): ours.
    """

    def parts(stage: GraftStageSettings) -> dict[str, float | None]:
        return {
            "lora" if name == "decoder" else name: LORA_RATE if name == "decoder" else rate
            for name, rate in stage.parts.items()
        }

    stages = [stage.model_copy(update={"parts": parts(stage)}) for stage in recipe.baseline]
    lora = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
    return recipe.model_copy(update={"stages": stages, "baseline": [], "training": {**recipe.training, "lora": lora}})


def as_published(recipe: GraftRecipe) -> GraftRecipe:
    """The same graft in the paper's stages: the translator starts from its own weights and is trained on images and
    text together with the adapter, then the encoder is trained, then the decoder on a fifth of the data.

    Unlike in the paper, end marks stay in the loss of the last stage: a small model that is not told where an answer
    ends forgets it, and had 39 % right after that stage, and 55 % before.

    Args:
        recipe (`GraftRecipe`): ours. Its first stage gives the learning rates of the encoder, which is trained as long
            as in all our stages on the surrogate; the last two are graft and decoder. The last stage trains the parts
            of the baseline.
    """
    *on_surrogate, graft, decoder = recipe.stages
    epochs = sum(stage.epochs for stage in on_surrogate if stage.parts)
    encoder = on_surrogate[0].model_copy(update={"name": "encoder", "epochs": epochs})
    conversations = Conversations(recipe)
    samples = sum(len(conversations.splits(source)["train"]) for source in encoder.data)
    described = next(settings for settings in recipe.data.values() if settings.described)
    text = described.model_copy(update={"max_train_samples": round(PUBLISHED_TEXT_SHARE * samples)})
    translator = GraftStageSettings(
        name="translator",
        decoder="surrogate",
        parts={
            "adapter": encoder.parts["adapter"],
            "image_tokens": encoder.parts["image_tokens"],
            "translator": encoder.parts["adapter"],
            "encoder.post_layernorm": encoder.parts["adapter"],
        },
        data=[*encoder.data, TEXT],
    )
    parts = dict.fromkeys(recipe.baseline[-1].parts, PUBLISHED_DECODER_RATE)
    decoder = decoder.model_copy(update={"parts": parts, "share": 1.0, "epochs": PUBLISHED_DECODER_SHARE})
    return recipe.model_copy(
        update={
            "data": {**recipe.data, TEXT: text},
            "surrogate": recipe.surrogate.model_copy(update={"translator": ["inherit"]}),
            "stages": [translator, encoder, graft, decoder],
            "baseline": [],
            "training": {name: value for name, value in recipe.training.items() if name != "lora"},
        }
    )


if __name__ == "__main__":
    exit_cleanly(main)
