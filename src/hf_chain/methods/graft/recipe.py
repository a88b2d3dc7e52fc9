"""The recipe of a graft: which encoder is trained for which language model, on what, in which stages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, PrivateAttr, field_validator, model_validator

from hf_chain.arguments.field_checks import check_needed
from hf_chain.data.chat.settings import ChatDataSettings
from hf_chain.errors import HfChainError
from hf_chain.grafting.criteria import CRITERIA
from hf_chain.grafting.translator.fit import method_steps
from hf_chain.grafting.translator.splice_runs import HELD_OUT_EVERY
from hf_chain.grafting.translator.translator_config import TranslatorConfig, check_translator_values
from hf_chain.hub.settings import HubSettings
from hf_chain.methods.graft.parts_of_recipe import EncoderSettings, SurrogateSettings, TargetSettings, VLMSettings
from hf_chain.runs.recipe_file import read_values, validated
from hf_chain.runs.training_fields import check_training
from hf_chain.settings import LARGEST_SEED, MOST_EPOCHS, FolderName, Settings, expanded
from hf_chain.trainer.graft_config import GraftConfig, check_graft_values

DecoderName = Literal["surrogate", "target"]


class GraftStageSettings(Settings):
    """One stage: a vision-language model on the surrogate or on the target, and what is trained of it."""

    name: FolderName = Field(description="Name of the stage; part of its folder and repository name.")
    decoder: DecoderName = Field(
        description="Language model of the stage: surrogate or target. From one to the other the encoder is grafted."
    )
    parts: dict[str, float | None] = Field(
        {}, description="Trained parts and their learning rates, such as `encoder.last:8: 5e-5`; none trains nothing."
    )
    refit: int | None = Field(
        None,
        ge=HELD_OUT_EVERY,
        description="Train nothing, but fit the translator again in closed form, on so many conversations of the data "
        "with their images, as the adapter of the stage before shows them.",
    )
    replaced: str | None = Field(
        None,
        description="With `refit`: cut a larger surrogate first, in which only these layers are replaced, such as "
        "20-26.",
    )
    data: list[str] = Field(["images"], min_length=1, description="Names of the data that the stage is trained on.")
    share: float = Field(
        1.0, gt=0, le=1, description="How much of that data is used: a random subset, always the same."
    )
    epochs: float = Field(
        1.0, gt=0, le=MOST_EPOCHS, description="Passes over that share of the data; 0.1 takes a tenth of it."
    )
    special_tokens_in_loss: bool = Field(True, description="Whether header and end mark of a response are learnt.")
    training: dict[str, Any] = Field({}, description="`GraftConfig` fields of this stage, over those of the recipe.")

    @model_validator(mode="after")
    def _nothing_is_set_that_has_no_use(self) -> GraftStageSettings:
        if self.parts:
            if "lora" in self.training and "lora" not in self.parts:
                raise ValueError("training.lora is set, but lora is none of the parts; add it there, or leave it out")
            return self
        fields = ("epochs", "share", "training", "special_tokens_in_loss")
        for name in fields:
            if (value := getattr(self, name)) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is {value!r}, but the stage trains no parts; leave it out, or name parts")
        return self


class AnswerSettings(Settings):
    """The `evaluation` section: questions asked of the models that a graft is judged by."""

    data: list[str] = Field(
        ["images"], min_length=1, description="Names of the data whose questions are asked, or captions."
    )
    splits: list[str] = Field(["validation"], min_length=1, description="Splits that are asked.")
    batch_size: int = Field(64, ge=1, description="Questions in one forward.")
    max_new_tokens: int = Field(16, ge=1, description="Most tokens of an answer; captions may have 48.")
    max_samples: int | None = Field(None, ge=1, description="Questions of each split, spread evenly; null asks all.")


class GraftRecipe(Settings):
    """Everything that decides what a graft produces."""

    name: FolderName = Field(description="Name of the run; its folder is `<output_dir>/<name>`.")
    seed: int = Field(0, ge=0, le=LARGEST_SEED, description="Seed of new weights, questions and data order.")
    output_dir: str = Field("runs", min_length=1, description="Folder of all runs.")
    target: TargetSettings = Field(description="The language model that the encoder is meant for.")
    encoder: EncoderSettings = Field(description="The vision encoder.")
    surrogate: SurrogateSettings = Field(SurrogateSettings(), description="How the surrogate is cut and mended.")
    model: VLMSettings = Field(VLMSettings(), description="What joins encoder and language model.")
    data: dict[str, ChatDataSettings] = Field(min_length=1, description="Conversations, each source under a name.")
    max_length: int | None = Field(None, ge=8, description="Tokens from which on a conversation is cut.")
    pack_tokens: int | None = Field(
        None,
        ge=8,
        description="Lay conversations one after the other, without padding, in rows of this many tokens, which batch "
        "sizes then count; null pads them.",
    )
    image_prompts: bool = Field(False, description="Put one of thirty wordings around every image in training.")
    reweighting_order: float | None = Field(
        None, gt=0, description="Order of the weights of short responses about images; null weighs all alike."
    )
    stages: list[GraftStageSettings] = Field(min_length=1, description="The stages, in order.")
    baseline: list[GraftStageSettings] = Field([], description="Stages of ordinary training on the target.")
    training: dict[str, Any] = Field({}, description="`GraftConfig` fields, the same for all stages.")
    evaluation: AnswerSettings = Field(AnswerSettings(), description="What the judged stages are asked.")
    hub: HubSettings = Field(HubSettings(), description="Where results are pushed.")

    _folder: Path = PrivateAttr(Path())

    _paths = field_validator("output_dir")(expanded)

    @model_validator(mode="after")
    def _stages_make_a_graft(self) -> GraftRecipe:
        reserved = ("target", "surrogate")
        names = [*reserved, *(stage.name for stage in (*self.stages, *self.baseline))]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"stages and baseline have {name!r} twice, or it is one of {', '.join(reserved)}")
        decoders = [stage.decoder for stage in self.stages]
        if "surrogate" in decoders[1:] and decoders != sorted(decoders):
            raise ValueError("stages goes back from the target to the surrogate; put stages on the surrogate first")
        for stage in (*self.stages, *self.baseline):
            if stage.replaced is not None:
                if stage.refit is None:
                    raise ValueError(f"{stage.name} has replaced without refit; the new translator has to be fitted")
                _check_layers(f"{stage.name}.replaced", stage.replaced)
            if stage.refit is None:
                continue
            if stage.decoder == "target" or stage is self.stages[0]:
                raise ValueError(f"{stage.name}.refit needs the surrogate, and before it a stage with an adapter")
            if stage.parts:
                raise ValueError(f"{stage.name} has refit and parts; make a stage of each")
        for stage in self.baseline:
            if stage.decoder != "target":
                raise ValueError(f"baseline.{stage.name}.decoder is {stage.decoder!r}; it can only be target")
        for stage in (*self.stages, *self.baseline):
            for source in stage.data:
                self._require_data(source, f"{stage.name}.data")
            values = self.training_of(stage)
            check_training(values, f"{stage.name}.training", GraftConfig, check_graft_values, stage.training)
            try:
                check_graft_values({"parts": stage.parts} if stage.parts else {})
            except HfChainError as error:
                raise ValueError(f"{stage.name}: {error}") from error
        try:
            check_needed(GraftConfig, self.training, self.training)
        except HfChainError as error:
            raise ValueError(f"training.{error}") from error
        if "lora" in self.training and not any("lora" in stage.parts for stage in (*self.stages, *self.baseline)):
            raise ValueError("training.lora is set, but no stage has the part lora; add it there, or leave it out")
        if self.target.new is not None:
            check_training(self.target.new.training, "target.new.training", GraftConfig, check_graft_values)
        for source in self.evaluation.data:
            self._require_data(source, "evaluation.data")
        for source in self.target.new.data if self.target.new else ():
            self._require_data(source, "target.new.data")
        if self.surrogate.calibration.data is not None:
            self._require_data(self.surrogate.calibration.data, "surrogate.calibration.data")
        return self

    @model_validator(mode="after")
    def _stages_have_repositories(self) -> GraftRecipe:
        self.hub.check_names(self.step_names, "stages")
        return self

    @model_validator(mode="after")
    def _streams_can_be_trained_on(self) -> GraftRecipe:
        for name in self.target.new.data if self.target.new else ():
            if self.data[name].streaming:
                raise ValueError(f"target.new.data names the stream {name}; unset its streaming")
        for stage in (*self.stages, *self.baseline):
            streams = [name for name in stage.data if self.data[name].streaming]
            if streams and len(stage.data) > 1:
                raise ValueError(f"{stage.name}.data mixes the stream {streams[0]} with others; unset its streaming")
            if streams and stage.share < 1:
                raise ValueError(f"{stage.name}.share is {stage.share:g} of the stream {streams[0]}; set its epochs")
            for field, value in (("save_strategy", "epoch"), ("train_sampling_strategy", "group_by_length")):
                if streams and self.training_of(stage).get(field) == value:
                    raise ValueError(
                        f"{stage.name}.training.{field} is {value}, and the stream {streams[0]} has neither an end "
                        "nor lengths; choose another"
                    )
            if streams and self.data[streams[0]].max_train_samples is None:
                raise ValueError(
                    f"data.{streams[0]}.streaming is true without max_train_samples; say how many conversations an "
                    "epoch has"
                )
        return self

    @model_validator(mode="after")
    def _conversations_fit_into_packs(self) -> GraftRecipe:
        if self.pack_tokens is None:
            return self
        if self.max_length is None or self.max_length > self.pack_tokens:
            raise ValueError(
                f"max_length is {self.max_length} and pack_tokens {self.pack_tokens}; set max_length, at most that"
            )
        for name, data in self.data.items():
            if data.streaming:
                raise ValueError(f"data.{name} is a stream, whose packs nobody can count; leave pack_tokens out")
        return self

    @model_validator(mode="after")
    def _criterion_is_known(self) -> GraftRecipe:
        chosen = self.surrogate.replaced
        known = [name for name in CRITERIA if name != "explicit"]
        if chosen not in known:
            _check_layers("surrogate.replaced", chosen, known)
        if self.surrogate.budget is not None and chosen not in known:
            raise ValueError(f"surrogate.budget is for criteria, and layers {chosen} are named; leave it out")
        return self

    @model_validator(mode="after")
    def _translator_can_be_made(self) -> GraftRecipe:
        try:
            method_steps(self.surrogate.translator)
        except HfChainError as error:
            raise ValueError(f"surrogate.translator: {error}") from error
        options = {**self.surrogate.translator_training}
        epochs = options.pop("num_train_epochs", 1.0)
        if not isinstance(epochs, (int, float)) or not epochs > 0:
            raise ValueError(f"surrogate.translator_training.num_train_epochs is {epochs!r}; it must be above 0")
        check_training(options, "surrogate.translator_training", TranslatorConfig, check_translator_values)
        if self.surrogate.translator_training and not any(
            method.startswith("train") for method in self.surrogate.translator
        ):
            methods = ", ".join(self.surrogate.translator)
            raise ValueError(
                f"surrogate.translator_training is set, but surrogate.translator is {methods}; add a method such as "
                "train:hidden, or leave it out"
            )
        return self

    def _require_data(self, source: str, where: str) -> None:
        if source not in self.data:
            raise ValueError(f"{where} names {source!r}; data has {', '.join(self.data)}")

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        return Path(self.output_dir) / self.name

    @property
    def chain_path(self) -> Path:
        """The encoder's chain, which is named from the recipe's own folder, or else from the working directory."""
        chain = Path(str(self.encoder.chain))
        beside = self._folder / chain
        return beside if beside.exists() else chain

    @property
    def judged(self) -> set[str]:
        """Stages that are asked: the last on the surrogate, those on the target after it, and the baseline's last.

        Without a surrogate the last one alone, as of a baseline.
        """
        on_surrogate = [stage.name for stage in self.stages if stage.decoder == "surrogate"]
        on_target = [stage.name for stage in self.stages if stage.decoder == "target"]
        grafted = on_target if on_surrogate else on_target[-1:]
        return {*on_surrogate[-1:], *grafted, *(stage.name for stage in self.baseline[-1:])}

    @property
    def needs_surrogate(self) -> bool:
        """Whether a stage is trained on a surrogate."""
        return any(stage.decoder == "surrogate" for stage in self.stages)

    @property
    def step_names(self) -> list[str]:
        """All stages in the order in which they are walked."""
        names = ["target"] if self.target.new is not None else []
        names += ["surrogate"] if self.needs_surrogate else []
        return [*names, *(stage.name for stage in (*self.stages, *self.baseline))]

    def training_of_step(self, name: str) -> dict[str, Any]:
        """Fields of the training of a stage, of the target that is trained here or of the translator."""
        if name == "surrogate":
            return self.surrogate.translator_training
        if name == "target" and self.target.new is not None:
            return self.target.new.training
        return next(self.training_of(stage) for stage in (*self.stages, *self.baseline) if stage.name == name)

    def training_of(self, stage: GraftStageSettings) -> dict[str, Any]:
        """`GraftConfig` fields of a stage: the recipe's, then its own."""
        return {**self.training, **stage.training}

    def to_yaml(self) -> str:
        """The recipe as YAML, without fields that have their default value."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)


def _check_layers(where: str, value: str, others: Sequence[str] = ()) -> None:
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", value):
        rest = f", or one of {', '.join(others)}" if others else ""
        raise ValueError(f"{where} is {value!r}; give layers such as 16-26{rest}")


def load_graft_recipe(path: str | Path, overrides: Sequence[str] = ()) -> GraftRecipe:
    """Reads and checks the recipe of a graft; see `load_recipe` for overrides.

    Raises:
        HfChainError: when the file is missing, is no YAML, or says something that is not allowed.
    """
    recipe = validated(GraftRecipe, read_values(path, overrides), origin=str(path))
    recipe._folder = Path(path).parent
    return recipe
