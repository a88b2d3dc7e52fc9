"""Paradigms whose models are stock classes of transformers, built of the fields that a recipe names."""

from __future__ import annotations

import difflib
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hf_chain.arguments.precision import uses_bfloat16
from hf_chain.cost import MemberCost, MemoryEstimate
from hf_chain.cost.steps import ADAMW_MOMENTS, BFLOAT16, FLOAT32
from hf_chain.errors import HfChainError, reason
from hf_chain.families import VISION_TEXT, Stream, family_of, tower_family
from hf_chain.tasks.paradigm import EVALUATIONS, DataSize, Paradigm

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


class StockParadigm(Paradigm):
    """What all of them have in common: only data, samples and evaluation differ from task to task."""

    auto_class: ClassVar[str]
    """The class of transformers that finds the model's, such as `AutoModelForCausalLM`."""

    # What a task says

    def decided(self, size: DataSize, data: Any = None) -> dict[str, Any]:
        """Fields of the configuration that the data (`FamilyData`) decide, such as the size of the vocabulary."""
        return {}

    @abstractmethod
    def forward_macs(self, config: Any) -> int:
        """Forward MACs of a training sample."""

    def teacher_macs(self, config: Any) -> int:
        """Forward MACs of a live teacher on a training sample."""
        return self.forward_macs(config)

    def handing_macs(self, config: Any) -> int:
        """What a cache of a teacher's features leaves to be done of its forward at every step."""
        return 0

    def evaluation_macs(self, config: Any, size: DataSize) -> int:
        """MACs of one evaluation; a forward for each sample where the task does not say otherwise."""
        return size.evaluated * self.forward_macs(config)

    @abstractmethod
    def example(self, config: Any) -> dict[str, Any]:
        """Inputs of one training sample, labels included, on torch's meta device."""

    def processor_of(self, name: str) -> Any:
        """The processor that stands beside a model."""
        return self.load_processor(name)

    # Models

    def planned_config(self, member: Any, size: DataSize) -> PreTrainedConfig:
        """The configuration itself, as it is quick enough."""
        return self._config(member, self.decided(size))

    def checked_config(self, member: Any) -> PreTrainedConfig:
        """With what settings say of the data."""
        return self._config(member, self.decided(DataSize(1, self.recipe.tokenizer.vocab_size, classes=1)))

    def config(self, member: Any, data: Any) -> PreTrainedConfig:
        """With what processor and data say."""
        return self._config(member, self.decided(self.size(data), data))

    def _config(self, member: Any, decided: Mapping[str, Any]) -> PreTrainedConfig:
        recipe, shared = self.recipe, self.recipe.model
        where = f"members.{member.name}"
        fields = _merged(shared.model_extra or {}, decided, member.model_extra or {})
        blank = _blank(recipe.family, fields)
        _check_fields(blank, shared.model_extra or {}, "model")
        _check_fields(blank, member.model_extra or {}, where)
        config = stock_config(recipe.family, fields, shared.head_size, shared.mlp_ratio, where)
        if shared.attn_implementation is not None:
            config._attn_implementation = shared.attn_implementation
        return config

    def published_config(self, name: str) -> PreTrainedConfig:
        """Of any model of the recipe's family."""
        from transformers import AutoConfig

        from hf_chain.adapters import check_model_files

        check_model_files(name)
        try:
            config: PreTrainedConfig = AutoConfig.from_pretrained(name)
        except Exception as error:  # The Hub, JSON and configuration classes raise errors of their own.
            raise _not_loaded(name, error) from error
        if config.model_type != self.recipe.family:
            raise HfChainError(
                f"{name} is a {config.model_type} model, and the family of the recipe is {self.recipe.family}: give "
                "one of that family"
            )
        return config

    def new(self, config: Any) -> PreTrainedModel:
        """Of the class that `auto_class` finds."""
        import transformers

        # Of several classes, as DeiT has, transformers looks for the one that is named, and takes the first.
        config.architectures = config.architectures or []
        model: PreTrainedModel = getattr(transformers, self.auto_class).from_config(config)
        return model

    def load(self, name: str, config: Any = None) -> PreTrainedModel:
        """Likewise, from safetensors only."""
        from hf_chain.loaded_weights import check_loaded

        model, found = self._read(name)
        check_loaded(model, found, name)
        return model

    def _read(self, name: str) -> tuple[PreTrainedModel, dict[str, Any]]:
        """A model, and what `check_loaded` has to know."""
        import torch
        import transformers

        from hf_chain.loaded_weights import read_model

        kind, kernel = getattr(transformers, self.auto_class), self.recipe.model.attn_implementation
        try:
            return read_model(kind, name, dtype=torch.float32, attn_implementation=kernel, use_safetensors=True)
        except Exception as error:
            raise _not_loaded(name, error) from error

    def load_with_processor(self, name: str) -> tuple[PreTrainedModel, Any]:
        """A published model, or a member."""
        model = self.load(name)
        try:
            return model, self.processor_of(name)
        except Exception as error:
            raise _not_loaded(f"The processor of {name}", error) from error

    # Cost

    def counts(self, config: Any) -> tuple[int, int]:
        """Of the class itself, without memory."""
        return sum(weight.numel() for weight in self._without_memory(config).parameters()), self.forward_macs(config)

    def _without_memory(self, config: Any) -> PreTrainedModel:
        import torch

        with torch.device("meta"):
            return self.new(config)

    def member_cost(
        self, member: Any, config: Any, teacher: Any, size: DataSize, training: Mapping[str, Any], batch_size: int
    ) -> MemberCost:
        """Micro-batches are added up, so a step has one forward, and one more where activations are computed again."""
        parameters, macs = self.counts(config)
        cached = self.recipe.cache_teacher_features
        whole = self.teacher_macs(teacher) if teacher is not None else 0
        handed = self.handing_macs(teacher) if teacher is not None and cached else 0
        live = handed if cached else whole
        return MemberCost(
            name=member.name,
            parameters=parameters,
            forward=(macs, macs),
            epochs=member.epochs,
            samples_per_epoch=size.samples_per_epoch,
            batch_size=batch_size,
            streamed=self.recipe.data.streaming,
            forward_passes=1 + bool(training.get("gradient_checkpointing", False)),
            teacher=(live, live) if live else None,
            teacher_share=training.get("feature_loss_until", 1.0),
            cache_macs=self.cached_views * size.samples_per_epoch * (whole - handed) if cached else 0,
            evaluation_macs=EVALUATIONS * self.evaluation_macs(config, size),
        )

    @property
    def cached_views(self) -> int:
        """Views of a sample in a cache of teacher features."""
        return max(1, getattr(self.recipe.data, "image_views", 1))

    def memory(self, config: Any, teacher: Any, training: Mapping[str, Any]) -> MemoryEstimate:
        """In one process: what a forward on the meta device keeps for the backward pass, times the micro-batch."""
        model, bf16 = self._without_memory(config), uses_bfloat16(training.get("bf16", False))
        parameters = sum(weight.numel() for weight in model.parameters())
        micro = training.get("micro_batch_size") or training.get("per_device_train_batch_size", 8)
        return MemoryEstimate(
            parameters=FLOAT32 * parameters + (BFLOAT16 * parameters if bf16 else 0),
            gradients=FLOAT32 * parameters,
            optimizer=ADAMW_MOMENTS * FLOAT32 * parameters,
            activations=self._kept_bytes(model) * micro // (FLOAT32 // BFLOAT16 if bf16 else 1),
            teacher=FLOAT32 * self.counts(teacher)[0] if teacher is not None else 0,
        )

    def _kept_bytes(self, model: PreTrainedModel) -> int:
        """What the forward of one sample keeps for the backward pass, in float32."""
        import torch

        kept: dict[int, int] = {}
        # A matrix is kept turned, which is another tensor in the same storage.
        weights = {weight.untyped_storage()._cdata for weight in model.parameters()}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                kept[storage._cdata] = storage.nbytes()
            return tensor

        try:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                outputs = model.train()(**self.example(model.config))
        except (RuntimeError, NotImplementedError, ValueError):
            # Some forwards cannot run without data, such as those that choose experts by it. Then it is estimated: a
            # matrix keeps what it reads, and its result is read in turn.
            width = max(stream.width_of(model.config) for stream in family_of(model.config).streams)
            return 2 * FLOAT32 * self.forward_macs(model.config) // width
        del outputs
        return sum(kept.values())

    # Words

    def shape(self, member: Any, config: Any) -> dict[str, str]:
        """Width × layers, or what stages have of either."""
        return {"width × layers": width_by_layers(family_of(config).streams, config)}

    @classmethod
    def card_values(cls, config: Any, data: Mapping[str, Any]) -> dict[str, Any]:
        """The stock class that loads it."""
        return {"auto_class": cls.auto_class}


