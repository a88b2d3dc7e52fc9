"""What a graft shows of itself while it runs: pushed stages, the report, and cards that know the outcome."""

from __future__ import annotations

from dataclasses import dataclass, field

from hf_chain.hub import PushQueue, pending
from hf_chain.hub.catch_up import refresh_card
from hf_chain.report import write_report
from hf_chain.stages.graft.workplace import Workplace
from hf_chain.stages.ledger import read_family


@dataclass
class Publisher:
    """Shows every stage once it is saved. Only the main process does so.

    Args:
        place (`Workplace`): what all stages share.
        pushes (`PushQueue`, *optional*): where models are pushed, when the recipe says so.
    """

    place: Workplace
    pushes: PushQueue | None
    _old: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Notes what an earlier attempt has shown already."""
        self._old = frozenset(name for name in self.place.stage_names if self.place.is_saved(name))

    def publish(self, stage: str) -> None:
        """Queues the push of a saved stage unless it is on the Hub, and writes the report of what is there."""
        place = self.place
        if not place.main_process:
            return
        hub = place.recipe.hub
        if self.pushes is not None and stage in {record.name for record in pending(place.recipe.run_dir, hub.prefix)}:
            self._refresh(stage)
            self._push(stage)
        if stage not in self._old:
            write_report(place.recipe.run_dir)

    def finish(self) -> None:
        """Writes the cards anew that do not tell the outcome: the baseline had not been run when they were written."""
        place = self.place
        if not place.main_process:
            return
        if self.pushes is not None:
            # A folder must not change while it is pushed.
            self.pushes.collect(wait=place.recipe.hub.timeout)
        for stage in place.stage_names:
            if place.record(stage).card_finished:
                continue
            self._refresh(stage, always=True)
            place.note("card_finished", stage)
            self._push(stage)

    def _refresh(self, stage: str, always: bool = False) -> bool:
        family = read_family(self.place.recipe.run_dir)
        return refresh_card(family, family.member(stage), self.place.recipe.hub, always)

    def _push(self, stage: str) -> None:
        if self.pushes is not None:
            self.pushes.submit(stage, self.place.folder(stage), self.place.record(stage).weights_sha256)
