"""Contrastive training of CLIP: pairs -> embeddings -> softmax over the global batch, and the teacher's embeddings."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedModel

from hf_chain.adapters import check_no_adapter
from hf_chain.arguments.checkpointing import checkpoints_activations
from hf_chain.cost import StepCost, dual_encoder_macs, forward_passes
from hf_chain.cost.steps import BACKWARD_FORWARDS
from hf_chain.data.tokenizer import LEGACY_END
from hf_chain.distillation import Teacher, TeacherFeatures, feature_loss
from hf_chain.distillation.teacher import FeatureSource
from hf_chain.engine import Reader, builds_in_pieces
from hf_chain.errors import HfChainError
from hf_chain.families import family_of
from hf_chain.losses import contrastive_loss
from hf_chain.models import ChainCLIPModel
from hf_chain.models.chain_clip.stock_clip import MAP_SUFFIX, MAX_LOGIT_SCALE
from hf_chain.models.dual_encoder import STOCK, ChainDualEncoder, MappedDualEncoder
from hf_chain.models.token_dropping import draw_kept_tokens
from hf_chain.tasks.contrastive.values import check_global_batch
from hf_chain.tasks.task import Batch, Features, Handed, Task


class ContrastiveTask(Task):
    """Trains a dual encoder of a class in `STOCK`, within a module that shares its modules, on images and captions.

    The teacher hands on image and text embeddings. Predictions for `compute_metrics` are image embeddings `[N, D]` and
    text embeddings `[N, K, D]`, both L2-normalised, and labels the batch's `caption_ids` `[N, K]`.
    Source: CLIP (arXiv 2103.00020), CoM-PT (arXiv 2604.12391).

    Args:
        args (`ChainConfig`): arguments of the training.
    """

    evaluator = "dual_encoder"
    collator = "ImageTextCollator(processor)"
    inputs = ("pixel_values", "input_ids", "attention_mask", "kept_tokens")
    labels = "caption_ids"
    unbatched = ("logit_scale", "logit_bias")
    undecayed = ("logit_scale", "logit_bias")
    trained: ClassVar[tuple[str, ...]] = tuple(STOCK)
    """`model_type` of the models that it trains."""

    def teacher(self, given: Any, student: nn.Module) -> FeatureSource:
        """A dual encoder, or a cache of its features."""
        if _is_stock(given, STOCK):
            if _is_stock(student, STOCK):
                _check_reads_the_same(given.config, student.config)
            return Teacher(given)
        if not hasattr(given, "embedding_size"):
            wanted = STOCK.get(_kind_of(student), STOCK["clip"])
            raise HfChainError(f"the teacher is a {type(given).__name__}: give a {wanted} or a cache of its features")
        source: FeatureSource = given
        return source

    def wrap(self, model: nn.Module, teacher: FeatureSource | None) -> PreTrainedModel:
        """The `ChainCLIPModel` around a `CLIPModel`, the `ChainDualEncoder` around another, or the one given."""
        kind = _kind_of(model)
        if kind in STOCK and kind not in self.trained:
            raise HfChainError(
                f"the model to train is a {type(model).__name__}: task {self.args.task} trains a "
                f"{' or '.join(STOCK[name] for name in self.trained)}"
            )
        size = getattr(teacher, "embedding_size", None)
        given: Any = model
        if kind not in ("clip", "") and self.args.image_token_keep != 1:
            raise HfChainError(
                f"image_token_keep is {self.args.image_token_keep}, and a {type(model).__name__} reads all patches: "
                "leave it out"
            )
        if isinstance(model, MappedDualEncoder):
            if isinstance(model, ChainCLIPModel) and not builds_in_pieces():
                check_no_adapter(model, "this ChainCLIPModel")
        elif kind != "clip" and _is_stock(model, STOCK):
            given = ChainDualEncoder.around(given, size)
        elif builds_in_pieces():
            raise HfChainError("Under ZeRO-3 pass ChainCLIPModel.from_clip(model), made before ChainConfig")
        else:
            given = ChainCLIPModel.from_clip(given, size)
        self.freeze_unused(given)
        wrapped: PreTrainedModel = given
        return wrapped

    def freeze_unused(self, model: PreTrainedModel) -> None:
        """A bias of all logits changes no softmax."""
        if (bias := getattr(model, "logit_bias", None)) is not None:
            bias.requires_grad_(False)

    def added(self, model: PreTrainedModel) -> tuple[dict[str, nn.Parameter], str]:
        """The maps to the teacher's embedding size."""
        maps = {name: weight for name, weight in model.named_parameters() if self.is_beside(name)}
        size = len(next(iter(maps.values()))) if maps else None
        made = "ChainCLIPModel.from_clip" if isinstance(model, ChainCLIPModel) else "ChainDualEncoder.around"
        return maps, f"give {made}(model, {size}) and an optimizer of its parameters"

    def check_batch(self, batch: int) -> None:
        """Refuses one image, which has no other to be told from."""
        check_global_batch("", batch)

    def step_cost(self, model: PreTrainedModel, teacher: PreTrainedModel | None, data: Any, steps: int) -> StepCost:
        """Both towers of student and teacher; nothing goes back through a tower that is frozen whole."""
        args, keep, captions = self.args, self.args.image_token_keep, getattr(data, "captions_per_image", 1)
        again = bool(args.gradient_checkpointing) or checkpoints_activations(model)
        passes = BACKWARD_FORWARDS + forward_passes(args.micro_batch_size, again)
        # Nothing of a frozen tower is computed again either.
        image, text = (
            passes - (BACKWARD_FORWARDS + again) * (not any(weight.requires_grad for weight in tower.parameters()))
            for tower in (model.vision_model, model.text_model)
        )
        student, taught = (
            [dual_encoder_macs(each.config, self.text_tokens, share) for share in (keep, 1.0)] if each else []
            for each in (model, teacher)
        )
        return StepCost(
            samples_per_step=args.per_device_train_batch_size * args.world_size,
            student=_pair(image * macs.image + captions * text * macs.text for macs in student),
            teacher=_pair(macs.per_sample(captions) for macs in taught) if taught else None,
            teacher_steps=self.taught_steps(steps),
            unmasked_from=self._unmasked_from(steps),
        )

    def _unmasked_from(self, steps: int) -> int:
        """The step from which all image tokens are seen."""
        return math.ceil((1 - self.args.unmasked_tail) * steps) if self.args.image_token_keep < 1 else 0

    # One batch

    @property
    def columns(self) -> list[str]:
        """Images, captions, and where identical ones are positives their ids."""
        ids = ["caption_ids"] if self.args.identical_captions_positive else []
        return ["pixel_values", "input_ids", *ids]

    def drawn(self, model: PreTrainedModel, batch: Batch, step: int, steps: int) -> dict[str, torch.Tensor]:
        """The image tokens that student and teacher see; drawn for the whole global batch."""
        if step >= self._unmasked_from(steps):
            return {}
        pixels, vision, args = batch["pixel_values"], model.config.vision_config, self.args
        rows, patches = len(pixels), (vision.image_size // vision.patch_size) ** 2
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        kept = draw_kept_tokens(rows * args.world_size, patches, args.image_token_keep, generator)
        return {"kept_tokens": kept[args.process_index * rows :][:rows].to(pixels.device)}

    def loss(self, features: Features, batch: Batch) -> torch.Tensor:
        """Softmax over the images and captions of all processes."""
        ids = batch["caption_ids"] if self.args.identical_captions_positive else None
        return contrastive_loss(features["image_embeds"], features["text_embeds"], features["logit_scale"], ids)

    def shown(self, features: Features) -> dict[str, torch.Tensor]:
        """The logit scale."""
        return {"logit_scale": features["logit_scale"].detach()}

    def handed(self, features: Features) -> TeacherFeatures:
        """The embeddings in the teacher's size."""
        return TeacherFeatures(features["image_embeds_for_teacher"], features["text_embeds_for_teacher"])

    def feature_loss(self, student: Handed, teacher: Handed) -> torch.Tensor:
        """Image tower plus text tower."""
        return feature_loss(*student, *teacher)

    def predictions(self, features: Features, batch: Batch) -> tuple[torch.Tensor, ...]:
        """Image and text embeddings."""
        return features["image_embeds"], features["text_embeds"]

    # What engine and files have to know

    def limits(self, model: PreTrainedModel) -> list[tuple[nn.Parameter, float]]:
        """The logit scale is at most 100, as in CLIP."""
        return [(model.logit_scale, MAX_LOGIT_SCALE)]

    def readers(self, model: PreTrainedModel) -> list[Reader]:
        """CLIP's text embeddings read the length of the table of positions, attention pooling what is in a layer."""
        texts = (module for module in model.text_model.modules() if hasattr(module, "position_embedding"))
        pooling = (module for module in model.modules() if isinstance(module, nn.MultiheadAttention))
        own = [(module, parameter) for module in pooling for parameter in module.out_proj.parameters()]
        return [*((module, module.position_embedding.weight) for module in texts), *own]

    def is_beside(self, name: str) -> bool:
        """The maps to the teacher are."""
        return MAP_SUFFIX in name

    def load_beside(self, model: PreTrainedModel, folder: str) -> None:
        """Reads the maps to the teacher."""
        model.load_teacher_maps(folder)


def _pair(macs: Iterable[int]) -> tuple[int, int]:
    """With dropped image tokens, and with all of them."""
    masked, whole = macs
    return masked, whole


def _kind_of(model: Any) -> str:
    """The `model_type` of the stock model in, or of, a model; nothing for other objects."""
    kind: str = getattr(getattr(model, "config", None), "model_type", "")
    return kind.removeprefix("chain_")


def _is_stock(model: Any, kinds: Container[str]) -> bool:
    """Whether a model is of the stock class of one of these architectures."""
    kind = _kind_of(model)
    names = {cls.__name__ for cls in type(model).__mro__}
    return kind in kinds and STOCK[kind] in names and not isinstance(model, MappedDualEncoder)


def _check_reads_the_same(teacher: Any, student: Any) -> None:
    """Refuses a teacher that cannot read what its student reads.

    Raises:
        HfChainError: naming what differs and both values.
    """
    for tower, field in (("text_config", "vocab_size"), ("text_config", "max_position_embeddings")):
        has, needs = (getattr(getattr(config, tower), field) for config in (teacher, student))
        if has < needs:
            raise HfChainError(
                f"the teacher has {field}={has} and the model {needs}, so it cannot read all that the model reads: "
                "give a teacher that was trained with the same tokenizer and context"
            )
    for tower, field in (("vision_config", "image_size"), ("vision_config", "num_channels")):
        has, needs = (getattr(getattr(config, tower), field) for config in (teacher, student))
        if has != needs:
            raise HfChainError(f"the teacher has {field}={has} and the model {needs}: both see the same images")
    if family_of(student).reads_padding:
        return
    has, needs = teacher.text_config.eos_token_id, student.text_config.eos_token_id
    if has != needs and LEGACY_END not in (has, needs):
        raise HfChainError(
            f"the teacher has eos_token_id={has} and the model {needs}, so one of them reads captions at a wrong "
            "token: give a teacher that was trained with the same tokenizer"
        )
