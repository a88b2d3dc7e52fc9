"""Models that are broken, incomplete, of another kind, or hold more than they should."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cases import BASE, Case, chain_recipe, graft_recipe

Change = Callable[[Path], Any]


def _tensors(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Changes the weights of a folder; its first file, where it has several."""

    def apply(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        path = sorted(folder.glob("*.safetensors"))[0]
        weights = load_file(path)
        change(weights)
        save_file(weights, path, metadata={"format": "pt"})
        index = folder / "model.safetensors.index.json"
        if index.exists():
            values = json.loads(index.read_text(encoding="utf-8"))
            others = {name: file for name, file in values["weight_map"].items() if file != path.name}
            values["weight_map"] = others | {name: path.name for name in weights}
            index.write_text(json.dumps(values), encoding="utf-8")

    return apply


def _one(weights: dict[str, Any]) -> str:
    return next(name for name in sorted(weights) if weights[name].dim() == 2)


def _filled(value: float) -> Change:
    return _tensors(lambda weights: weights[_one(weights)][0].fill_(value))


def _config(**fields: Any) -> Change:
    def apply(folder: Path) -> None:
        path = folder / "config.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        for name, value in fields.items():
            section = values
            *parents, last = name.split("__")
            for part in parents:
                section = section[part]
            section[last] = value
        path.write_text(json.dumps(values), encoding="utf-8")

    return apply


def _only(name: str, content: bytes) -> Change:
    def apply(folder: Path) -> None:
        for path in [*folder.glob("*.safetensors*"), folder / "config.json", folder / "manifest.json"]:
            path.unlink(missing_ok=True)
        (folder / name).write_bytes(content)

    return apply


def _without(pattern: str) -> Change:
    return lambda folder: [path.unlink() for path in folder.glob(pattern)]


def _adapter(folder: Path) -> None:
    adapter = {"peft_type": "LORA", "r": 2, "base_model_name_or_path": "x", "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(adapter), encoding="utf-8")


def _injected(weights: dict[str, Any]) -> None:
    import torch

    name = next(name for name in sorted(weights) if name.endswith("q_proj.weight"))
    stem, weight = name.removesuffix(".weight"), weights[name]
    weights[f"{stem}.lora_A.default.weight"] = torch.ones(2, weight.shape[1])
    weights[f"{stem}.lora_B.default.weight"] = torch.ones(weight.shape[0], 2)
    weights[f"{stem}.base_layer.weight"] = weights.pop(name)


def _code(folder: Path) -> None:
    _config(auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}, model_type="evil")(folder)
    (folder / "evil.py").write_text("open('owned', 'w')\nclass Config: pass\nclass Model: pass\n", encoding="utf-8")


_CUT = _tensors(lambda weights: weights.update({_one(weights): weights[_one(weights)][:-1].clone()}))
COMMON: list[tuple[str, Change, str]] = [
    ("a number that is NaN", _filled(float("nan")), "nan|finite"),
    ("a number without end", _filled(float("inf")), "inf|finite"),
    ("a tensor missing", _tensors(lambda weights: weights.pop(_one(weights))), "missing|lacks|no weights?"),
    ("a tensor too short", _CUT, "shape|size|match|differ|load"),
    (
        "a tensor too many",
        _tensors(lambda weights: weights.update(extra=weights[_one(weights)].clone())),
        "extra|unexpected",
    ),
    (
        "weights cut short",
        lambda folder: _cut_file(sorted(folder.glob("*.safetensors"))[0]),
        "safetensors|load|header|read",
    ),
    ("no weights", _without("*.safetensors"), "safetensors|weights"),
    ("no configuration", _without("config.json"), "config"),
    ("half a configuration", lambda folder: _cut_file(folder / "config.json"), "config"),
    ("a configuration that is a list", lambda folder: (folder / "config.json").write_bytes(b"[]"), "config"),
    ("an unknown kind", _config(model_type="nosuchmodel"), "nosuchmodel"),
    ("code of its own", _code, "code|evil|trust"),
    ("pickled weights alone", lambda folder: _pickled(folder), "safetensors"),
    ("an adapter alone", _only("adapter_config.json", b'{"peft_type": "LORA"}'), "adapter"),
    ("a GGUF file alone", _only("model.gguf", b"GGUF\x03\x00\x00\x00"), "gguf"),
    ("a text alone", _only("notes.txt", b"the model is on the other disk"), "config|model"),
]
"""Changes of any model, and what the line says."""

CLIP: list[tuple[str, Change, str]] = [
    ("a tower of no layers", _config(vision_config__num_hidden_layers=0), "layer|unexpected|weights"),
    ("fewer layers than weights", _config(text_config__num_hidden_layers=0), "layer|unexpected|weights"),
    ("more layers than weights", _config(text_config__num_hidden_layers=9), "layer|missing|lacks"),
    ("heads that do not divide", _config(vision_config__num_attention_heads=5), "head|divi"),
]
TARGET: list[tuple[str, Change, str]] = [
    ("no layers", _config(num_hidden_layers=0), "layer|unexpected|weights"),
    ("fewer layers than weights", _config(num_hidden_layers=3), "layer|unexpected|weights"),
    ("more layers than weights", _config(num_hidden_layers=12), "layer|missing|lacks|weights"),
    ("an adapter beside it", _adapter, "adapter"),
    ("LoRA in its weights", _tensors(_injected), "lora|adapter|q_proj"),
    (
        "weights of 8 bits without their tool",
        _config(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
        "bitsandbytes|quanti",
    ),
    ("a quantisation nobody knows", _config(quantization_config={"quant_method": "magic"}), "magic|quanti"),
    ("a vocabulary smaller than its tokenizer", _config(vocab_size=100), "vocab|size|shape|embedding"),
]
GROW = ("grow", "model", "grown", "--vision-width", "64")
SURROGATE = ("surrogate", "model", "cut", "--replaced", "2-4", "--method", "inherit")
GRAFT = ("graft", f"{BASE}/joined", "model", "joined")


def cases() -> Iterator[Case]:
    """All of this table."""
    for name, change, words in [*COMMON, *CLIP]:
        yield Case("models", f"grow, {name}", "refused", words, GROW, _copy("clip", change), _runs_no_code)
    for name, change, words in [*COMMON[:6], *CLIP[:2]]:
        recipe = ("eval", "model", "--recipe", "recipe.yaml")
        yield Case("models", f"eval, {name}", "refused", words, recipe, _copy("clip", change, chain_recipe({})))
    for name, change, words in [*COMMON, *TARGET]:
        yield Case("models", f"surrogate, {name}", "refused", words, SURROGATE, _copy("target", change), _runs_no_code)
    for name, change, words in [*COMMON[:5], *TARGET]:
        write = _copy("target", change, graft_recipe({"target.name_or_path": "model"}))
        yield Case("models", f"target of a run, {name}", "refused", words, write=write)
        yield Case("models", f"graft, {name}", "refused", words, GRAFT, _copy("target", change))
    for name, change, words in COMMON:
        write = _copy("tower", change, graft_recipe({"encoder.name_or_path": "model"}))
        yield Case("models", f"encoder of a run, {name}", "refused", words, write=write)
    for name, change, words in COMMON[:6]:
        yield Case(
            "models", f"export, {name}", "refused", words, ("export", "model", "llava"), _copy("grafted", change)
        )
    for name, command, words in OTHERS:
        yield Case("models", name, "refused", words, command)
    yield Case("models", "a predecessor in half precision", "right", write=_half, check=_is_float)


OTHERS: list[tuple[str, tuple[str, ...], str]] = [
    ("grow, a language model", ("grow", f"{BASE}/target", "grown", "--vision-width", "64"), "llama"),
    ("grow, a vision tower", ("grow", f"{BASE}/tower", "grown", "--vision-width", "64"), "clip_vision_model|clip"),
    (
        "surrogate, a dual encoder",
        ("surrogate", f"{BASE}/clip", "cut", "--replaced", "0-0", "--method", "inherit"),
        "clip",
    ),
    (
        "surrogate, a grafted model",
        ("surrogate", f"{BASE}/grafted", "cut", "--replaced", "2-4", "--method", "inherit"),
        "graft",
    ),
    ("graft, onto itself", ("graft", f"{BASE}/joined", f"{BASE}/joined", "out"), "joined|graft"),
    ("graft, a language model for the model", ("graft", f"{BASE}/target", f"{BASE}/target", "out"), "target"),
    ("export, a language model", ("export", f"{BASE}/target", "out"), "target"),
    (
        "export, one on its surrogate to another format",
        ("export", f"{BASE}/joined", "out", "--format", "gguf"),
        "gguf",
    ),
    ("chat, a dual encoder", ("chat", f"{BASE}/clip"), "clip"),
]


def _copy(name: str, change: Change, recipe: Callable[[Path], None] | None = None) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        shutil.copytree(folder / BASE / name, folder / "model")
        # Others' models have no list of hashes.
        for manifest in (folder / "model").glob("*manifest*"):
            manifest.unlink()
        change(folder / "model")
        if recipe is not None:
            recipe(folder)

    return write


def _cut_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _pickled(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file

    weights: dict[str, Any] = {}
    for path in folder.glob("*.safetensors"):
        weights |= load_file(path)
        path.unlink()
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    torch.save(weights, folder / "pytorch_model.bin")


def _runs_no_code(folder: Path) -> None:
    if (folder / "owned").exists():
        raise ValueError("code of the model was run")


def _half(folder: Path) -> None:
    import torch
    from transformers import CLIPModel

    _copy("clip", lambda model: None)(folder)
    CLIPModel.from_pretrained(folder / "model", dtype=torch.float16).save_pretrained(folder / "model")
    as_large = {"hidden_size": 32, "num_hidden_layers": 1}
    member = {"name": "tiny", "epochs": 1, "projection_dim": 24, "vision": as_large, "text": as_large}
    given = {"predecessor": "model", "tokenizer.name_or_path": "model", "members": [member]}
    chain_recipe(given)(folder)


def _is_float(folder: Path) -> None:
    from safetensors.torch import load_file

    weights = load_file(folder / "runs" / "tiny" / "01-tiny" / "model.safetensors")
    kinds = {str(weight.dtype) for weight in weights.values() if weight.is_floating_point()}
    if kinds != {"torch.float32"}:
        raise ValueError(f"it was trained in {', '.join(kinds)}")
