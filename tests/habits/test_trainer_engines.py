"""Under DeepSpeed too the model that is trained is the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.forks import Fork
from support.launches import needs_deepspeed

PROGRAM = """
import sys
sys.path.append(sys.argv[2])
import torch
from safetensors.torch import load_file
from hf_chain.trainer import ChainConfig, ChainTrainer
from support.pairs import RandomPairs, collate, tiny_clip

folder = sys.argv[1]
sizes = {"overlap_comm": False, "reduce_bucket_size": 5_000_000, "allgather_bucket_size": 5_000_000}
engine = {"train_micro_batch_size_per_gpu": "auto", "zero_optimization": {"stage": 2, **sizes}}
model = tiny_clip(embedding=16)
model.vision_model.requires_grad_(False)
before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
settings = {"per_device_train_batch_size": 8, "max_steps": 3, "learning_rate": 1e-2, "save_strategy": "no"}
args = ChainConfig(folder, use_cpu=True, deepspeed=engine, optim="adamw_torch", disable_tqdm=True, **settings)
trainer = ChainTrainer(model, args, tiny_clip(seed=1), train_dataset=RandomPairs(), data_collator=collate)
trainer.train()
moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
trainer.save_model(folder + "/trainer")
model.save_pretrained(folder + "/user")
one, other = (load_file(folder + f"/{name}/model.safetensors") for name in ("trainer", "user"))
assert one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
assert "logit_scale" in moved and "visual_projection.weight" in moved
assert not any(name.startswith("vision_model.") for name in moved)
print("as it should be")
"""


@pytest.mark.slow
@needs_deepspeed
def test_the_users_own_model_is_trained_under_zero_2(tmp_path: Path) -> None:
    world = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    process = Fork("-c", PROGRAM, tmp_path, Path(__file__).resolve().parents[1], variables=world)
    assert process.wait() == 0 and process.out.endswith("as it should be\n"), process.err[-2000:]