def width_by_layers(streams: Iterable[Stream], config: Any) -> str:
    """Width × layers of a stream, or of several with a slash between them."""
    sizes = [(str(stream.width_of(config)), str(stream.depth_of(config))) for stream in streams]
    return " × ".join(map("/".join, zip(*sizes, strict=True)))


_PARTS = {"vision": "vision_config", "text": "text_config"}
"""What recipes call a tower -> its field in configurations of two."""


def _blank(family: str, fields: Mapping[str, Any]) -> PreTrainedConfig:
    """A configuration of a family of which nothing is said but the kinds of its towers, where it joins any two."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kinds: dict[str, Any] = {}
    if family == VISION_TEXT:
        for part in _PARTS.values():
            tower = fields.get(part)
            given = tower.get("model_type") if isinstance(tower, Mapping) else None
            if given is None:
                raise HfChainError(f"model.{part.removesuffix('_config')}.model_type is not set: name a kind of tower")
            tower_family(part, given)
            kinds[part] = {"model_type": given}
    blank: PreTrainedConfig = CONFIG_MAPPING[family](**kinds)
    return blank


def _merged(*given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of which later ones hold, those of a tower one by one."""
    merged: dict[str, Any] = {}
    for fields in given:
        for name, value in fields.items():
            name = _PARTS.get(name, name)
            both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
            merged[name] = {**merged[name], **value} if both else value
    return merged


