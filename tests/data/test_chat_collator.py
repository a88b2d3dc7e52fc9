"""Batches of conversations: image positions, labels, truncation, wordings, weights."""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image, ImageOps

from hf_chain.data.chat import ChatCollator, ChatEncoder, ResponseReweighting
from hf_chain.data.chat.encoder import IMAGE_PROMPTS
from hf_chain.errors import HfChainError
from hf_chain.losses.response import IGNORED
from hf_chain.models.grafted_vlm import from_parts
from support.chat_models import chat_tokenizer, talk, tiny_language_model, tiny_vlm

IMAGE_TOKENS = 5 + 2


@pytest.fixture(scope="module")
def vlm():
    return tiny_vlm()


@pytest.fixture(scope="module")
def processor(vlm):
    return vlm[1]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_those_of_the_image_processor(processor, mode):
    noise = torch.randint(0, 256, (2, 21, 33, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = [Image.fromarray(pixels.numpy()).convert(mode) for pixels in noise]
    row = talk("<image> and <image>", "two") | {"images": images}
    collator = ChatCollator(processor)
    expected = processor.image_processor(images=[image.convert("RGB") for image in images], return_tensors="pt")
    assert torch.equal(collator([row])["pixel_values"], expected["pixel_values"])
    assert collator._direct is not None


def test_an_image_processor_of_another_kind_does_it_itself(processor, monkeypatch):
    class Sized(type(processor.image_processor)):
        def __call__(self, images, **options):
            found = super().__call__(images, **options)
            return {**found, "image_sizes": torch.tensor([[16, 16]])}

    sized = Sized(**{k: v for k, v in processor.image_processor.to_dict().items() if k in ("size", "crop_size")})
    monkeypatch.setattr(processor, "image_processor", sized)
    assert "image_sizes" in ChatCollator(processor)([talk("<image>", "red", images=1)])


def test_images_and_text_rows_share_a_padded_batch(vlm):
    model, processor = vlm
    rows = [
        talk("<image>\nwhat is this?", "red", images=1),
        talk("yes?", "no"),
        talk("<image> and <image>", "two", images=2),
    ]
    batch = ChatCollator(processor)(rows)
    assert batch["pixel_values"].shape == (3, 3, 16, 16)
    image_id = processor.image_token_id
    assert (batch["input_ids"] == image_id).sum(1).tolist() == [IMAGE_TOKENS, 0, 2 * IMAGE_TOKENS]
    assert (batch["labels"] == image_id).sum() == 0
    lengths = batch["attention_mask"].sum(1)
    for row, length in enumerate(lengths):
        assert (batch["input_ids"][row, length:] == processor.tokenizer.pad_token_id).all()
        assert (batch["labels"][row, length:] == IGNORED).all() and batch["labels"][row, 0] == IGNORED
    assert torch.isfinite(model(**batch).loss)


def test_ids_are_those_of_the_processor_itself(processor):
    row = talk("<image>\nwhat is this?", "red", images=1)
    text = processor.apply_chat_template(row["messages"], tokenize=False)
    own = processor(images=row["images"], text=[text], return_tensors="pt")
    batch = ChatCollator(processor)([row])
    assert batch["input_ids"].tolist() == own["input_ids"].tolist()
    assert torch.equal(batch["pixel_values"], own["pixel_values"])


def test_a_batch_of_text_has_no_pixels(processor):
    assert "pixel_values" not in ChatCollator(processor)([talk("yes?", "no")])


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (talk("what is this?", "red", images=1), "there are 1 images for 0 <image> placeholders"),
        (talk("<image> what is this?", "red", images=2), "there are 2 images for 1 <image> placeholders"),
        (talk("<image> what is this?", "red"), "there are 0 images for 1 <image> placeholders"),
        (talk("what is this?"), "there is no response"),
    ],
)
def test_a_row_that_does_not_fit_is_named_in_one_line(processor, row, problem):
    with pytest.raises(HfChainError, match=problem) as caught:
        ChatCollator(processor)([row])
    assert "what is this?" in str(caught.value) and "\n" not in str(caught.value)


def test_rows_of_any_form_make_the_batch_of_plain_ones(processor):
    plain = talk("<image>\nhow many circles?", "3", images=1)
    typed = [{"type": "image"}, {"type": "text", "text": "how many circles?"}]
    messages = [{"from": "human", "value": typed}, {"role": "assistant", "content": 3}]
    collate = ChatCollator(processor)
    found, expected = collate([{**plain, "messages": messages}]), collate([plain])
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    messages[0]["value"] = [{"type": "image", "image": plain["images"][0]}]
    with pytest.raises(HfChainError, match="the row that begins with .* cannot be used, a message holds .*not read"):
        collate([{"messages": messages}])


def test_an_image_needs_more_than_a_tokenizer():
    with pytest.raises(HfChainError, match="the processor is a tokenizer alone"):
        ChatCollator(chat_tokenizer())([talk("<image> what?", "red", images=1)])


def test_what_follows_the_last_response_is_left_out():
    tokenizer = chat_tokenizer()
    batch = ChatCollator(tokenizer)([talk("one?", "two", "three?")])
    assert "three" not in tokenizer.decode(batch["input_ids"][0])


def test_cutting_keeps_images_whole_and_a_response(processor):
    row = talk("<image> what is this?", "a large red circle on a plain white background", "yes?", "no", images=1)
    encoder = ChatEncoder(processor)
    whole = encoder.encode(row["messages"], row["images"])
    for max_length in range(1, len(whole.input_ids)):
        short = ChatEncoder(processor, max_length=max_length)
        try:
            cut = short.encode(row["messages"], row["images"])
        except ValueError as error:
            assert "lose an image" in str(error) or "no response is left" in str(error)
            continue
        assert cut.input_ids == whole.input_ids[:max_length] and cut.labels == whole.labels[:max_length]
        assert cut.input_ids.count(processor.image_token_id) == IMAGE_TOKENS
        assert cut.whole_length == len(whole.input_ids)
    assert len(
        ChatEncoder(processor, max_length=len(whole.input_ids) - 1).encode(row["messages"], row["images"]).labels
    )


