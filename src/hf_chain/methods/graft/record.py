"""A graft as its ledger tells it: its stages, the side each is on, and what it took to get there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from hf_chain.cost.table import GraftComparison
from hf_chain.errors import HfChainError
from hf_chain.runs.ledger import FamilyRecord, MemberRecord

Side = Literal["given", "graft", "baseline"]

TARGET, SURROGATE = "target", "surrogate"
"""Names of the stages that a recipe does not name, and of the decoders a stage can have."""

CUT, TRANSLATOR, EVALUATIONS = "finding the cut", "making the translator", "all evaluations"
"""Costs that are no stage of the recipe; no stage can have such a name."""


@dataclass(frozen=True)
class StageRecord:
    """One stage.

    Attributes:
        record (`MemberRecord`): What the ledger knows of it.
        side (`str`): `graft` or `baseline`, whose costs are compared; `given` is the target, which stands for a model
            that others have published, and is part of neither cost.
        decoder (`str`): Its language model: `target` or `surrogate`.
        parts (`tuple[str, ...]`): What it trains.
        data (`tuple[str, ...]`): Names of the data it is trained on.
        before (`tuple[MemberRecord, ...]`): The stages of its side that it needs, in order.
        decoder_share (`float`): Share of its data that trained the target's decoder, stages before it included.
    """

    record: MemberRecord
    side: Side
    decoder: str
    parts: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    before: tuple[MemberRecord, ...] = ()
    decoder_share: float = 0.0

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self.record.name

    @property
    def counted(self) -> bool:
        """Whether its cost is known."""
        return self.record.counted

    @property
    def training(self) -> dict[str, int]:
        """What its training cost, in MACs, by what was done: a surrogate is cut, and its translator made."""
        macs = self.record.training_macs
        if self.name == SURROGATE:
            return {CUT: macs.get("cut", 0), TRANSLATOR: macs.get("translator", 0)}
        return {self.name: macs.get("total", 0)}

    @property
    def macs(self) -> int | None:
        """What it cost: training and evaluation, in MACs; `None` before it is counted."""
        return cost_of(self.record) if self.counted else None

    @property
    def spent(self) -> int | None:
        """What it took to get here, in MACs: its own cost and that of the stages it needs."""
        needed = (*self.before, self.record)
        return sum(map(cost_of, needed)) if all(record.counted for record in needed) else None

    @property
    def seconds_spent(self) -> float | None:
        """Likewise, in seconds of training."""
        needed = (*self.before, self.record)
        return sum(record.seconds for record in needed) if all(record.counted for record in needed) else None

    @property
    def trains_decoder(self) -> bool:
        """Whether it trains weights of its language model, or LoRA beside them."""
        if self.record.trains_decoder is not None:
            return self.record.trains_decoder
        # Before the training only names are known.
        return self.uses_lora or any(part.startswith(("decoder", "language_model")) for part in self.parts)

    @property
    def uses_lora(self) -> bool:
        """Whether it trains LoRA."""
        return "lora" in self.parts

    @property
    def title(self) -> str:
        """What the stage is, such as `grafted + 10 % decoder data`."""
        if self.name in (TARGET, SURROGATE):
            return self.name
        if self.side == "baseline":
            if self.trains_decoder:
                return f"{'LoRA' if self.uses_lora else 'full-decoder'} baseline"
            return f"baseline: {self.name}"
        grafted = any(record.name == SURROGATE for record in self.before)
        if self.decoder == SURROGATE or not grafted or (self.parts and not self.trains_decoder):
            return f"{self.name} on the {self.decoder}"
        if not self.parts:
            return "grafted (nothing trained)"
        return f"grafted + {100 * self.decoder_share:g} % decoder data{' (LoRA)' if self.uses_lora else ''}"


@dataclass(frozen=True)
class GraftRecord:
    """A run of a grafting recipe, finished or not.

    Attributes:
        family (`FamilyRecord`): The ledger.
        stages (`tuple[StageRecord, ...]`): All stages of the recipe in their order.
    """

    family: FamilyRecord
    stages: tuple[StageRecord, ...]

    def stage(self, name: str) -> StageRecord:
        """The stage called `name`.

        Raises:
            HfChainError: when the recipe has none.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise HfChainError(f"{name!r} is no stage of this run: it has {', '.join(s.name for s in self.stages)}")

    def side(self, side: Side) -> list[StageRecord]:
        """The stages of one side."""
        return [stage for stage in self.stages if stage.side == side]

    @property
    def steps(self) -> list[StageRecord]:
        """The stages a graft is judged by: the last on the surrogate, those on the target, the baseline's last.

        Without a surrogate the last one on the target, and others that were asked.
        """
        graft = [stage for stage in self.side("graft") if stage.name != SURROGATE]
        on_surrogate = [stage for stage in graft if stage.decoder == SURROGATE][-1:]
        on_target = [stage for stage in graft if stage.decoder == TARGET]
        shown = [s for s in on_target if on_surrogate or s is on_target[-1] or s.record.metrics_after]
        return [*on_surrogate, *shown, *self.side("baseline")[-1:]]

    @property
    def uses_surrogate(self) -> bool:
        """Whether anything is trained on a surrogate."""
        return any(stage.name == SURROGATE for stage in self.stages)

    def step_title(self, stage: StageRecord) -> str:
        """Title of one of `steps`; the last stage on the surrogate is what the surrogate comes to."""
        return SURROGATE if stage.decoder == SURROGATE else stage.title

    def comparison(self) -> GraftComparison | None:
        """Both sides in MACs; `None` before both are done, or without a baseline."""
        return self._compared("MACs", _macs_of)

    def comparison_in_seconds(self) -> GraftComparison | None:
        """Both sides in seconds of training; of the surrogate's, all that it took to make it."""
        return self._compared("seconds", lambda stages: {stage.name: stage.record.seconds for stage in stages})

    def _compared(self, unit: str, costs: Any) -> GraftComparison | None:
        ours, baseline = self.side("graft"), self.side("baseline")
        if not ours or not baseline or not all(stage.counted for stage in (*ours, *baseline)):
            return None
        sides = costs(ours), costs(baseline)
        return GraftComparison(*sides, unit) if all(sum(side.values()) for side in sides) else None


