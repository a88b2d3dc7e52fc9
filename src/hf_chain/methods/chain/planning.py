"""What a recipe will cost in compute and memory, and whether its members can grow; starts no torch."""

from __future__ import annotations

from dataclasses import dataclass

from hf_chain.arguments.precision import uses_bfloat16
from hf_chain.cost import FamilyCost, MemberCost, clip_memory, evaluation_macs, forward_passes, memory_table
from hf_chain.data.settings import DataSettings
from hf_chain.errors import HfChainError
from hf_chain.growth.shapes import EXACT_IN_WIDTH, check_shapes
from hf_chain.methods.chain.recipe import MemberSettings, Recipe
from hf_chain.methods.chain.shapes import TowerSettings
from hf_chain.runs.environment import process_count
from hf_chain.tasks.contrastive.values import check_global_batch

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
    configs = [recipe.model.counted(*_shapes(member), data.vocab_size, *PLANNED_IDS) for member in recipe.members]
    published = None
    if recipe.predecessor is not None and not recipe.independent:
        from hf_chain.methods.chain.published import load_clip_config

        published = load_clip_config(recipe.predecessor)
    costs = []
    for member, config, predecessor in zip(recipe.members, configs, [published, *configs], strict=False):
        training = recipe.training_of(member)
        taught = not recipe.independent and training.get("feature_loss_weight", 500.0) > 0
        keep = training.get("image_token_keep", 1.0)
        _check_batch(recipe, member, data.samples_per_epoch)
        costs.append(
            MemberCost(
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
                teacher=predecessor if taught else None,
                teacher_share=training.get("feature_loss_until", 1.0),
                cached_views=max(1, recipe.data.image_views) if recipe.cache_teacher_features else None,
                cached_captions=data.distinct_captions,
                evaluation_macs=EVALUATIONS * evaluation_macs(config, data.evaluated_images, data.evaluated_texts),
            )
        )
    return FamilyCost(costs, recipe.baseline_epochs or recipe.members[0].epochs)


def global_batch(recipe: Recipe, member: MemberSettings) -> int:
    """Images of a member's batch over all processes of this launch."""
    return int(recipe.training_of(member).get("per_device_train_batch_size", 8)) * process_count()


def planned_config(recipe: Recipe, member: MemberSettings, vocab_size: int):  # type: ignore[no-untyped-def]
    """`CLIPConfig` of a member for checks: right in every shape, without a tokenizer."""
    return recipe.model.clip_config(*_shapes(member), vocab_size, *PLANNED_IDS)


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


def memory_plan(recipe: Recipe, cost: FamilyCost) -> str:
    """Markdown table of parameters, gradients, optimiser, activations and teacher of every member, in bytes."""
    estimates = {}
    for member, planned in zip(recipe.members, cost.members, strict=True):
        training = recipe.training_of(member)
        batch = training.get("per_device_train_batch_size", 8)
        estimates[member.name] = clip_memory(
            planned.config,
            training.get("micro_batch_size") or batch,
            captions=planned.captions,
            image_token_keep=planned.image_token_keep,
            bf16=uses_bfloat16(training.get("bf16", False)),
            teacher=planned.teacher if planned.cached_views is None else None,
        )
    return memory_table(estimates)


def check_growth(recipe: Recipe, cost: FamilyCost) -> None:
    """Checks that every member can grow from the one before it.

    Raises:
        HfChainError: naming the members and what does not fit.
    """
    if recipe.independent:
        return
    for small, large, member in zip(cost.members, cost.members[1:], recipe.members[1:], strict=False):
        try:
            check_shapes(small.config, large.config, keep_heads=operator_of(recipe, member) in EXACT_IN_WIDTH)
        except HfChainError as error:
            raise HfChainError(f"members.{member.name} cannot grow from {small.name}: {error}") from error


def operator_of(recipe: Recipe, member: MemberSettings) -> str:
    """The operator that a member grows by."""
    return member.operator or recipe.operator
