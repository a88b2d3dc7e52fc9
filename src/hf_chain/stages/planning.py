"""What a recipe will cost, before anything is trained."""

from __future__ import annotations

from hf_chain.cost import FamilyCost, MemberCost
from hf_chain.data import DataSettings, load_splits
from hf_chain.errors import HfChainError
from hf_chain.stages.recipe import MemberSettings, Recipe

PLANNED_BOS, PLANNED_EOS = 0, 1
"""Token ids of a configuration that only serves to count MACs."""


def family_cost(recipe: Recipe, samples_per_epoch: int | None = None, vocab_size: int | None = None) -> FamilyCost:
    """Cost of the chain a recipe describes and of training its members independently.

    Args:
        recipe (`Recipe`): the recipe.
        samples_per_epoch (`int`, *optional*): training images an epoch; looked up when not given.
        vocab_size (`int`, *optional*): size of the tokenizer; by default what the recipe asks for.
    """
    samples = samples_per_epoch or training_samples(recipe.data)
    vocabulary = vocab_size or recipe.tokenizer.vocab_size
    configs = [planned_config(recipe, member, vocabulary) for member in recipe.members]
    costs = []
    for index, (member, config) in enumerate(zip(recipe.members, configs, strict=True)):
        training = recipe.training_of(member)
        if member.epochs * samples < 1:
            raise HfChainError(
                f"members.{member.name}.epochs is {member.epochs:g}, less than one of {samples} images: raise it"
            )
        has_teacher = index > 0 and not recipe.independent and training.get("feature_loss_weight", 500.0) > 0
        keep = training.get("image_token_keep", 1.0)
        costs.append(
            MemberCost(
                name=member.name,
                config=config,
                epochs=member.epochs,
                samples_per_epoch=samples,
                captions=recipe.data.captions_per_image,
                image_token_keep=keep,
                unmasked_tail=training.get("unmasked_tail", 0.1) if keep < 1 else 0.0,
                forward_passes=1 if training.get("micro_batch_size") is None else 2,
                teacher=configs[index - 1] if has_teacher else None,
                teacher_share=training.get("feature_loss_until", 1.0),
                cached_views=max(1, recipe.data.image_views) if recipe.cache_teacher_features else None,
            )
        )
    return FamilyCost(costs, recipe.baseline_epochs or recipe.members[0].epochs)


def planned_config(recipe: Recipe, member: MemberSettings, vocab_size: int):  # type: ignore[no-untyped-def]
    """`CLIPConfig` of a member for counting: right in every shape, without a tokenizer."""
    shapes = (member.vision, member.text, member.projection_dim)
    return recipe.model.clip_config(*shapes, vocab_size, PLANNED_BOS, PLANNED_EOS)


def training_samples(data: DataSettings) -> int:
    """Training images an epoch, from the settings where they say it and from the data otherwise.

    Raises:
        HfChainError: when the data is a stream, whose length nobody knows.
    """
    if data.samples_per_epoch is not None:
        return data.samples_per_epoch
    if data.source == "scenes":
        return min(data.scenes.train, data.max_train_samples or data.scenes.train)
    if data.streaming:
        raise HfChainError("data.streaming is true without data.samples_per_epoch: say how many images an epoch has")
    return len(load_splits(data)["train"])
