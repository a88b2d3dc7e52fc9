"""A run of a graft whose folders hold tiny models that load and answer."""

from __future__ import annotations

import shutil
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM

from hf_chain.files import weights_sha256
from hf_chain.grafting.graft import graft
from hf_chain.grafting.surrogate import build_surrogate
from hf_chain.models.grafted_vlm import GraftedVLMProcessor, from_parts
from hf_chain.runs.ledger import Ledger, read_family
from support.chat_models import chat_tokenizer
from support.graft_runs import write_graft_run
from support.grafted_parts import image_processor, tiny_tower

RECIPE = "name: graft\n"
TARGET = {
    "vocab_size": 500,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 6,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def write_saved_graft(run_dir: Path, translator: bool = False) -> Path:
    """Writes a finished run; its encoder was trained on a surrogate without layers 3 and 4.

    Args:
        run_dir (`Path`): a new folder.
        translator (`bool`): whether a stage before the encoder's trained the translator.
    """
    write_graft_run(run_dir, translator=translator)
    folders = {record.name: run_dir / record.folder for record in read_family(run_dir).members}
    target, surrogate, encoder, grafted = (folders[name] for name in ("target", "surrogate", "encoder", "graft"))
    LlamaForCausalLM(LlamaConfig(**TARGET)).save_pretrained(target)
    chat_tokenizer().save_pretrained(target)
    build_surrogate(target, "2-4").save_pretrained(surrogate)
    chat_tokenizer().save_pretrained(surrogate)
    model, processor = from_parts(tiny_tower(), str(surrogate), chat_tokenizer(), image_processor())
    model.save_pretrained(encoder)
    processor.save_pretrained(encoder)
    if translator:
        shutil.copytree(encoder, folders["translator"], dirs_exist_ok=True, ignore=shutil.ignore_patterns("answers*"))
    graft(encoder, str(target)).save_pretrained(grafted)
    GraftedVLMProcessor.from_pretrained(encoder).save_pretrained(grafted)
    for name in ("decoder", "alignment", "full"):
        shutil.copytree(grafted, folders[name], dirs_exist_ok=True)
    for name, folder in folders.items():
        (folder / "recipe.yaml").write_text(RECIPE)
        Ledger(run_dir).append("saved", name, weights_sha256=weights_sha256(folder))
    return run_dir
