"""What a graft will cost in operations, hours and memory, as data and as a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from hf_chain.arguments.checkpointing import CHECKPOINTING
from hf_chain.arguments.precision import uses_bfloat16
from hf_chain.cost.macs import image_tokens
from hf_chain.cost.steps import ADAMW_MOMENTS, BFLOAT16, FLOAT32, MemoryEstimate
from hf_chain.cost.table import GraftComparison, comparison_sentences, hours, human, markdown_table
from hf_chain.grafting.anatomy import decoder_layers
from hf_chain.methods.graft.straight import SurrogateSaving
from hf_chain.models.grafted_vlm.vision_towers import tower_layers
from hf_chain.trainer.part_aliases import decoder_of, is_vision_language


@dataclass(frozen=True)
class Batch:
    """What one device takes at once: rows of a length, with the images of all of them."""

    rows: int
    length: int
    images: int


def stage_memory(model: PreTrainedModel, batch: Batch, training: dict[str, Any], weight_bytes: int) -> MemoryEstimate:
    """Estimates what a stage needs on one device, without sharding. Workspaces and fragmentation come on top.

    Gradients pass the frozen decoder on their way to the encoder, so its activations are held from the first trained
    weight on. What a layer holds is counted for a gated MLP and memory-efficient attention.

    Args:
        model (`PreTrainedModel`): a vision-language model, frozen as it is trained; it may be on the meta device.
        batch (`Batch`): a micro-batch.
        training (`dict`): `GraftConfig` fields.
        weight_bytes (`int`): bytes of a weight, 2 or 4.

    Returns:
        `MemoryEstimate`: bytes.
    """
    total, trained = _sizes(model.parameters())
    autocast = uses_bfloat16(training.get("bf16", True))
    number = BFLOAT16 if autocast else FLOAT32
    checkpointing = any(training.get(name) for name in CHECKPOINTING)
    # What is trained is in float32, and without autocast the rest too; autocast keeps a copy of every such matrix from
    # forward to backward.
    parameters = (weight_bytes if autocast else FLOAT32) * (total - trained) + FLOAT32 * trained
    copies = BFLOAT16 * _float32_matrices(model, weight_bytes) if autocast and trained else 0
    return MemoryEstimate(
        parameters=parameters + copies,
        gradients=FLOAT32 * trained,
        optimizer=ADAMW_MOMENTS * FLOAT32 * trained,
        activations=_activations(model, batch, number, checkpointing) if trained else 0,
        teacher=0,
    )


def _activations(model: PreTrainedModel, batch: Batch, number: int, checkpointing: bool) -> int:
    sees, text = is_vision_language(model), model.config.get_text_config()
    towers = list(tower_layers(model.vision_tower)) if sees else []
    tokens, patches = batch.rows * batch.length, batch.images * image_tokens(model.config) if sees else 0
    held, reached = [0], False
    for layer in towers:
        trained = any(parameter.requires_grad for parameter in layer.parameters())
        reached = reached or trained
        if reached:
            held.append(patches * _layer(model.config.vision_config, number, trained))
    largest = max(held)
    for layer in decoder_layers(decoder_of(model)):
        trained = any(parameter.requires_grad for parameter in layer.parameters())
        held.append(tokens * _layer(text, number, trained))
    largest = max(largest, *held)
    if checkpointing:
        streams = patches * model.config.vision_config.hidden_size * len(towers) if reached else 0
        streams += tokens * text.hidden_size * text.num_hidden_layers
        held = [largest, number * streams]
    # Logits and their gradient, and those of responses once more in float32.
    logits = tokens * text.vocab_size * (2 * number + FLOAT32)
    return sum(held) + logits


def _layer(config: Any, number: int, trained: bool) -> int:
    """Bytes of one token in one layer.

    Frozen linear layers need no inputs. What remains are the two norms' inputs (in float32), queries, keys, values and
    the output of attention, and the gate, its activation and the factor of a gated MLP.
    """
    width, inner = config.hidden_size, getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    attention = config.num_attention_heads * (getattr(config, "head_dim", None) or width // config.num_attention_heads)
    frozen = 2 * FLOAT32 * width + number * (4 * attention + 3 * inner)
    return frozen + (number * (4 * width + attention + inner) if trained else 0)


def _sizes(parameters: Iterable[nn.Parameter]) -> tuple[int, int]:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in parameters]
    return sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)


def _float32_matrices(model: PreTrainedModel, weight_bytes: int) -> int:
    weights = (module.weight for module in model.modules() if isinstance(module, nn.Linear))
    return sum(weight.numel() for weight in weights if weight.requires_grad or weight_bytes == FLOAT32)


@dataclass(frozen=True)
class Measured:
    """Conversations that were measured for the plan.

    Attributes:
        rows (`int`): conversations there are.
        sampled (`int`): of which so many were measured.
        tokens (`float`): mean length, image positions included.
        images (`float`): mean number of images.
    """

    rows: int
    sampled: int
    tokens: float
    images: float


@dataclass(frozen=True)
class SurrogatePlan:
    """The cut.

    Attributes:
        replaced (`list[str]`): ranges that are replaced.
        assumed (`bool`): whether a criterion has yet to choose them.
        layers (`int`): layers that are left.
        target_layers (`int`): layers of the target.
        cut_macs (`int`): finding the cut.
        translator_macs (`int`): making the translator.
    """

    replaced: list[str]
    assumed: bool
    layers: int
    target_layers: int
    cut_macs: int
    translator_macs: int


@dataclass(frozen=True)
class StagePlan:
    """One stage.

    Attributes:
        name (`str`): its name.
        decoder (`str`): `surrogate` or `target`.
        parts (`list[str]`): what is trained.
        parameters (`int`): of the whole model.
        trained_parameters (`int`): of what is trained.
        samples (`int`): conversations it is trained on.
        macs (`int`): training.
        evaluation_macs (`int`): the questions asked after it.
        memory (`MemoryEstimate`): on one device.
    """

    name: str
    decoder: str
    parts: list[str]
    parameters: int
    trained_parameters: int
    samples: int
    macs: int
    evaluation_macs: int
    memory: MemoryEstimate


@dataclass(frozen=True)
class GraftPlan:
    """A recipe's stages with their cost.

    Attributes:
        data (`dict[str, Measured]`): what the lengths were measured on.
        target (`StagePlan`, *optional*): the target that is trained here; it stands for a published one, and is in no
            sum.
        surrogate (`SurrogatePlan`, *optional*): the cut, where there is one.
        stages (`list[StagePlan]`): the stages.
        baseline (`list[StagePlan]`): ordinary training.
        straight (`list[StagePlan]`): what is trained on the surrogate, straight on the target: the control.
    """

    data: dict[str, Measured]
    target: StagePlan | None
    surrogate: SurrogatePlan | None
    stages: list[StagePlan]
    baseline: list[StagePlan]
    straight: list[StagePlan]

    @property
    def memory(self) -> dict[str, MemoryEstimate]:
        """Stage -> bytes on one device."""
        return {stage.name: stage.memory for stage in (*self._given, *self.stages, *self.baseline)}

    @property
    def _given(self) -> list[StagePlan]:
        return [] if self.target is None else [self.target]

    @property
    def costs(self) -> dict[str, float]:
        """What the graft costs, in MACs."""
        cut = self.surrogate
        own = {"finding the cut": cut.cut_macs, "making the translator": cut.translator_macs} if cut else {}
        return {**own, **_costs(self.stages)}

    @property
    def comparison(self) -> GraftComparison | None:
        """Both sides in MACs; `None` without a baseline."""
        ours, baseline = self.costs, _costs(self.baseline)
        return GraftComparison(ours, baseline, "MACs") if sum(ours.values()) and sum(baseline.values()) else None

    @property
    def surrogate_saving(self) -> SurrogateSaving | None:
        """What the surrogate itself saves; `None` where nothing is trained on one."""
        if not self.straight:
            return None
        after = sum(stage.macs for stage in self.stages if stage.decoder == "target")
        cut = (self.surrogate.cut_macs + self.surrogate.translator_macs) if self.surrogate else 0
        ours = cut + sum(stage.macs for stage in self.stages)
        return SurrogateSaving(ours, sum(stage.macs for stage in self.straight), after)

    def to_json(self) -> dict[str, Any]:
        """The plan as a script wants it."""
        comparison, saving = self.comparison, self.surrogate_saving
        return {
            **asdict(self),
            "surrogate_saving": None if saving is None else saving.to_json(),
            "comparison": None if comparison is None else comparison.to_json(),
            "memory": {name: memory.total for name, memory in self.memory.items()},
        }


def graft_table(plan: GraftPlan, tflops_per_second: float | None = None) -> str:
    """Writes a plan: its stages, what was measured, and the saving in words.

    Args:
        plan (`GraftPlan`): the plan.
        tflops_per_second (`float`, *optional*): sustained throughput; adds hours.

    Returns:
        `str`: Markdown, without a trailing newline.
    """
    header = ["stage", "decoder", "trained", "parameters", "samples", "training MACs", "evaluation MACs"]
    given = [] if plan.target is None else [_row(plan.target, "given: ")]
    rows = [*given, *_cut_rows(plan.surrogate), *map(_row, plan.stages)]
    rows += (_row(stage, "baseline: ") for stage in plan.baseline)
    return markdown_table(header, rows) + "\n\n" + "\n".join(_sentences(plan, tflops_per_second))


def _sentences(plan: GraftPlan, tflops_per_second: float | None) -> list[str]:
    sentences = [
        f"{name}: {one.rows:,} conversations with {one.tokens:.0f} tokens, image positions included, in the mean of"
        f" {one.sampled:,}."
        for name, one in plan.data.items()
    ]
    if plan.target is not None:
        sentences.append("The target is trained here and stands for a published one: it is in no sum.")
    if plan.surrogate is not None and plan.surrogate.assumed:
        sentences.append("The cut is assumed: the run chooses it when it has measured the target.")
    if (saving := plan.surrogate_saving) is not None:
        sentences += saving.sentences()
    comparison = plan.comparison
    sentences += comparison_sentences(comparison) if comparison else ["There is no baseline to compare with."]
    if tflops_per_second is not None:
        ours = hours(sum(plan.costs.values()), tflops_per_second)
        line = f"At {tflops_per_second:g} TFLOP/s the graft takes {ours:.3g} hours"
        if comparison:
            line += f" and the baseline {hours(comparison.baseline_total, tflops_per_second):.3g}"
        sentences.append(f"{line}.")
    return sentences


def _cut_rows(cut: SurrogatePlan | None) -> list[list[str]]:
    if cut is None:
        return []
    what = f"{cut.layers} of {cut.target_layers} layers, without {', '.join(cut.replaced)}"
    return [
        ["finding the cut", "target", what, "", "", human(cut.cut_macs), ""],
        ["making the translator", "surrogate", "translator", "", "", human(cut.translator_macs), ""],
    ]


def _row(stage: StagePlan, prefix: str = "") -> list[str]:
    trained = f"{', '.join(stage.parts)} ({human(stage.trained_parameters)})" if stage.parts else "nothing"
    macs = (human(stage.macs), human(stage.evaluation_macs))
    return [prefix + stage.name, stage.decoder, trained, human(stage.parameters), f"{stage.samples:,}", *macs]


def _costs(stages: Iterable[StagePlan]) -> dict[str, float]:
    stages = list(stages)
    costs: dict[str, float] = {stage.name: stage.macs for stage in stages}
    return {**costs, "all evaluations": sum(stage.evaluation_macs for stage in stages)}
