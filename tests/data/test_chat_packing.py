"""Packed conversations train exactly as unpacked ones do."""

from __future__ import annotations

from random import Random

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from hf_chain.data.chat import ChatCollator, PackedRows, PackedStream, check_packing, pack_lengths
from hf_chain.errors import HfChainError
from hf_chain.losses.response import IGNORED
from support.chat_models import chat_tokenizer, talk, tiny_language_model, tiny_vlm
from support.reference_flash import reference_flash  # noqa: F401

TEXTS = [
    talk("one?", "two three"),
    talk("is there a green star?", "no", "how many shapes are there?", "four"),
    talk("a?", "a large red circle and two small blue squares"),
    talk("what colour is the largest shape?", "red"),
]
FAMILIES = [("llama", "eager"), ("llama", "sdpa"), ("gemma3_text", "eager"), ("gpt2", "sdpa"), ("gpt_neox", "eager")]


def gradients(model, batch):
    """Sum of the losses of all response tokens, and its gradients."""
    model.zero_grad()
    loss = model(**batch, num_items_in_batch=1).loss
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(one, other):
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert one[1].keys() == other[1].keys()
    for name in one[1]:
        torch.testing.assert_close(one[1][name], other[1][name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(("family", "attention"), FAMILIES)
def test_packed_losses_and_gradients_equal_unpacked_ones(family, attention):
    model, tokenizer = tiny_language_model(family, attention), chat_tokenizer()
    check_packing(model)
    padded, packed = ChatCollator(tokenizer)(TEXTS), ChatCollator(tokenizer, packing=True)(TEXTS)
    assert packed["input_ids"].shape == (1, padded["attention_mask"].sum())
    assert (packed["labels"] != IGNORED).sum() == (padded["labels"] != IGNORED).sum()
    assert_same(gradients(model, packed), gradients(model, padded))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_images_equal_unpacked_ones(attention):
    model, processor = tiny_vlm(attention)
    check_packing(model)
    rows = [
        TEXTS[0],
        talk("<image> what is this?", "red", images=1),
        talk("is <image> or <image> red?", "yes", images=2),
        TEXTS[3],
    ]
    padded, packed = ChatCollator(processor)(rows), ChatCollator(processor, packing=True)(rows)
    assert torch.equal(packed["pixel_values"], padded["pixel_values"])
    one, other = gradients(model, packed), gradients(model, padded)
    assert one[1]["adapter.0.weight"].abs().sum() > 0
    assert_same(one, other)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt_neox", "opt"])
def test_packs_on_the_way_to_flash_attention_equal_padded_rows(family, reference_flash):  # noqa: F811
    """The kernel is in plain torch; all before it is what a GPU would get."""
    model, tokenizer = tiny_language_model(family), chat_tokenizer()
    padded = gradients(model, ChatCollator(tokenizer)(TEXTS))
    model.set_attn_implementation("flash_attention_2")
    check_packing(model)
    assert_same(gradients(model, ChatCollator(tokenizer, packing=True)(TEXTS)), padded)
    assert "flash_attn_varlen_func" in reference_flash


def test_a_model_that_mixes_packed_conversations_is_refused():
    with pytest.raises(HfChainError, match="OPTForCausalLM does not keep packed sequences apart") as caught:
        check_packing(tiny_language_model("opt"))
    assert "\n" not in str(caught.value)


def trained(tmp_path, packing, batch_size, accumulate):
    """Weights after two optimiser steps on eight rows each."""
    rows = [{**row, "images": []} for row in (TEXTS * 4)]
    arguments = TrainingArguments(
        str(tmp_path / f"{packing}-{batch_size}"),
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulate,
        max_steps=2,
        train_sampling_strategy="sequential",
        learning_rate=0.1,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0,
        remove_unused_columns=False,
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    model = tiny_language_model()
    collator = ChatCollator(chat_tokenizer(), packing=packing)
    Trainer(model, arguments, data_collator=collator, train_dataset=Dataset.from_list(rows)).train()
    return model.state_dict()


@pytest.mark.slow
def test_training_does_not_depend_on_packing_or_accumulation(tmp_path):
    reference = trained(tmp_path, packing=False, batch_size=8, accumulate=1)
    start = tiny_language_model().state_dict()
    assert not torch.equal(start["lm_head.weight"], reference["lm_head.weight"])
    for packing, batch_size, accumulate in [(False, 1, 8), (True, 8, 1), (True, 2, 4)]:
        other = trained(tmp_path, packing, batch_size, accumulate)
        for name, value in reference.items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6, msg=f"{name} {packing} {batch_size}")


def test_every_row_is_in_one_pack_and_no_pack_overflows():
    random = Random(0)
    lengths = [random.randint(1, 100) for _ in range(500)]
    packs = pack_lengths(lengths, 128)
    assert sorted(row for pack in packs for row in pack) == list(range(500))
    assert max(sum(lengths[row] for row in pack) for pack in packs) <= 128
    assert len(packs) <= 1.03 * sum(lengths) / 128 + 1
    assert pack_lengths(lengths, 128) == packs


def test_packs_of_rows_go_through_the_collator():
    rows = Dataset.from_list([{**row, "images": [], "length": 20 + n} for n, row in enumerate(TEXTS)])
    packed = PackedRows(rows, max_tokens=64)
    assert sum(len(packed[index]) for index in range(len(packed))) == len(TEXTS)
    batch = ChatCollator(chat_tokenizer(), packing=True)([packed[0], packed[1]])
    assert (batch["position_ids"] == 0).sum() == len(packed[0]) + len(packed[1])


def test_a_stream_is_packed_in_its_order():
    rows = [{"length": length, "row": number} for number, length in enumerate([30, 30, 10, 60, 5])]
    packs = [[row["row"] for row in pack] for pack in PackedStream(rows, 64)]
    assert packs == [[0, 1], [2], [3], [4]]


def test_packing_says_in_one_line_what_it_lacks():
    rows = Dataset.from_list([{"messages": []}])
    with pytest.raises(HfChainError, match="no length column; take them from check_chat"):
        PackedRows(rows, 64)
    with pytest.raises(HfChainError, match="a conversation has 65 tokens, a pack 64"):
        pack_lengths([10, 65], 64)
    with pytest.raises(HfChainError, match="a conversation has 65 tokens, a pack 64"):
        list(PackedStream([{"length": 65}], 64))