def is_graft(recipe: Mapping[str, Any]) -> bool:
    """Whether the values of a recipe, from its file or a ledger, are those of a graft: of a target, or in stages."""
    return not {"target", "stages"}.isdisjoint(recipe)


def graft_record(family: FamilyRecord) -> GraftRecord:
    """Lays out what a ledger knows along the stages of its recipe.

    Args:
        family (`FamilyRecord`): The ledger of a graft, see `is_graft`.
    """
    return GraftRecord(family, tuple(_stages(family)))


def _stages(family: FamilyRecord) -> Iterator[StageRecord]:
    recipe = family.recipe
    known = {record.name: record for record in family.members}

    def record(name: str) -> MemberRecord:
        found = known.get(name) or MemberRecord(name)
        return replace(found, training_macs=_honest(found.training_macs)) if name == SURROGATE else found

    if new := recipe["target"].get("new"):
        yield StageRecord(record(TARGET), "given", TARGET, (TARGET,), tuple(new.get("data") or ()))
    ours: list[MemberRecord] = []
    if any(settings["decoder"] == SURROGATE for settings in recipe["stages"]):
        yield StageRecord(record(SURROGATE), "graft", SURROGATE)
        ours.append(record(SURROGATE))
    yield from _side("graft", recipe["stages"], ours, record)
    yield from _side("baseline", recipe.get("baseline") or [], [], record)


def _side(
    side: Side, stages: Sequence[dict[str, Any]], before: list[MemberRecord], record: Any
) -> Iterator[StageRecord]:
    share = 0.0
    for settings in stages:
        parts, data = tuple(settings.get("parts") or ()), tuple(settings.get("data") or ())
        stage = StageRecord(record(settings["name"]), side, settings["decoder"], parts, data, tuple(before))
        if stage.trains_decoder and stage.decoder == TARGET:
            part = settings.get("share", 1.0)
            seen = part * min(1.0, settings.get("epochs", 1.0))
            # Shares are always the same rows; stages that take less than an epoch of everything draw them anew.
            share = max(share, seen) if part < 1 else min(1.0, share + seen)
        yield replace(stage, decoder_share=share)
        before.append(stage.record)


def _honest(macs: dict[str, int]) -> dict[str, int]:
    """Costs of a surrogate under their names: old ledgers have those of the cut as a teacher's."""
    names = {"teacher": "cut", "student": "translator"}
    return {names.get(name, name): count for name, count in macs.items()}


def cost_of(record: MemberRecord) -> int:
    """MACs of a stage: training and evaluation."""
    return record.training_macs.get("total", 0) + record.evaluation_macs


def _macs_of(stages: Sequence[StageRecord]) -> dict[str, float]:
    costs: dict[str, float] = {}
    for stage in stages:
        costs |= stage.training
    return costs | {EVALUATIONS: sum(stage.record.evaluation_macs for stage in stages)}