def _check_fields(blank: Any, fields: Mapping[str, Any], where: str) -> None:
    """Refuses fields that a configuration does not have, also those of its towers."""
    kind: Any = type(blank)
    known = set(kind.__dataclass_fields__)
    for name, value in fields.items():
        part = getattr(blank, _PARTS.get(name, name), None)
        if isinstance(value, Mapping) and hasattr(part, "to_dict"):
            _check_fields(part, value, f"{where}.{name}")
        if _PARTS.get(name, name) not in known and not hasattr(blank, _PARTS.get(name, name)):
            close = difflib.get_close_matches(name, known, n=1)
            raise HfChainError(
                f"{where}.{name} is no field of {kind.__name__}{f'; did you mean {close[0]}?' if close else ''}"
            )


def stock_config(
    family: str, fields: Mapping[str, Any], head_size: int | None, mlp_ratio: float, where: str
) -> PreTrainedConfig:
    """A configuration of a family of which sizes are named; heads and MLPs follow the width where they are not.

    Args:
        family (`str`): its `model_type`.
        fields (`Mapping[str, Any]`): fields of the configuration; those of a tower in a mapping called `vision` or
            `text`, or as the configuration calls them.
        head_size (`int`, *optional*): channels of a head, where heads follow.
        mlp_ratio (`float`): width of an MLP over that of its stream, where it follows.
        where (`str`): place in the recipe, for errors.

    Raises:
        HfChainError: for values that no model can have, or a width without whole heads.
    """
    blank = _blank(family, fields)
    kind, described = type(blank), family_of(blank)
    given = {blank.attribute_map.get(name, _PARTS.get(name, name)): value for name, value in fields.items()}
    for stream in described.streams:
        own, part = given, stream.config_of(blank)
        if stream.part:
            own = given[stream.part] = dict(given.get(stream.part) or {})
        _follow_width(stream, own, part, head_size, mlp_ratio, where)
    for name, other in described.linked:
        _link(given, name, other)
    try:
        config: PreTrainedConfig = kind(**given)
    except Exception as error:  # Each configuration class checks in its own way.
        raise HfChainError(f"{where} makes no {kind.__name__}: {reason(error)}") from error
    return config


def _link(given: dict[str, Any], name: str, other: str) -> None:
    """Gives a field the value of the one that it has to be equal to, where that alone is named."""
    parts = [given.get(part, {}) if part else given for part in (path.rpartition(".")[0] for path in (name, other))]
    field, wanted = (path.rpartition(".")[2] for path in (name, other))
    if wanted in parts[1]:
        parts[0].setdefault(field, parts[1][wanted])


def _follow_width(
    stream: Stream,
    own: dict[str, Any],
    blank: Any,
    head_size: int | None,
    mlp_ratio: float,
    where: str,
) -> None:
    """Adds heads and the MLP of a stream where its fields name none."""
    aliases = getattr(blank, "attribute_map", {})
    width_name, heads, groups, size, mlp = (
        aliases.get(name, name)
        for name in (stream.width, stream.heads, stream.key_value_heads, stream.head_size, stream.mlp)
    )
    if (width := own.get(width_name)) is None:
        return
    if head_size and heads and heads not in own:
        if width % head_size:
            raise HfChainError(
                f"{where}.{stream.field(stream.width)} is {width}, no multiple of model.head_size {head_size}: choose "
                f"one, or give {stream.field(stream.heads)}"
            )
        own[heads] = width // head_size
    if heads in own:
        if hasattr(blank, groups):
            own.setdefault(groups, own[heads])
        if size and hasattr(blank, size):
            own.setdefault(size, width // own[heads])
    if isinstance(getattr(blank, mlp, None), int) and "ratio" not in mlp:
        own.setdefault(mlp, round(mlp_ratio * width))


def _not_loaded(name: str | Path, error: Exception) -> HfChainError:
    return HfChainError(
        f"{name} cannot be loaded ({reason(error)}): give the folder or the Hub name of a model in safetensors, and "
        "check the network"
    )
