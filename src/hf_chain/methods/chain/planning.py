"""What a recipe will cost in compute and memory, and whether its members can grow; starts no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_chain.arguments.precision import uses_bfloat16
from hf_chain.cost import FamilyCost, clip_evaluation_macs, clip_member, clip_memory, forward_passes, memory_table
from hf_chain.data.settings import DataSettings
from hf_chain.errors import HfChainError
from hf_chain.growth.shapes import EXACT_IN_WIDTH, check_shapes
from hf_chain.methods.chain.recipe import MemberSettings, Recipe
from hf_chain.methods.chain.shapes import TowerSettings
from hf_chain.runs.environment import process_count
from hf_chain.tasks import feature_loss_weight
from hf_chain.tasks.contrastive.values import check_global_batch

if TYPE_CHECKING:
    from transformers import CLIPConfig

PLANNED_IDS = 0, 1
"""First and last token of a caption in a configuration that only serves to count MACs."""
EVALUATIONS = 2
"""A member is evaluated as it enters training and as it leaves it."""


@dataclass(frozen=True)
class DataSize:
    """What the data are to the cost of a family.

    Args:
        samples_per_epoch (`int`): training images an epoch.
        vocab_size (`int`): size of the tokenizer.
        evaluated_images (`int`): images that a member is evaluated on.
        evaluated_texts (`int`): captions and class prompts that it is.
        distinct_captions (`int`, *optional*): different captions of the training images, where they are counted.
    """

    samples_per_epoch: int
    vocab_size: int
    evaluated_images: int = 0
    evaluated_texts: int = 0
    distinct_captions: int | None = None


def family_cost(recipe: Recipe, data: DataSize | None = None) -> FamilyCost:
    """Cost of the chain a recipe describes and of training its members independently, on this launch's processes.

    Args:
        recipe (`Recipe`): the recipe.
        data (`DataSize`, *optional*): the data, once they are read; else what settings and splits say of them.

    Raises:
        HfChainError: when an epoch, or a member's training, has no whole batch.
    """
    data = data or planned_size(recipe)
    configs = _counted(recipe, data.vocab_size)
    published = None
    if recipe.predecessor is not None and not recipe.independent:
        from hf_chain.methods.chain.published import load_clip_config

        published = load_clip_config(recipe.predecessor)
    costs = []
    for member, config, predecessor in zip(recipe.members, configs, [published, *configs], strict=False):
        training = recipe.training_of(member)
        keep = training.get("image_token_keep", 1.0)
        _check_batch(recipe, member, data.samples_per_epoch)
        costs.append(
            clip_member(
                name=member.name,
                config=config,
                epochs=member.epochs,
                samples_per_epoch=data.samples_per_epoch,
                batch_size=global_batch(recipe, member),
                streamed=recipe.data.streaming,
                captions=recipe.data.captions_per_image,
                image_token_keep=keep,
                unmasked_tail=training.get("unmasked_tail", 0.1) if keep < 1 else 0.0,
                forward_passes=forward_passes(
                    training.get("micro_batch_size"), training.get("gradient_checkpointing", False)
                ),
                teacher=predecessor if _is_taught(recipe, training) else None,
                teacher_share=training.get("feature_loss_until", 1.0),
                cached_views=max(1, recipe.data.image_views) if recipe.cache_teacher_features else None,
                cached_captions=data.distinct_captions,
                evaluation_macs=EVALUATIONS
                * clip_evaluation_macs(config, data.evaluated_images, data.evaluated_texts),
            )
        )
    return FamilyCost(costs, recipe.baseline_epochs or recipe.members[0].epochs)


def global_batch(recipe: Recipe, member: MemberSettings) -> int:
    """Images of a member's batch over all processes of this launch."""
    return int(recipe.training_of(member).get("per_device_train_batch_size", 8)) * process_count()


def planned_config(recipe: Recipe, member: MemberSettings, vocab_size: int):  # type: ignore[no-untyped-def]
    """`CLIPConfig` of a member for checks: right in every shape, without a tokenizer."""
    return recipe.model.clip_config(*_shapes(member), vocab_size, *PLANNED_IDS)


