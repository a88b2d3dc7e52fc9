"""The numbers of a graft's report, read once from the ledger and from what the stages left in their folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from hf_chain.cost import clip_parameters
from hf_chain.methods.graft.card.numbers import read_translator
from hf_chain.methods.graft.headline import EXACT, Headline, headline_of
from hf_chain.methods.graft.record import SURROGATE, GraftRecord, StageRecord, graft_record
from hf_chain.methods.graft.report.examples import Example, read_examples
from hf_chain.methods.graft.straight import STRAIGHT
from hf_chain.runs.ledger import LEDGER_NAME, FamilyRecord, read_family

YES_NO = "yes_no_f1"
"""The metric that stands beside the headline's."""
TRAJECTORY_NAME = "trajectory.json"


@dataclass(frozen=True)
class Given:
    """A model that the graft starts from and does not pay for: its name and, where its training is known, its cost.

    `macs` are multiply-accumulate operations, `seconds` those of training.
    """

    what: str
    name: str
    parameters: int = 0
    macs: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class GraftSummary:
    """A graft as its report shows it.

    Args:
        graft (`GraftRecord`): The stages.
        split (`str`, *optional*): Evaluated data that the headline numbers are on, questions before captions; `None`
            before the first evaluation.
        given (`tuple[Given, ...]`): Target and encoder.
        translator (`dict`): The translator's report, as `TranslatorReport`; empty when there is none.
        trajectory (`Path`, *optional*): File of the target's trajectory.
        examples (`tuple[Example, ...]`): Questions with the answers of every step.
        straight (`StageRecord`, *optional*): The last stage of the control, the run without a surrogate.
    """

    graft: GraftRecord
    split: str | None
    given: tuple[Given, ...]
    translator: dict[str, Any]
    trajectory: Path | None
    examples: tuple[Example, ...]
    straight: StageRecord | None = None

    @property
    def record(self) -> FamilyRecord:
        """The ledger."""
        return self.graft.family

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self.record.recipe.get("name") or self.record.run_dir.resolve().name)

    @property
    def splits(self) -> list[str]:
        """Evaluated data, the primary one first."""
        return list(dict.fromkeys(split for step in self.graft.steps for split in step.record.metrics_after))

    @property
    def baseline(self) -> StageRecord | None:
        """The baseline's last stage, once it is done."""
        last = self.graft.side("baseline")[-1:]
        return last[0] if last and last[0].counted else None

    @property
    def headline(self) -> Headline:
        """The metric that sums the models up."""
        return headline_of(self.measured(self.split))

    def measured(self, split: str | None) -> list[dict[str, float]]:
        """Metrics of every step that was asked, on the data `split`."""
        return [found[split] for step in self.graft.steps if split in (found := step.record.metrics_after)]

    def metric(self, stage: StageRecord, name: str | None = None) -> float | None:
        """A metric of a stage on the primary data, by default the headline's."""
        found = stage.record.metrics_after.get(self.split, {}) if self.split else {}
        return found.get(name or self.headline.name)

    def share_of_baseline(self, stage: StageRecord) -> float | None:
        """What it took to get to a stage, divided by the baseline's whole cost."""
        whole = self.baseline.spent if self.baseline else None
        return stage.spent / whole if whole and stage.spent is not None else None


def summarize_graft(family: FamilyRecord) -> GraftSummary:
    """Collects the numbers of a run, finished or not.

    Args:
        family (`FamilyRecord`): Its ledger.

    Raises:
        HfChainError: when a file that a stage left is damaged.
    """
    graft = graft_record(family)
    measured = [(split, found) for step in graft.steps for split, found in step.record.metrics_after.items()]
    questions = (split for split, found in measured if EXACT.name in found)
    split = next(questions, next((split for split, _ in measured), None))
    folder = family.run_dir / next((s.record.folder for s in graft.stages if s.name == SURROGATE), "")
    trajectory = folder / TRAJECTORY_NAME
    return GraftSummary(
        graft=graft,
        split=split,
        given=(_target(graft), *_encoder(graft)),
        translator=read_translator(folder),
        trajectory=trajectory if trajectory.is_file() else None,
        examples=tuple(read_examples(graft, split)) if split else (),
        straight=_straight(family),
    )


def _straight(family: FamilyRecord) -> StageRecord | None:
    """The last stage of the run that `--straight` leaves beside this one, once it is done."""
    folder = family.run_dir.with_name(family.run_dir.name + STRAIGHT)
    if not (folder / LEDGER_NAME).is_file():
        return None
    control = read_family(folder)
    last = graft_record(control).side("graft")[-1:]
    return last[0] if control.finished and last else None


def _target(graft: GraftRecord) -> Given:
    settings = graft.family.recipe["target"]
    trained = next(iter(graft.side("given")), None)
    if trained is None:
        name = settings["name_or_path"] + (f"@{settings['revision']}" if settings.get("revision") else "")
        return Given("target", name)
    record = trained.record
    if not trained.counted:
        return Given("target", "trained here", record.parameters)
    return Given("target", "trained here", record.parameters, record.training_macs["total"], record.seconds)


def _encoder(graft: GraftRecord) -> list[Given]:
    """The encoder, with what its chain took up to it where that run is still there."""
    sides = (*graft.side("graft"), *graft.side("baseline"))
    first = next((stage for stage in sides if stage.name != SURROGATE), None)
    if first is None or first.record.parent is None:
        return []
    path = Path(first.record.parent)
    if not (path.parent / LEDGER_NAME).is_file():
        return [Given("encoder", first.record.parent)]
    members = read_family(path.parent).members
    names = [member.folder for member in members]
    needed = members[: names.index(path.name) + 1] if path.name in names else []
    name = "/".join(path.parts[-2:])
    if not needed or not all(member.training_macs for member in needed):
        return [Given("encoder", name)]
    macs = sum(member.training_macs["total"] for member in needed)
    return [Given("encoder", name, _used_parameters(path), macs, sum(member.seconds for member in needed))]


def _used_parameters(member: Path) -> int:
    """Of the vision tower, as the text tower of a dual encoder is not used; 0 where its folder is gone."""
    try:
        return clip_parameters(AutoConfig.from_pretrained(member, local_files_only=True).vision_config)
    except (OSError, ValueError):
        return 0
