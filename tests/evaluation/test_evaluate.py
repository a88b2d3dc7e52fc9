"""The evaluation of a real CLIPModel: what it measures, what it leaves untouched and what it refuses."""

from __future__ import annotations

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as PILImage
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch.nn.functional import normalize
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    PreTrainedTokenizerFast,
)

from hf_chain.cost import clip_macs
from hf_chain.errors import HfChainError
from hf_chain.evaluation import evaluate_clip

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
WORDS = ["<bos>", "<eos>", "<pad>", "<unk>", "a", "photo", "of", "plain", *COLOURS]


@pytest.fixture(scope="module")
def processor():
    vocabulary = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    vocabulary.pre_tokenizer = pre_tokenizers.Whitespace()
    vocabulary.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 0), ("<eos>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=vocabulary, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    size = {"height": 16, "width": 16}
    return CLIPProcessor(CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size), tokenizer)


@pytest.fixture
def model():
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = tower | {"vocab_size": len(WORDS), "max_position_embeddings": 8, "eos_token_id": 1}
    config = CLIPConfig(text_config=text, vision_config=tower | {"image_size": 16, "patch_size": 8}, projection_dim=16)
    return CLIPModel(config)


@pytest.fixture(scope="module")
def dataset():
    """Two images of each colour, sorted by class, each with two captions."""
    names = list(COLOURS)
    rows = [
        {
            "image": PILImage.new("RGB", (20, 18), tuple(max(c - 60 * k, 0) for c in COLOURS[name])),
            "label": names.index(name),
            "captions": [f"a photo of {name}", f"plain {name}"],
        }
        for name in names
        for k in range(2)
    ]
    features = Features({"image": Image(), "label": ClassLabel(names=names), "captions": List(Value("string"))})
    return Dataset.from_list(rows, features=features)


ALL = {"caption_column": "captions", "label_column": "label", "class_names": list(COLOURS)}


def test_metrics_equal_a_manual_evaluation(model, processor, dataset):
    result = evaluate_clip(model, processor, dataset, **ALL, prompt_templates=["a photo of {}"], batch_size=4)
    with torch.no_grad():
        pixels = processor(images=list(dataset["image"]), return_tensors="pt")
        prompts = processor(text=[f"a photo of {name}" for name in COLOURS], return_tensors="pt", padding=True)
        images = normalize(model.eval().get_image_features(**pixels).pooler_output, dim=-1)
        classes = normalize(model.get_text_features(**prompts).pooler_output, dim=-1)
    correct = (images @ classes.T).argmax(1) == torch.tensor(dataset["label"])
    assert result.metrics["zero_shot_top1"] == pytest.approx(correct.double().mean().item())
    assert result.metrics["zero_shot_top5"] == 1.0
    assert result.per_class == {
        name: pytest.approx(correct[2 * i : 2 * i + 2].double().mean().item()) for i, name in enumerate(COLOURS)
    }
    assert set(result.metrics) == {
        "zero_shot_top1",
        "zero_shot_top5",
        *(f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)),
    }


def test_a_trained_model_is_told_from_an_untrained_one(model, processor, dataset):
    """Contrastive training on the six images must take the measured accuracy to one."""
    pixels = processor(images=list(dataset["image"]), return_tensors="pt")
    prompts = processor(text=[f"a photo of {name}" for name in COLOURS], return_tensors="pt", padding=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(60):
        logits = model(**pixels, **prompts).logits_per_image
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(dataset["label"]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    metrics = evaluate_clip(model, processor, dataset, **ALL, prompt_templates=["a photo of {}"]).metrics
    assert metrics["zero_shot_top1"] == 1.0
    assert metrics["text_to_image_r5"] == 1.0


def test_batches_do_not_change_the_metrics(model, processor, dataset):
    results = [evaluate_clip(model, processor, dataset, **ALL, batch_size=size).metrics for size in (1, 4, 64)]
    assert results[0] == results[1] == results[2]


def test_every_module_keeps_its_mode_and_no_gradient_is_left(model, processor, dataset):
    model.train()
    model.text_model.eval()
    before = [module.training for module in model.modules()]
    evaluate_clip(model, processor, dataset, **ALL)
    assert [module.training for module in model.modules()] == before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_macs_count_each_image_and_each_distinct_text_once(model, processor, dataset):
    result = evaluate_clip(model, processor, dataset, **ALL, prompt_templates=["a photo of {}"])
    # Class prompts are 4 words and captions at most 4, with <bos> and <eos>.
    macs = clip_macs(model.config, text_tokens=6)
    assert result.macs == 6 * macs.image + (3 + 6) * macs.text


def test_tasks_are_chosen_by_the_columns_given(model, processor, dataset):
    retrieval = evaluate_clip(model, processor, dataset, caption_column="captions")
    assert set(retrieval.metrics) == {f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}
    assert retrieval.per_class == {}
    classification = evaluate_clip(model, processor, dataset, label_column="label", class_names=list(COLOURS))
    assert set(classification.metrics) == {"zero_shot_top1", "zero_shot_top5"}
    with pytest.raises(HfChainError, match="Nothing to evaluate"):
        evaluate_clip(model, processor, dataset)


def test_max_samples_are_spread_over_all_classes(model, processor, dataset):
    result = evaluate_clip(model, processor, dataset, **ALL, max_samples=3)
    assert list(result.per_class) == list(COLOURS)


def test_an_unreadable_image_is_named_by_its_row(model, processor, dataset, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"this is no image")
    images = [*dataset["image"][:2], str(broken)]
    rows = Dataset.from_dict({"image": images, "captions": ["a", "b", "c"]}).cast_column("image", Image())
    with pytest.raises(HfChainError, match=r"row 2, column 'image'") as caught:
        evaluate_clip(model, processor, rows, caption_column="captions")
    assert "\n" not in str(caught.value)


def test_wrong_columns_labels_and_weights_are_refused_in_one_line(model, processor, dataset):
    with pytest.raises(HfChainError, match="no column 'caption': it has 'image', 'label', 'captions'"):
        evaluate_clip(model, processor, dataset, caption_column="caption")
    with pytest.raises(HfChainError, match=r"row 4: label is 2, not a class number from 0 to 1"):
        evaluate_clip(model, processor, dataset, label_column="label", class_names=["red", "green"])
    with pytest.raises(HfChainError, match="no rows"):
        evaluate_clip(model, processor, dataset.select([]), caption_column="captions")
    with torch.no_grad():
        model.visual_projection.weight.fill_(float("nan"))
    with pytest.raises(HfChainError, match="not finite"):
        evaluate_clip(model, processor, dataset, **ALL)
