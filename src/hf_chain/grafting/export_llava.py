"""Writing a grafted model as a stock Llava, which needs no hf_chain to run.

What differs between the two, and how it is made up for without changing a logit:

- image start and image end are vectors here and tokens there: two rows of the token embeddings;
- the vision tower's last norm is a step here; there it becomes one more layer of the tower, and the adapter reads the
  difference that the layer makes (`llava_tower.py`);
- a placeholder is never embedded here; there it needs a row.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from transformers import AddedToken, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.utils import logging

from hf_chain.adapters import check_no_adapter
from hf_chain.engine import require_whole_weights
from hf_chain.errors import HfChainError
from hf_chain.files import whole_folder
from hf_chain.grafting.llava_tower import DROWNING_GAIN, balanced_gain, published_prefix, tower_with_norm
from hf_chain.loaded_weights import require_finite
from hf_chain.models import GraftedVLMForConditionalGeneration, GraftedVLMProcessor
from hf_chain.models.grafted_vlm.assembly import suppress
from hf_chain.models.grafted_vlm.processing_grafted_vlm import with_images
from hf_chain.models.grafted_vlm.vision_towers import keeps_aspect_ratio, tower_stream
from hf_chain.module_modes import evaluation_mode

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_chain.models import GraftedVLMConfig

logger = logging.get_logger(__name__)

IMAGE_START, IMAGE_END = "<image_start>", "<image_end>"
"""The tokens that image start and image end become. In a plain prompt they stand around the image token."""

State = dict[str, torch.Tensor]


def export_llava(
    vlm: GraftedVLMForConditionalGeneration,
    processor: GraftedVLMProcessor,
    output_dir: str | Path,
    *,
    serving: bool = False,
    complete: Callable[[Path, LlavaForConditionalGeneration], object] | None = None,
) -> LlavaForConditionalGeneration:
    """Writes the folder of a `LlavaForConditionalGeneration` and its `LlavaProcessor` with the same logits.

    A plain prompt has `<image_start><image><image_end>` where ours has `<image>`; the chat template puts it there.
    Tied token embeddings are untied, so that the two new rows do not become tokens that are generated.

    Args:
        vlm (`GraftedVLMForConditionalGeneration`): the model; not changed.
        processor (`GraftedVLMProcessor`): its processor.
        output_dir (`str` or `Path`): a new folder. It appears when all of it is written.
        serving (`bool`): for engines that read a single hidden state, as vLLM does. What is written is for inference
            in float32 and bfloat16 alone: an optimiser step, or float16, ruins it. No different where the model has
            no norm to say (`post_layernorm=False`).
        complete (`Callable`, *optional*): called with the folder, before it appears, and with what is in it, to add
            a card.

    Returns:
        `LlavaForConditionalGeneration`: what was written. It shares weights with `vlm` and has no buffers: load the
        folder to use it.

    Raises:
        HfChainError: when a stock Llava cannot say the same, or the folder exists or cannot be written.
    """
    if not (isinstance(vlm, GraftedVLMForConditionalGeneration) and isinstance(processor, GraftedVLMProcessor)):
        raise HfChainError(
            f"a {type(vlm).__name__} with a {type(processor).__name__} cannot be exported: give a grafted model and"
            " its processor"
        )
    folder = Path(output_dir)
    if folder.exists():
        raise HfChainError(f"output_dir={folder} exists already: give a folder that does not")
    require_whole_weights("export in a process of its own")
    _check(vlm)
    tokenizer = copy.deepcopy(processor.tokenizer)
    known = [token for token in (IMAGE_START, IMAGE_END) if token in tokenizer.get_vocab()]
    if known:
        raise HfChainError(f"the tokenizer has a token {known[0]!r} already, which the export adds: rename it")
    added = [AddedToken(token, special=True, normalized=False) for token in (IMAGE_START, IMAGE_END)]
    tokenizer.add_tokens(added, special_tokens=True)
    ids = tuple(tokenizer.convert_tokens_to_ids([IMAGE_START, IMAGE_END]))
    with torch.no_grad():
        llava = _llava(vlm, ids, serving)
    around = f"{IMAGE_START}{processor.image_token}{IMAGE_END}"
    stock = LlavaProcessor(
        image_processor=processor.image_processor,
        tokenizer=tokenizer,
        patch_size=vlm.config.vision_config.patch_size,
        vision_feature_select_strategy=llava.config.vision_feature_select_strategy,
        chat_template=with_images(processor.chat_template, processor.image_token, around),
        image_token=processor.image_token,
        num_additional_image_tokens=_prefix(vlm.config),
    )
    _write(folder, llava, stock, complete or (lambda *_: None))
    if serving and vlm.config.post_layernorm:
        logger.warning(
            f"{folder} is for inference in float32 and bfloat16 alone: training or float16 ruins it; export without"
            " serving for these"
        )
    return llava


def _check(vlm: GraftedVLMForConditionalGeneration) -> None:
    check_no_adapter(vlm, vlm.name_or_path or type(vlm).__name__)
    require_finite(vlm, vlm.name_or_path or type(vlm).__name__)
    config: GraftedVLMConfig = vlm.config
    prefix = _prefix(config)
    inner = config.adapter_hidden_size or config.embedding_size
    refused = "this model cannot be exported to Llava: "
    if keeps_aspect_ratio(config.vision_config):
        raise HfChainError(f"{refused}its {config.vision_config.model_type} keeps aspect ratios; Llava's do not")
    if config.adapter_layers != 2:
        raise HfChainError(f"{refused}its adapter has {config.adapter_layers} layers, Llava's has 2")
    if inner > config.embedding_size:
        raise HfChainError(
            f"{refused}its adapter is {inner} wide inside, Llava's as its language model, {config.embedding_size}"
        )
    if config.embedding_size != config.text_config.hidden_size:
        raise HfChainError(
            f"{refused}its language model embeds in {config.embedding_size} channels and thinks in"
            f" {config.text_config.hidden_size}; Llava has one size for both"
        )
    if getattr(config.text_config, "quantization_config", None) is not None:
        raise HfChainError(f"{refused}its language model is quantised; load it in bfloat16")
    if any(weight.is_meta for weight in vlm.parameters()):
        raise HfChainError(f"{refused}some weights are offloaded to disk; load it without device_map")
    if not config.class_token and prefix > 1:
        raise HfChainError(f"{refused}it drops {prefix} tokens in front of the patches, Llava can drop 1 or none")
    if not isinstance(config.vision_config.patch_size, int):
        raise HfChainError(f"{refused}its patches are {config.vision_config.patch_size}, Llava's are square")


def _llava(
    vlm: GraftedVLMForConditionalGeneration, ids: tuple[int, int], serving: bool
) -> LlavaForConditionalGeneration:
    config: GraftedVLMConfig = vlm.config
    vision_config, tower = config.vision_config, dict(vlm.vision_tower.state_dict())
    projector = _projector(vlm)
    layers: int | list[int] = -1
    if config.post_layernorm:
        gain = DROWNING_GAIN if serving else balanced_gain(vlm.vision_tower, config.image_height_and_width)
        vision_config, tower = tower_with_norm(vlm.vision_tower, gain)
        first = projector["linear_1.weight"] / gain
        projector["linear_1.weight"] = first if serving else torch.cat([-first, first], dim=1)
        layers = -1 if serving else [-2, -1]
    table, head, rows = _vocabulary(vlm, ids)
    base = getattr(vlm.language_model, vlm.language_model.base_model_prefix)
    _check_head(vlm.language_model, base)
    text_config = copy.deepcopy(config.text_config)
    text_config.vocab_size, text_config.tie_word_embeddings = rows, False
    drops = not config.class_token and _prefix(config) > 0
    with torch.device("meta"):
        llava = LlavaForConditionalGeneration(
            LlavaConfig(
                vision_config=vision_config,
                text_config=text_config,
                image_token_index=config.image_token_id,
                image_seq_length=config.tokens_per_image,
                vision_feature_layer=layers,
                vision_feature_select_strategy="default" if drops else "full",
                tie_word_embeddings=False,
            )
        )
    if type(llava.model.language_model) is not type(base):
        raise HfChainError(f"this model cannot be exported to Llava: it has no place for a {type(base).__name__}")
    words = {name: weight for name, weight in base.state_dict().items() if name in _names(llava.model.language_model)}
    words[_name(base, base.get_input_embeddings().weight)] = table
    state = {f"model.vision_tower.{name}": weight for name, weight in tower.items()}
    state |= {f"model.language_model.{name}": weight for name, weight in words.items()}
    state |= {f"model.multi_modal_projector.{name}": weight for name, weight in projector.items()}
    state["lm_head.weight"] = head
    for name in sorted(_names(llava) - set(state)):
        if not name.startswith(_unused(config)):
            raise HfChainError(f"this model cannot be exported to Llava: it has no {name}, which Llava needs")
        state[name] = torch.zeros(llava.get_parameter(name).shape, dtype=table.dtype)
    llava.load_state_dict(state, assign=True)
    llava.generation_config = copy.deepcopy(vlm.generation_config)
    suppress(llava.generation_config, config.image_token_id, *ids)
    return llava


def _prefix(config: GraftedVLMConfig) -> int:
    return tower_stream(config.vision_config).prefix_tokens(config.vision_config)


def _unused(config: GraftedVLMConfig) -> tuple[str, ...]:
    """Beginnings of the names of weights that a stock tower has and Llava does not read: of the pooling head, and of
    the last norm where the model was trained without."""
    names = ["pooler"] if config.post_layernorm else ["pooler", str(tower_stream(config.vision_config).last_norm)]
    return tuple(f"model.vision_tower.{name}." for name in names)


def _vocabulary(
    vlm: GraftedVLMForConditionalGeneration, ids: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Token embeddings and head with rows for image start, image end and placeholder, and the number of rows."""
    embedding, old_head = vlm.get_input_embeddings(), vlm.get_output_embeddings().weight
    old = embedding.weight
    rows = max(len(old), vlm.config.image_token_id + 1, *(number + 1 for number in ids))
    table = torch.cat([old, old.new_zeros(rows - len(old), old.shape[1])])
    # Gemma multiplies what it looks up.
    scale = torch.as_tensor(getattr(embedding, "embed_scale", 1.0)).to(old)
    table[ids[0]], table[ids[1]] = vlm.image_start.to(old) / scale, vlm.image_end.to(old) / scale
    # The mean of all logits is never the largest, so that no new token wins.
    mean = old_head.float().mean(0).to(old_head.dtype)
    head = torch.cat([old_head, mean.expand(max(rows - len(old_head), 0), -1)])
    return table, head, rows


