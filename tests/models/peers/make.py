"""Checkpoints of open_clip and timm, and what these libraries compute with them, for `tests/models/test_peers.py`.

Neither is a dependency. In an environment of its own, with `open_clip_torch` 3.3.0 and `timm` 1.0.31:

    python tests/models/peers/make.py

writes the folders beside this file, of random weights, and

    python tests/models/peers/make.py FOLDER [...]

loads folders that hf_chain has written, strictly, and says how far their outputs are from the expected ones: each
holds `expected.safetensors`, with inputs and outputs, as the folders beside this file do.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf

HERE = Path(__file__).parent
TEXT = {"context_length": 8, "vocab_size": 40, "width": 16, "heads": 2, "layers": 2}
VISION = {"image_size": 16, "patch_size": 8, "width": 24, "head_width": 8, "layers": 2}

CLIPS: dict[str, dict[str, Any]] = {
    "open_clip": {"embed_dim": 12, "vision_cfg": VISION, "text_cfg": TEXT},
    "open_clip_quickgelu": {
        "embed_dim": 12,
        "quick_gelu": True,
        "vision_cfg": VISION | {"mlp_ratio": 2.1, "norm_kwargs": {"eps": 1e-3}},
        "text_cfg": TEXT | {"mlp_ratio": 3.0, "pool_type": "eos", "eos_id": 30},
    },
}
VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 4}
VITS: dict[str, dict[str, Any]] = {
    "timm": VIT | {"num_classes": 5},
    "timm_features": VIT | {"num_classes": 0, "qkv_bias": False, "mlp_ratio": 2.1, "act_layer": "quick_gelu"},
}


def uneven(model: torch.nn.Module) -> torch.nn.Module:
    """Gains, offsets and biases as training leaves them."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name != "logit_scale":
                weight += torch.randn_like(weight) * (0.3 if weight.dim() == 1 else 0.05)
    return model.eval()


@torch.no_grad()
def outputs(model: Any, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the library computes."""
    if hasattr(model, "encode_image"):
        image, text = model.encode_image(inputs["pixel_values"]), model.encode_text(inputs["input_ids"])
        return {"image": image, "text": text}
    return {"logits": model(inputs["pixel_values"]).contiguous()}


def make() -> None:
    """Writes all folders."""
    torch.manual_seed(0)
    for name, told in CLIPS.items():
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        model = uneven(open_clip.model.CLIP(**told))
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
        preprocessing = {"mean": [0.5, 0.4, 0.3], "std": [0.3, 0.2, 0.1], "interpolation": "bicubic"}
        preprocessing["resize_mode"] = "shortest"
        told = {"model_cfg": told, "preprocess_cfg": preprocessing}
        (folder / "open_clip_config.json").write_text(json.dumps(told, indent=2) + "\n")
        end = model.text_eos_id if model.text_pool_type == "eos" else model.vocab_size - 1
        tokens = torch.randint(30, (3, 8))
        tokens[torch.arange(3), torch.tensor([7, 4, 2])] = end
        keep(folder, model, {"pixel_values": torch.randn(3, 3, 16, 16), "input_ids": tokens})
    for name, told in VITS.items():
        folder = HERE / name
        model = uneven(timm.create_model("vit_tiny_patch16_224", pretrained=False, **told))
        save_for_hf(model, folder, safe_serialization=True)
        keep(folder, model, {"pixel_values": torch.randn(3, 3, 16, 16)})


def keep(folder: Path, model: Any, inputs: dict[str, torch.Tensor]) -> None:
    """Writes inputs and outputs beside a checkpoint."""
    save_file(inputs | outputs(model, inputs), folder / "expected.safetensors")


def check(folder: Path) -> None:
    """Loads a folder as users of its library do, and compares."""
    if (folder / "open_clip_config.json").is_file():
        model = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True)
    else:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    expected = load_file(folder / "expected.safetensors")
    for name, found in outputs(model.eval(), expected).items():
        print(f"{folder}: {name} differs by at most {(found - expected[name]).abs().max():.1e}")


if __name__ == "__main__":
    for path in sys.argv[1:]:
        check(Path(path).resolve())
    if not sys.argv[1:]:
        make()
