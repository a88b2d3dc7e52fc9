"""Tiny tokenizers with the chat templates of known families, and tiny models to talk to."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from PIL import Image
from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForCausalLM, CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from hf_chain.data.chat import ChatCollator, ChatEncoder, train_chat_tokenizer
from hf_chain.losses.response import IGNORED
from hf_chain.models.grafted_vlm import from_parts

TEXT = (
    "a large red circle and two small blue squares on a plain white background. what colour is the largest shape? "
    "is there a green star? yes no how many shapes are there? one two three four user assistant system"
)

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
CHATML = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are an assistant.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Like Qwen3: an empty thought before the last response only.
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
# Like DeepSeek's: asks for a thought that past turns do not show.
ASKS_FOR_THOUGHT = CHATML.replace("{{ '<|im_start|>assistant\n' }}", "{{ '<|im_start|>assistant\n<think>\n' }}")
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] | trim }}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
TEMPLATES = {
    "llama3": (LLAMA3, "<|eot_id|>"),
    "chatml": (CHATML, "<|im_end|>"),
    "thinking": (THINKING, "<|im_end|>"),
    "asks_for_thought": (ASKS_FOR_THOUGHT, "<|im_end|>"),
    "gemma": (GEMMA, "<end_of_turn>"),
    "mistral": (MISTRAL, "<|end|>"),
}
"""Chat templates in the manner of known families, and the token that ends a response."""

_MARKS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>")


def talk(*turns: str, images: int = 0) -> dict[str, Any]:
    """A row of alternating questions and answers."""
    roles = ("user", "assistant")
    messages = [{"role": roles[number % 2], "content": text} for number, text in enumerate(turns)]
    colors = ("red", "green", "blue")
    return {"messages": messages, "images": [Image.new("RGB", (20, 16), colors[n]) for n in range(images)]}


def in_loss(tokenizer: Any, messages: Any, **options: Any) -> list[str]:
    """Texts of the runs of tokens that are in the loss."""
    encoder = ChatEncoder(tokenizer, **options)
    encoded, text = encoder.encode(messages), encoder.template.render(messages).text
    places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    runs: list[tuple[int, int]] = []
    inside = False
    for token, label, (start, end) in zip(encoded.input_ids, encoded.labels, places, strict=True):
        if label != IGNORED:
            assert label == token
            runs = [*runs[:-1], (runs[-1][0], end)] if inside else [*runs, (start, end)]
        inside = label != IGNORED
    return [text[start:end] for start, end in runs]


@cache
def chat_tokenizer(template: str | None = None) -> Any:
    """A byte-level tokenizer of about 400 entries; its own template, or one of `TEMPLATES`. Do not change it."""
    tokenizer = train_chat_tokenizer([{"messages": [{"role": "user", "content": TEXT}]}], 400, 512)
    if template is not None:
        marks = [*_MARKS, "<start_of_turn>", "<end_of_turn>"]
        tokenizer.add_tokens([AddedToken(mark, special=True) for mark in marks], special_tokens=True)
        tokenizer.chat_template = TEMPLATES[template][0]
    return tokenizer


def tiny_language_model(family: str = "llama", attention: str = "eager", **overrides: Any) -> Any:
    """A random two-layer language model in evaluation mode."""
    common = {"vocab_size": 500, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if family == "gpt2":
        shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 512}
        shape |= {name: 0.0 for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
    else:
        shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        shape |= {"max_position_embeddings": 512}
    if family == "opt":
        shape |= {"ffn_dim": 32, "word_embed_proj_dim": 16, "dropout": 0.0}
    if family.startswith("gemma"):
        shape |= {"head_dim": 8, "sliding_window": 8, "num_key_value_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, **(common | shape | overrides))
        return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()


def tiny_vlm(attention: str = "eager") -> tuple[Any, Any]:
    """A random vision-language model with images of 16 × 16 pixels and 5 tokens, and its processor."""
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    size = {"height": 16, "width": 16}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        encoder = CLIPVisionModel(vision)
        encoder.set_attn_implementation(attention)
        images = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=size)
        return from_parts(encoder, tiny_language_model(attention=attention), chat_tokenizer(), images)


def learn_by_heart(model: Any, tokenizer: Any, rows: Any) -> None:
    """Trains a model until it says the responses of a few rows, and leaves it in evaluation mode."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    batch = ChatCollator(tokenizer)(list(rows))
    model.train()
    for _ in range(60):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    model.eval()