def _projector(vlm: GraftedVLMForConditionalGeneration) -> State:
    first, second = vlm.adapter.linears
    size = vlm.config.embedding_size
    missing = size - first.out_features
    # Inner units that are always zero make up for an adapter that is narrower inside.
    return {
        "linear_1.weight": functional.pad(first.weight, (0, 0, 0, missing)),
        "linear_1.bias": functional.pad(first.bias, (0, missing)),
        "linear_2.weight": functional.pad(second.weight, (0, missing)),
        "linear_2.bias": second.bias.clone(),
    }


def _check_head(language_model: PreTrainedModel, base: PreTrainedModel) -> None:
    """Llava's head is one matrix: whatever else happens to the logits would be lost."""
    head = language_model.get_output_embeddings().weight
    size = language_model.get_input_embeddings().embedding_dim
    some = torch.randn(1, 4, size, generator=torch.Generator().manual_seed(0)).to(head.device, language_model.dtype)
    with evaluation_mode(language_model):
        logits = language_model(inputs_embeds=some, use_cache=False).logits
        plain = functional.linear(base(inputs_embeds=some, use_cache=False).last_hidden_state, head)
    rounding = 16 * torch.finfo(plain.dtype).eps * float(plain.abs().max())
    # A soft cap hardly changes small logits, so it is asked for by name as well.
    capped = getattr(language_model.config, "final_logit_softcapping", None) is not None
    if capped or not torch.allclose(logits.to(plain), plain, rtol=0, atol=rounding):
        raise HfChainError(
            f"this model cannot be exported to Llava: {type(language_model).__name__} does more to its logits than its"
            " head, such as a soft cap, and Llava would not"
        )


def _names(model: torch.nn.Module) -> set[str]:
    return set(model.state_dict())


def _name(model: torch.nn.Module, wanted: torch.Tensor) -> str:
    return next(name for name, weight in model.named_parameters() if weight is wanted)


def _published(llava: LlavaForConditionalGeneration) -> State:
    """The weights, the tower's as published Llavas name them: transformers reads these names without writing them, and
    serving engines read no others."""
    place, prefix = "model.vision_tower.", published_prefix(llava.config.vision_config)
    return {
        f"{place}{prefix}{name.removeprefix(place).removeprefix(prefix)}" if name.startswith(place) else name: weight
        for name, weight in llava.state_dict().items()
    }


def _write(
    folder: Path,
    llava: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    complete: Callable[[Path, LlavaForConditionalGeneration], object],
) -> None:
    try:
        with whole_folder(folder) as staging:
            llava.save_pretrained(staging, state_dict=_published(llava), max_shard_size="5GB")
            processor.save_pretrained(staging)
            complete(staging, llava)
    except OSError as error:
        raise HfChainError(f"output_dir={folder} cannot be written ({error.strerror}): choose another") from error
