"""The control of every graft: the same parts for as many epochs straight on the target, without a surrogate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hf_chain.cost import human
from hf_chain.cost.table import saving_words
from hf_chain.errors import HfChainError
from hf_chain.hub.settings import HubSettings
from hf_chain.methods.graft.recipe import GraftRecipe, GraftStageSettings

STRAIGHT = "-straight"
"""Ends the name of its run."""
TRANSLATOR = "translator"
PAYS = 0.1
"""Share of straight training from which on a surrogate is worth its trouble."""


def straight(recipe: GraftRecipe) -> GraftRecipe:
    """The recipe of a run without a surrogate, which says what that saves.

    A baseline trains other parts, or longer; this trains what the stages train, at their rates, on the target. There
    is no translator to train, nor text that only it would learn from, and nothing to refit.

    Args:
        recipe (`GraftRecipe`): The graft.

    Raises:
        HfChainError: When no stage trains anything on a surrogate.
    """
    stages = straight_stages(recipe)
    if not stages:
        raise HfChainError(
            f"{recipe.name} trains nothing on a surrogate, which could be trained straight on the target"
        )
    rest = [stage for stage in recipe.stages if stage.decoder == "target" and stage.parts]
    return recipe.model_copy(
        update={"name": recipe.name + STRAIGHT, "stages": [*stages, *rest], "baseline": [], "hub": HubSettings()}
    )


def straight_stages(recipe: GraftRecipe) -> list[GraftStageSettings]:
    """The stages on the surrogate as they are without one.

    Args:
        recipe (`GraftRecipe`): The graft.
    """
    seen = {name for stage in recipe.stages if stage.parts and TRANSLATOR not in stage.parts for name in stage.data}
    stages = []
    for stage in recipe.stages:
        parts = {name: rate for name, rate in stage.parts.items() if name != TRANSLATOR}
        if stage.decoder != "surrogate" or not parts:
            continue
        # Text is for the translator: parts around the image learn nothing from it.
        shown = [name for name in stage.data if name in seen] if len(parts) < len(stage.parts) else []
        stages.append(stage.model_copy(update={"decoder": "target", "parts": parts, "data": shown or stage.data}))
    return stages


@dataclass(frozen=True)
class SurrogateSaving:
    """What a surrogate saves over the same trainings straight on the target, in MACs of training.

    Args:
        graft (`int`): the cut, the translator and every stage.
        straight (`int`): the stages on the surrogate, straight on the target.
        after (`int`): stages after the graft, which may mend what was grafted; straight, they come on top or not.
    """

    graft: int
    straight: int
    after: int

    @property
    def share(self) -> float:
        """Of the same trainings without a surrogate; below 0 it costs more."""
        return 1 - self.graft / (self.straight + self.after)

    @property
    def share_without_after(self) -> float:
        """Likewise where those need no stage after them."""
        return 1 - self.graft / self.straight

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "share": self.share, "share_without_after": self.share_without_after}

    def sentences(self) -> list[str]:
        """The control in words, and advice where a surrogate does not pay."""
        straight = self.straight + self.after
        lines = [
            f"The same parts for as many epochs straight on the target, without a surrogate, cost {human(straight)} "
            f"MACs of training, with it {human(self.graft)}: {saving_words(self.share)}."
        ]
        if self.after:
            lines.append(
                "Without the stages after the graft, which straight training may not need, it is "
                f"{human(self.straight)}: then the graft costs {saving_words(self.share_without_after)}."
            )
        if self.share_without_after < PAYS:
            lines.append(
                "A surrogate hardly pays here: cut deeper, leave out stages on the target, or train straight on the "
                "target, by hf-chain run with --straight."
            )
        return lines