def _counted(recipe: Recipe, vocab_size: int) -> list[CLIPConfig]:
    return [recipe.model.counted(*_shapes(member), vocab_size, *PLANNED_IDS) for member in recipe.members]


def _shapes(member: MemberSettings) -> tuple[TowerSettings, TowerSettings, int | None]:
    return member.vision, member.text, member.projection_dim


def planned_size(recipe: Recipe) -> DataSize:
    """What settings and splits say of the data, with one caption for each image that is evaluated.

    Raises:
        HfChainError: when the data is a stream, whose length nobody knows.
    """
    sizes = _split_sizes(recipe.data)
    samples = recipe.data.samples_per_epoch or min(sizes["train"], recipe.data.max_train_samples or sizes["train"])
    most = recipe.evaluation.max_samples
    splits = dict.fromkeys([*recipe.evaluation.splits, *recipe.data.test_splits])
    images = sum(min(sizes.get(name, 0), most or sizes.get(name, 0)) for name in splits)
    return DataSize(samples, recipe.tokenizer.vocab_size, images, images)


def _split_sizes(data: DataSettings) -> dict[str, int]:
    """Images of each split, as far as they are known without reading a stream."""
    if data.source == "scenes":
        return data.scenes.sizes()
    if data.streaming:
        if data.samples_per_epoch is None:
            raise HfChainError(
                "data.streaming is true without data.samples_per_epoch: say how many images an epoch has"
            )
        return {}
    if data.samples_per_epoch is not None:
        return {"train": data.samples_per_epoch}
    from hf_chain.data.sources import load_splits

    return {name: len(rows) for name, rows in load_splits(data).items()}


def _check_batch(recipe: Recipe, member: MemberSettings, samples: int) -> None:
    where, batch = f"members.{member.name}", global_batch(recipe, member)
    check_global_batch(f"{where}: ", batch)
    if member.epochs * samples < 1:
        raise HfChainError(f"{where}.epochs is {member.epochs:g}, less than one of {samples} images: raise it")
    if batch > samples:
        raise HfChainError(
            f"{where}: a global batch has {batch} images but the training split only {samples}: lower "
            "training.per_device_train_batch_size"
        )
    if recipe.data.streaming and member.epochs * samples < batch:
        raise HfChainError(
            f"{where}.epochs is {member.epochs:g}, in which the stream has {int(member.epochs * samples)} images, "
            f"less than a global batch of {batch}: raise it, or lower training.per_device_train_batch_size"
        )


def memory_plan(recipe: Recipe) -> str:
    """Markdown table of parameters, gradients, optimiser, activations and teacher of every member, in bytes."""
    estimates, configs = {}, _counted(recipe, recipe.tokenizer.vocab_size)
    for member, config, predecessor in zip(recipe.members, configs, [None, *configs], strict=False):
        training = recipe.training_of(member)
        batch = training.get("per_device_train_batch_size", 8)
        live = _is_taught(recipe, training) and not recipe.cache_teacher_features
        estimates[member.name] = clip_memory(
            config,
            training.get("micro_batch_size") or batch,
            captions=recipe.data.captions_per_image,
            image_token_keep=training.get("image_token_keep", 1.0),
            bf16=uses_bfloat16(training.get("bf16", False)),
            teacher=predecessor if live else None,
        )
    return memory_table(estimates)


def _is_taught(recipe: Recipe, training: dict[str, Any]) -> bool:
    return not recipe.independent and feature_loss_weight(training) > 0


def check_growth(recipe: Recipe) -> None:
    """Checks that every member can grow from the one before it.

    Raises:
        HfChainError: naming the members and what does not fit.
    """
    if recipe.independent:
        return
    configs, members = _counted(recipe, recipe.tokenizer.vocab_size), recipe.members
    for index, member in enumerate(members[1:]):
        try:
            exact = operator_of(recipe, member) in EXACT_IN_WIDTH
            check_shapes(configs[index], configs[index + 1], keep_heads=exact)
        except HfChainError as error:
            raise HfChainError(f"members.{member.name} cannot grow from {members[index].name}: {error}") from error


def operator_of(recipe: Recipe, member: MemberSettings) -> str:
    """The operator that a member grows by."""
    return member.operator or recipe.operator
