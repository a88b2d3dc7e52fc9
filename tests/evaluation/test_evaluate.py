"""The evaluation of a real CLIPModel: what it measures, what it leaves untouched and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value, concatenate_datasets
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
    with pytest.raises(HfChainError, match=r"row 2 \(.*broken.png\): image cannot be read") as caught:
        evaluate_clip(model, processor, rows, caption_column="captions")
    assert "\n" not in str(caught.value)


def test_rows_that_a_run_leaves_out_are_refused_by_their_number(model, processor, dataset):
    texts = [["a"], ["b"], ["", None], ["c"], ["d"], ["e"]]
    rows = dataset.remove_columns("captions").add_column("captions", texts)
    with pytest.raises(HfChainError, match="row 2: caption 0 is empty, caption 1 is None; leave that row out"):
        evaluate_clip(model, processor, rows, caption_column="captions")
    for bad in ([1], "red", None, -1, 0.5, math.inf):
        labels = Dataset.from_list([{"image": None, "label": bad}]) if bad is not None else None
        rows = labels or Dataset.from_dict({"image": [None], "label": [None]})
        with pytest.raises(HfChainError, match="row 0: label .* is no class number"):
            evaluate_clip(model, processor, rows, label_column="label", class_names=list(COLOURS))


def test_bool_labels_and_any_format_are_read_as_in_a_run(model, processor, dataset):
    rows = dataset.select(range(4))
    options = {"label_column": "label", "class_names": ["red", "green"]}
    bools = rows.remove_columns("label").add_column("label", [False, False, True, True])
    expected = evaluate_clip(model, processor, rows, **options).metrics
    assert evaluate_clip(model, processor, bools, **options).metrics == expected
    for form in ("numpy", "torch"):
        assert evaluate_clip(model, processor, rows.with_format(form), **options).metrics == expected


def test_a_collapsed_model_is_at_chance_and_said_to_have_collapsed(model, processor, dataset, caplog):
    rows = concatenate_datasets([dataset, dataset])
    with torch.no_grad():
        model.visual_projection.weight.zero_()[0] = model.visual_projection.weight.new_ones(1)
        model.text_projection.weight.copy_(model.visual_projection.weight)
        model.vision_model.post_layernorm.weight.zero_()
        model.vision_model.post_layernorm.bias.fill_(1)
        model.text_model.final_layer_norm.weight.zero_()
        model.text_model.final_layer_norm.bias.fill_(1)
    metrics = evaluate_clip(model, processor, rows, **ALL, prompt_templates=["a photo of {}"]).metrics
    assert metrics["zero_shot_top1"] == pytest.approx(1 / 3)
    assert metrics["image_to_text_r1"] == pytest.approx(2 / 6) and metrics["text_to_image_r1"] == pytest.approx(4 / 12)
    assert "the 12 image embeddings have collapsed: effective rank 0.0 of 16, mean cosine 1.0000" in caplog.text
    caplog.clear()
    evaluate_clip(model, processor, rows, **ALL, prompt_templates=["a photo of {}"], trained=False)
    assert "collapsed" not in caplog.text


def test_captions_that_are_all_equal_are_warned_about(model, processor, dataset, caplog):
    rows = concatenate_datasets([dataset, dataset]).remove_columns("captions").add_column("captions", ["a photo"] * 12)
    evaluate_clip(model, processor, rows, caption_column="captions")
    assert "12 of 12 captions of the evaluation data are the same, 'a photo'" in caplog.text


def test_wrong_columns_labels_and_weights_are_refused_in_one_line(model, processor, dataset):
    with pytest.raises(HfChainError, match="no column 'caption': it has 'image', 'label', 'captions'"):
        evaluate_clip(model, processor, dataset, caption_column="caption")
    with pytest.raises(HfChainError, match=r"row 4: label 2 is out of range for 2 class names"):
        evaluate_clip(model, processor, dataset, label_column="label", class_names=["red", "green"])
    with pytest.raises(HfChainError, match="no rows"):
        evaluate_clip(model, processor, dataset.select([]), caption_column="captions")
    with torch.no_grad():
        model.visual_projection.weight.fill_(float("nan"))
    with pytest.raises(HfChainError, match="not finite"):
        evaluate_clip(model, processor, dataset, **ALL)


def test_arguments_that_cannot_be_used_are_refused_before_anything_is_embedded(model, processor, dataset):
    classes = {"label_column": "label", "class_names": list(COLOURS)}
    larger = CLIPConfig(text_config={**model.config.text_config.to_dict(), "vocab_size": 5})
    for given, words in (
        (classes | {"prompt_templates": ["a photo"]}, "prompt_templates has 'a photo'; a template needs exactly one"),
        (classes | {"prompt_templates": "a photo"}, "prompt_templates has 'a photo'; a template needs exactly one"),
        (classes | {"prompt_templates": []}, "prompt_templates is an empty list"),
        (classes | {"class_names": "red"}, "class_names is 'red': give a list with the name"),
        (classes | {"class_names": []}, r"class_names is \[\]: give a list"),
        (classes | {"class_names": ["red", " ", "blue"]}, "class_names has no name for class 1"),
        (classes | {"class_names": ["red", 7, "blue"]}, "class_names has no name for class 1"),
        ({"batch_size": 0}, "batch_size is 0: give a whole number from 1"),
        ({"batch_size": True}, "batch_size is True: give a whole number from 1"),
        ({"max_samples": -1}, "max_samples is -1: give a whole number from 1"),
        ({"processor": processor.tokenizer}, "the processor is a [A-Za-z]*, which does not read images and texts"),
        ({"model": model.vision_model}, "the model is a CLIPVision[A-Za-z]* without get_image_features"),
        ({"model": CLIPModel(larger)}, "the processor's tokenizer has 11 tokens and the model embeds 5"),
        ({"dataset": {"train": dataset}}, "the evaluation data are a dict: give one split"),
    ):
        arguments = {"model": model, "processor": processor, "dataset": dataset, "caption_column": "captions"} | given
        with pytest.raises(HfChainError, match=words):
            evaluate_clip(**arguments)


def test_one_template_is_a_text_or_a_list_of_one(model, processor, dataset):
    options = {"label_column": "label", "class_names": list(COLOURS)}
    one = evaluate_clip(model, processor, dataset, prompt_templates="a photo of {}", **options)
    assert one == evaluate_clip(model, processor, dataset, prompt_templates=["a photo of {}"], **options)
