"""`import hf_chain` is cheap, and the Auto classes know our models all the same."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from support.grafted_parts import tiny_parts


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_import_is_cheap() -> None:
    code = "import sys, hf_chain; print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    assert run(code) == "[]"


@pytest.mark.parametrize("name", ["hf_chain", "hf_chain.models", "hf_chain.models.grafted_vlm", "hf_chain.data.chat"])
def test_packages_list_what_they_offer_and_find_it_once(name: str) -> None:
    package = importlib.import_module(name)
    assert set(package.__all__) <= set(dir(package))
    for offered in package.__all__:
        assert getattr(package, offered) is vars(package)[offered]
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_the_package_can_be_run_and_its_files_read() -> None:
    """Whoever asks a loader for more than modules gets it."""
    done = subprocess.run([sys.executable, "-m", "hf_chain", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "plan" in done.stdout, done.stderr[-2000:]


FORKED = """
import os, sys
import torch._dynamo, torch.distributed.checkpoint, torch.distributed.fsdp, torch.distributed.tensor, accelerate
assert "transformers" not in sys.modules
for code in sys.argv[1:]:
    child = os.fork()
    if not child:
        exec(code)
        os._exit(0)
    # At once, as the next child would print what is held back as well.
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
CLASSES = ["CLIPModel", "CLIPProcessor", "AutoConfig", "AutoModel", "AutoImageProcessor", "AutoTokenizer", "Trainer"]
KNOWN = """
from transformers import AutoConfig, AutoModel
assert all(AutoConfig.for_model(name).model_type == name for name in ("chain_clip", "grafted_vlm"))
assert AutoModel._model_mapping[type(AutoConfig.for_model("chain_clip"))].__name__ == "ChainCLIPModel"
"""


def run_each(codes: list[str]) -> None:
    """Runs each in a process of its own that has imported what transformers takes from torch, and not transformers."""
    done = subprocess.run([sys.executable, "-c", FORKED, *codes], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["0"] * len(codes), done.stderr[-2000:]


LOAD = """
from transformers import Trainer, LlavaForConditionalGeneration
import hf_chain
from transformers import AutoModelForImageTextToText, AutoProcessor
model, processor = (kind.from_pretrained({folder!r}) for kind in (AutoModelForImageTextToText, AutoProcessor))
assert type(model).__name__ == "GraftedVLMForConditionalGeneration"
assert type(processor).__name__ == "GraftedVLMProcessor"
"""


@pytest.mark.slow
def test_a_grafted_model_loads_with_the_auto_classes(tmp_path: Path) -> None:
    """Whichever is imported first; the Trainer imports the Auto classes in the midst of its own import."""
    model, processor = tiny_parts()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    load = LOAD.format(folder=str(tmp_path))
    run_each([f"import hf_chain\n{load}", load])


@pytest.mark.slow
def test_any_class_of_transformers_may_be_imported_first() -> None:
    """CLIP's modules import the Auto classes in the midst of their own import, and ours import CLIP's."""
    run_each([f"import hf_chain\nfrom transformers import {first}\n{KNOWN}" for first in CLASSES])


@pytest.mark.slow
def test_any_of_our_modules_may_be_imported_first() -> None:
    """Those that our models import bring transformers, which brings our models in the midst of it."""
    names = ["loaded_weights", "models.chain_clip.stock_clip", "models.grafted_vlm.image_half", "growth.operators"]
    known = "from transformers import CONFIG_MAPPING; assert 'grafted_vlm' in CONFIG_MAPPING"
    run_each([f"import hf_chain.{name}\n{known}" for name in names])
