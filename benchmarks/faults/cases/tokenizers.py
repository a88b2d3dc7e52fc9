"""Tokenizers for a chain: those whose captions a text tower would read at the wrong place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cases import BASE, Case, chain_recipe

CAPTIONS = ["a large red circle on a white background", "two small blue squares beside a green star"]


def _byte_level(marks: list[str], template: str | None = "$A {end}", **options: Any) -> Any:
    """A small byte-level tokenizer whose special tokens come first, in the order of `marks`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=marks, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    if template is not None:
        text = template.format(end="<end>", start="<start>")
        named = [(mark, tokenizer.token_to_id(mark)) for mark in marks]
        tokenizer.post_processor = processors.TemplateProcessing(single=text, special_tokens=named)
    given = {"eos_token": "<end>", "pad_token": "<pad>", "model_max_length": 40} | options
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{k: v for k, v in given.items() if v is not None})


MARKS = ["<pad>", "<start>", "<unused>", "<end>"]
TOKENIZERS: list[tuple[str, Callable[[], Any], str, str]] = [
    ("with marks at both ends", lambda: _byte_level(MARKS, "<start> $A <end>", bos_token="<start>"), "right", ""),
    ("with a mark at the end alone", lambda: _byte_level(MARKS), "right/refused", "token"),
    ("whose end has the id 2", lambda: _byte_level(["<pad>", "<start>", "<end>"]), "right/refused", "2|end|eos"),
    ("that writes no end mark", lambda: _byte_level(MARKS, None), "refused", "end|eos"),
    ("without an end token", lambda: _byte_level(MARKS, None, eos_token=None), "refused", "end|eos"),
    ("without a pad token", lambda: _byte_level(MARKS, pad_token=None), "refused", "pad"),
    ("that cuts from the left", lambda: _byte_level(MARKS, truncation_side="left"), "right/refused", "trunc|left|end"),
    ("that pads on the left", lambda: _byte_level(MARKS, padding_side="left"), "right/refused", "pad|left"),
    ("that writes the end first", lambda: _byte_level(MARKS, "<end> $A"), "refused", "end|eos"),
    ("that writes the end twice", lambda: _byte_level(MARKS, "<end> $A <end>"), "refused", "end|eos|caption"),
]
FOLDERS: list[tuple[str, dict[str, bytes], str]] = [
    ("of nothing", {}, "tokenizer"),
    ("with a broken tokenizer.json", {"tokenizer.json": b'{"version": "1.0", "model"'}, "tokenizer"),
    ("with an empty tokenizer.json", {"tokenizer.json": b"", "tokenizer_config.json": b"{}"}, "tokenizer"),
    ("with a list for a tokenizer", {"tokenizer.json": b"[]", "tokenizer_config.json": b"{}"}, "tokenizer"),
    (
        "with code of its own",
        {"tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": ["evil.T", null]}}'},
        "tokenizer",
    ),
]


def cases() -> Iterator[Case]:
    """All of this table."""
    recipe = chain_recipe({"tokenizer.name_or_path": "tokenizer"})
    for name, make, expects, words in TOKENIZERS:
        yield Case("tokenizers", f"one {name}", expects, words, write=_saved(make, recipe), check=_tells_apart)
    for name, files, words in FOLDERS:
        yield Case("tokenizers", f"a folder {name}", "refused", words, write=_folder(files, recipe))
    yield Case(
        "tokenizers", "captions of unknown words", "refused/warned", "caption|unk|token", write=_unknown(recipe)
    )
    as_large = {
        "vision": {"hidden_size": 32, "num_hidden_layers": 1},
        "text": {"hidden_size": 32, "num_hidden_layers": 1},
    }
    member = {"name": "tiny", "epochs": 1, "projection_dim": 24, **as_large}
    other = {"predecessor": f"{BASE}/clip", "tokenizer.name_or_path": "tokenizer", "members": [member]}
    yield Case(
        "tokenizers",
        "another than the predecessor's",
        "refused",
        "tokenizer",
        write=_saved(TOKENIZERS[0][1], chain_recipe(other)),
    )


def _saved(make: Callable[[], Any], recipe: Callable[[Path], None]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        make().save_pretrained(folder / "tokenizer")
        recipe(folder)

    return write


def _folder(files: dict[str, bytes], recipe: Callable[[Path], None]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "tokenizer").mkdir()
        for name, content in files.items():
            (folder / "tokenizer" / name).write_bytes(content)
        recipe(folder)

    return write


def _unknown(recipe: Callable[[Path], None]) -> Callable[[Path], None]:
    """A vocabulary of words that no caption has: every caption is the same to the model."""

    def make() -> Any:
        from tokenizers import Tokenizer, models, pre_tokenizers, processors
        from transformers import PreTrainedTokenizerFast

        words = {"<pad>": 0, "<unk>": 1, "<start>": 2, "<end>": 3, "hippopotamus": 4}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split("\n", "isolated")])
        tokenizer.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 3)])
        marks = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "<end>"}
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=40, **marks)

    return _saved(make, recipe)


def _tells_apart(folder: Path) -> None:
    """The member tells captions apart by their last word, and sees the end of an over-long one."""
    from transformers import AutoProcessor, CLIPModel

    member = folder / "runs" / "tiny" / "02-small"
    model, processor = CLIPModel.from_pretrained(member), AutoProcessor.from_pretrained(member)
    options = {"return_tensors": "pt", "padding": "max_length", "max_length": 40, "truncation": True}
    for caption in (*CAPTIONS, "zebra", "yellow", "~"):
        inputs = processor(text=[f"{caption[:24]} {last}" for last in ("a", "b", "!")], **options)
        found = model.get_text_features(**inputs).pooler_output
        if min((found[one] - found[two]).abs().max() for one, two in ((0, 1), (0, 2), (1, 2))) < 1e-6:
            raise ValueError(f"{caption!r} has one embedding with several last words")
    ids = processor(text=[" ".join(CAPTIONS * 10)], **options)["input_ids"][0].tolist()
    if model.config.text_config.eos_token_id not in ids:
        raise ValueError("the end mark of an over-long caption is cut off")
