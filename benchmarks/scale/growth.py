"""CPU time and memory of growth at published sizes, against saving and loading the larger model.

    python benchmarks/scale/growth.py

Row 26 of docs/benchmarks/scale.md: ViT-B to ViT-L, and a Llama of 160 M to 400 M parameters, from configurations. Each
is grown in a process of its own, whose memory is that of both models and what growth needs beside them.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time

from results import add_row

LLAMA = {"vocab_size": 32_000, "tie_word_embeddings": True, "max_position_embeddings": 2048}
CASES = {
    "ViT-B to ViT-L": (
        "ViTForImageClassification",
        {"num_labels": 1000},
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    ),
    "Llama": (
        "LlamaForCausalLM",
        LLAMA | {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
    ),
}
ROUNDS = 3


def main() -> None:
    """Measures each case and adds the row."""
    curves: dict[str, dict[int, float]] = {"growth": {}, "save and load": {}, "memory beside both models": {}}
    ratios = []
    for name in CASES:
        runs = [subprocess.check_output([sys.executable, __file__, name]) for _ in range(ROUNDS)]
        # Libraries may print before.
        found = [json.loads(run.splitlines()[-1]) for run in runs]
        ratios.append(statistics.median(one["growth"] / one["copy"] for one in found))
        size = round(found[0]["size"] / 1e6)
        curves["growth"][size] = statistics.median(one["growth"] for one in found)
        curves["save and load"][size] = statistics.median(one["copy"] for one in found)
        curves["memory beside both models"][size] = statistics.median(one["beside"] for one in found) / 1e9
        print(f"{name}, {size} MB: {ratios[-1]:.2f} × save and load, {found[0]['beside'] / 1e6:.0f} MB beside both")
    add_row(
        26,
        "growth to a ViT-L and to a Llama of 400 M, against saving and loading it; the larger of both",
        "CPU s, and GB",
        "MB of the larger model",
        curves,
        max(ratios),
        "< 3 ×",
        "python benchmarks/scale/growth.py",
        before="11 ×",
    )


def measure(name: str) -> dict[str, float]:
    """CPU seconds of growth and of saving and loading, bytes of the larger model and beside both."""
    import torch
    import transformers
    from transformers.utils import logging

    from hf_chain.growth import grow

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    kind, sizes, larger = CASES[name]
    model_class = getattr(transformers, kind)
    predecessor = model_class(model_class.config_class(**sizes)).eval()
    before, start = _peak(), time.process_time()
    successor = grow(predecessor, model_class.config_class(**sizes | larger))
    grown, after = time.process_time(), _peak()
    with tempfile.TemporaryDirectory() as folder:
        successor.save_pretrained(folder)
        model_class.from_pretrained(folder)
    size = sum(weight.nbytes for weight in successor.parameters())
    copied = time.process_time()
    return {"growth": grown - start, "copy": copied - grown, "size": size, "beside": after - before - size}


def _peak() -> int:
    """Bytes that this process had in memory at most; the predecessor was the most before."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
