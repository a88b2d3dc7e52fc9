"""Peak memory of cutting a surrogate from a sharded Llama checkpoint of 3 GB, each way in a process of its own.

    python benchmarks/surrogate_memory.py

The checkpoint is random and lies in a temporary folder; it and one surrogate need 6 GB of disk. Linux only. Results go
to docs/benchmarks/surrogate_memory.{md,json}.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
REPLACED, TRANSLATORS = "8-21", 1
AIM = 300e6
SIZES = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
}
OURS: dict[str, dict[str, Any]] = {
    "in memory": {},
    "and written to a folder": {"write": True},
    "in float32": {"dtype": "float32"},
    "in float32, and written": {"dtype": "float32", "write": True},
}
NAIVE: dict[str, dict[str, Any]] = {
    "and written to a folder": {"write": True},
    "in float32, and written": {"dtype": "float32", "write": True},
}


def main() -> None:
    """Writes the checkpoint, measures every way and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(_measure(**json.loads(arguments.measure))))
        return
    with tempfile.TemporaryDirectory() as folder:
        size = _write_target(Path(folder, "target"))
        results = [_in_a_process(folder, False, name, options) for name, options in OURS.items()]
        results += [_in_a_process(folder, True, name, options) for name, options in NAIVE.items()]
    _write_page(size, results)


def _write_target(folder: Path) -> int:
    """Writes random weights, two layers a shard, without ever holding more; returns their bytes."""
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**SIZES, dtype="bfloat16")
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in LlamaForCausalLM(config).state_dict().items()}
    weight_map = {}
    for name in shapes:
        layer = re.search(r"layers\.(\d+)\.", name)
        weight_map[name] = f"model-{1 + int(layer[1]) // 2 if layer else 0:05d}.safetensors"
    total = 0
    for shard in sorted(set(weight_map.values())):
        names = [name for name, where in weight_map.items() if where == shard]
        weights = {name: torch.empty(shapes[name], dtype=torch.bfloat16).normal_(std=0.02) for name in names}
        total += sum(weight.nbytes for weight in weights.values())
        save_file(weights, folder / shard, metadata={"format": "pt"})
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def _in_a_process(folder: str, naive: bool, name: str, options: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        values = {"target": f"{folder}/target", "output": f"{scratch}/surrogate", "naive": naive, **options}
        command = [sys.executable, __file__, "--measure", json.dumps(values)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    way = "load all, delete layers" if naive else "build_surrogate"
    return {"way": way, "result": name} | json.loads(done.stdout.splitlines()[-1])


def _measure(target: str, output: str, naive: bool, dtype: str | None = None, write: bool = False) -> dict[str, int]:
    """Makes one surrogate and returns sizes in bytes: its own, the process's before, and the peak."""
    from torch import nn
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    from hf_chain.grafting.ranges import kept_layers, parse_ranges
    from hf_chain.grafting.surrogate import build_surrogate

    logging.disable_progress_bar()
    before = _memory("VmRSS")
    if naive:
        model = LlamaForCausalLM.from_pretrained(target, dtype=dtype or "auto")
        kept = kept_layers(parse_ranges(REPLACED), len(model.model.layers), TRANSLATORS)
        model.model.layers = nn.ModuleList(model.model.layers[layer] for layer in kept)
        model.config.num_hidden_layers = len(kept)
        if write:
            model.save_pretrained(output)
    else:
        model = build_surrogate(target, REPLACED, output_dir=output if write else None, dtype=dtype)
    return {
        "surrogate": sum(weight.nbytes for weight in model.parameters()),
        "before": before,
        "peak": _memory("VmHWM"),
    }


def _memory(field: str) -> int:
    """A field of this process's status, mapped files included, in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, f"{field} is not in /proc/self/status"
    return int(found[1]) * 1024


def _write_page(size: int, results: list[dict[str, Any]]) -> None:
    from families import machine_line
    from hf_chain.files import write_json, write_text
    from hf_chain.runs.environment import describe_environment

    environment = describe_environment()
    rows = []
    for result in results:
        grown = result["peak"] - result["before"]
        above = grown - result["surrogate"]
        verdict = "" if result["way"] != "build_surrogate" else "yes" if above < AIM else "**no**"
        numbers = (result["surrogate"], result["before"], result["peak"], grown, above)
        cells = " | ".join(f"{number / 1e6:,.0f}" for number in numbers)
        rows.append(f"| {result['way']} | {result['result']} | {cells} | {verdict} |")
    lines = [
        "# Memory of cutting a surrogate",
        "",
        f"A random Llama of {SIZES['num_hidden_layers']} layers in bfloat16, {size / 1e9:.2f} GB in shards of two"
        f" layers; layers {REPLACED} are replaced by one. Each way runs in a process of its own. *Before* is the"
        " process with its libraries imported, *peak* the kernel's count of its largest resident size, mapped files"
        f" included. All in MB. The aim: the peak lies less than {AIM / 1e6:.0f} MB above *before* plus the"
        " surrogate's own size."
        " Made by `python benchmarks/surrogate_memory.py`.",
        "",
        "| way | result | surrogate | before | peak | peak − before | − surrogate | aim met |",
        "|---|---|---:|---:|---:|---:|---:|---|",
        *rows,
        "",
        "transformers maps files into memory, so that layers deleted before anything reads them cost nothing, as long"
        " as their type stays. With another type every layer is copied first.",
        "",
        machine_line(environment),
        "",
    ]
    folder = ROOT / "docs/benchmarks"
    write_text(folder / "surrogate_memory.md", "\n".join(lines))
    values = {"environment": environment, "target_bytes": size, "replaced": REPLACED, "results": results}
    write_json(folder / "surrogate_memory.json", values)


if __name__ == "__main__":
    from hf_chain.cli import exit_cleanly

    exit_cleanly(main)