def test_an_image_in_a_response_is_not_learnt(processor):
    row = talk("draw it", "here <image> it is", images=1)
    batch = ChatCollator(processor, reweighting=ResponseReweighting())([row])
    shown = batch["input_ids"] == processor.image_token_id
    assert shown.sum() == IMAGE_TOKENS
    assert (batch["labels"][shown] == IGNORED).all() and (batch["loss_weights"][shown] == 0).all()
    assert "it is" in processor.tokenizer.decode(batch["labels"][batch["labels"] != IGNORED])
    with pytest.raises(HfChainError, match="there is no text in its responses"):
        ChatCollator(processor, special_tokens_in_loss=False)([talk("draw it", "<image>", images=1)])


def test_an_image_token_of_the_models_own_in_a_text_is_noticed(vlm):
    model, processor = vlm
    decoder, pixels = tiny_language_model(), processor.image_processor
    _, other = from_parts(model.vision_tower, decoder, chat_tokenizer(), pixels, image_token="<|pad_of_image|>")
    encode = ChatCollator(other)
    assert (
        encode([talk("<image> what?", "red", images=1)])["input_ids"] == other.image_token_id
    ).sum() == IMAGE_TOKENS
    for row, images in ((talk("a <|pad_of_image|>", "b"), 0), (talk("<image> a?", "<|pad_of_image|>", images=1), 1)):
        with pytest.raises(HfChainError, match=rf"there are {images} images for {images + 1} <\|pad_of_image\|>"):
            encode([row])


def test_wordings_around_images_depend_on_seed_images_and_questions_only(processor):
    def text(seed, row):
        encoder = ChatEncoder(processor, image_prompts=True, seed=seed)
        encoded = encoder.encode(row["messages"], row["images"])
        assert encoded.input_ids.count(processor.image_token_id) == IMAGE_TOKENS * len(row["images"])
        return processor.tokenizer.decode(encoded.input_ids)

    rows = [talk(f"<image>\nis it {number}?", "yes", images=1) for number in range(40)]
    drawn = [text(0, row) for row in rows]
    assert drawn == [text(0, row) for row in rows]
    assert drawn != [text(1, row) for row in rows]
    beginnings = [one.split("is it")[0] for one in drawn]
    for row in rows:
        row["messages"][1]["content"] = "no, it is another one"
    assert [text(0, row).split("is it")[0] for row in rows] == beginnings
    for row in rows:
        row["images"] = [ImageOps.invert(row["images"][0])]
    assert [text(0, row).split("is it")[0] for row in rows] != beginnings
    beginnings = set(beginnings)
    assert 10 < len(beginnings) <= len(IMAGE_PROMPTS)
    plain = talk("is it red?", "yes")
    assert "mage" not in text(0, plain)


def test_there_are_about_thirty_wordings_with_one_image_each():
    assert 25 <= len(set(IMAGE_PROMPTS)) <= 35
    assert all(prompt.count("<image>") == 1 for prompt in IMAGE_PROMPTS)


def test_short_responses_about_images_weigh_more(processor):
    reweighting = ResponseReweighting(order=2.0, longest=20)
    rows = [
        talk("<image> a?", "no", "b?", "a large red circle on a plain white background", images=1),
        talk("c?", "no"),
    ]
    batch = ChatCollator(processor, reweighting=reweighting, special_tokens_in_loss=False)(rows)
    weights, labels = batch["loss_weights"], batch["labels"]
    assert ((weights > 0) == (labels != IGNORED)).all()
    inside = weights[0][labels[0] != IGNORED].tolist()
    words = [len(processor.tokenizer.encode(row["content"])) for row in rows[0]["messages"][1::2]]
    expected = [(math.log(n + 1) / math.log(21)) ** -2 for n in words for _ in range(n)]
    assert inside == pytest.approx(expected)
    assert set(weights[1][labels[1] != IGNORED].tolist()) == {1.0}


def test_weights_do_not_depend_on_special_tokens(processor):
    row = talk("<image> a?", "no", images=1)
    weights = {
        special: ChatCollator(processor, reweighting=ResponseReweighting(), special_tokens_in_loss=special)([row])[
            "loss_weights"
        ].max()
        for special in (True, False)
    }
    assert weights[True] == weights[False] > 1


def test_weights_are_at_least_one():
    reweighting = ResponseReweighting(order=1.0, longest=8)
    assert [reweighting.weight(n) for n in (8, 9, 1000)] == [1.0, 1.0, 1.0]
    assert reweighting.weight(1) > reweighting.weight(2) > reweighting.weight(7) > 1
    assert ResponseReweighting(order=0).weight(1) == 1.0
    for options in ({"order": -1}, {"longest": 0}):
        with pytest.raises(HfChainError, match="re-weighting"):
            ResponseReweighting(**options)


def test_the_loss_is_that_of_the_responses():
    tokenizer = chat_tokenizer()
    model = tiny_language_model()
    batch = ChatCollator(tokenizer)([talk("one?", "two three", "four?", "yes"), talk("a?", "no")])
    with torch.no_grad():
        output = model(**batch)
    logp = output.logits[:, :-1].log_softmax(-1)
    targets = batch["labels"][:, 1:]
    picked = logp.gather(-1, targets.clamp(min=0)[..., None])[..., 0][targets != IGNORED]
    assert output.loss.item() == pytest.approx(-picked.mean().item(), rel=1e-5)
