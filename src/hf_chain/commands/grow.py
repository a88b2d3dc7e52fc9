"""Growing a published model into a folder: what `hf-chain grow` does."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_chain.adapters import check_model_files
from hf_chain.commands.beside import beside
from hf_chain.errors import HfChainError, reason
from hf_chain.families import family_of
from hf_chain.files import whole_folder
from hf_chain.growth import OPERATORS, growth_error
from hf_chain.growth import grow as grow_model
from hf_chain.growth.larger import growing, larger_config
from hf_chain.loaded_weights import check_loaded, read_model
from hf_chain.runs.recipe_file import read_yaml

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

BESIDE = ("AutoProcessor", "AutoTokenizer", "AutoImageProcessor")
"""What may stand beside a model; the first that loads is copied."""


def grow_folder(
    predecessor: str,
    output: Path | None,
    sizes: Mapping[str, Any],
    operator: str = "exact",
    seed: int = 0,
) -> tuple[list[tuple[str, Any, Any, str]], dict[str, float]]:
    """Grows a model of any family and writes it, with its processor or tokenizer, as a folder that stock classes load.

    Args:
        predecessor (`str`): Folder or Hub name.
        output (`Path`, *optional*): Folder of the grown model; without it nothing is written.
        sizes (`Mapping[str, Any]`): Fields of the configuration to their values, as for `larger_config`.
        operator (`str`): Growth operator.
        seed (`int`): Seed of the new weights.

    Returns:
        What grows, as of `growing`, and the relative errors of the outputs, as of `growth_error`.

    Raises:
        HfChainError: When no size is given or none is larger, when the predecessor cannot be loaded or cannot grow to
            that shape, or when `output` exists.
    """
    if operator not in OPERATORS:
        raise HfChainError(f"operator {operator!r} is unknown: use one of {', '.join(OPERATORS)}")
    if not sizes:
        raise HfChainError(
            f"no size is given to grow {predecessor} to: give a width, a depth or another field of its configuration,"
            " such as --set hidden_size=768"
        )
    if output is not None and output.exists():
        raise HfChainError(f"{output} exists already: give a folder that does not")
    config = _config(predecessor)
    larger = larger_config(config, sizes)
    grown_fields = growing(config, larger)
    if not grown_fields:
        raise HfChainError(f"{predecessor} has the given sizes already, so nothing would grow: give a larger one")
    model, prepares = _model(predecessor, config), beside(predecessor, *BESIDE)
    grown = grow_model(model, larger, operator=operator, seed=seed)
    if output is not None:
        try:
            with whole_folder(output) as folder:
                grown.save_pretrained(folder)
                if prepares is not None:
                    prepares.save_pretrained(folder)
        except NotADirectoryError as error:
            raise HfChainError(f"{output} cannot be made, {output.parent} is no folder: choose another") from error
    return grown_fields, growth_error(model, grown)


def fields_of(overrides: Sequence[str]) -> dict[str, Any]:
    """Fields and values as they are typed.

    Args:
        overrides (`Sequence[str]`): Such as `vision_config.hidden_size=384`.

    Raises:
        HfChainError: Where there is no `=` or no field.
    """
    fields = {}
    for override in overrides:
        path, separator, text = override.partition("=")
        if not separator or not path.strip():
            raise HfChainError(f"--set {override!r} names no field: write --set field=value")
        fields[path.strip()] = read_yaml(text, f"--set {override!r}")
    return fields


def _config(name: str) -> PreTrainedConfig:
    from transformers import AutoConfig

    check_model_files(name)
    if name.startswith((".", "/", "~")) and not Path(name).is_dir():
        raise HfChainError(f"There is no folder {name}: give that of a model, or a Hub name")
    try:
        config = AutoConfig.from_pretrained(name)
    except Exception as error:  # The Hub, JSON and configuration classes raise errors of their own.
        raise _not_loaded(name, error) from error
    family_of(config)
    return config


def _model(name: str, config: PreTrainedConfig) -> PreTrainedModel:
    """The model with all its weights, of the class that its configuration names, in the type of its files."""
    import transformers

    kind = family_of(config).kind
    named = getattr(transformers, (config.architectures or [""])[0], None)
    model_class = named or getattr(transformers, "AutoModelForCausalLM" if kind == "language" else "AutoModel")
    try:
        model, found = read_model(model_class, name, config=copy.deepcopy(config), dtype="auto", use_safetensors=True)
    except Exception as error:
        raise _not_loaded(name, error) from error
    check_loaded(model, found, name)
    return model.eval()


def _not_loaded(name: str, error: Exception) -> HfChainError:
    return HfChainError(
        f"{name} cannot be loaded ({reason(error)}): give the folder or the Hub name of a model in safetensors, and"
        " check the network"
    )
