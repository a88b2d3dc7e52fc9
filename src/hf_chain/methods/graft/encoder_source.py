"""The vision encoder of a graft: a published one, or a member of a chain."""

from __future__ import annotations

from pathlib import Path

from transformers.utils import logging

from hf_chain.errors import HfChainError
from hf_chain.methods.chain.recipe import ChainRecipe, load_recipe
from hf_chain.methods.chain.runner import run
from hf_chain.methods.graft.recipe import GraftRecipe
from hf_chain.runs.ledger import Ledger, read_family
from hf_chain.runs.saved import is_saved

logger = logging.get_logger(__name__)


def encoder_source(recipe: GraftRecipe) -> str:
    """Folder or Hub name of the encoder; trains the first member of a chain that has no finished one.

    Raises:
        HfChainError: when the chain's recipe is wrong or its training fails.
    """
    found = finished_encoder(recipe)
    if found is None:
        chain = chain_recipe(recipe)
        first = _first_alone(chain)
        logger.warning(f"{chain.name} has no finished member: its first one, {first.members[0].name}, is trained")
        run(first)
        found = str(largest_member(first))
    return found


def finished_encoder(recipe: GraftRecipe) -> str | None:
    """Folder or Hub name of the encoder; `None` when it has yet to be trained.

    A run keeps the member it began with, whatever the chain has come to since.

    Raises:
        HfChainError: when the chain's recipe is wrong, or the member that the run began with is gone.
    """
    if recipe.encoder.chain is None:
        return str(recipe.encoder.name_or_path)
    if begun := _begun_with(recipe):
        if not begun.is_dir():
            raise HfChainError(f"{recipe.run_dir} was begun with the encoder {begun}, which is gone: restore it")
        return str(begun)
    chain = chain_recipe(recipe)
    found = largest_member(chain) or largest_member(_first_alone(chain))
    return None if found is None else str(found)


def member_of_chain(recipe: GraftRecipe, encoder: str) -> str:
    """The encoder as the ledger notes it, seen from the folder of all runs; empty where it is of no chain."""
    return "" if recipe.encoder.chain is None else str(Path(encoder).relative_to(recipe.output_dir))


def _begun_with(recipe: GraftRecipe) -> Path | None:
    if not Ledger(recipe.run_dir).path.exists():
        return None
    noted = read_family(recipe.run_dir).encoder
    return Path(recipe.output_dir) / noted if noted else None


def chain_recipe(recipe: GraftRecipe) -> ChainRecipe:
    """The recipe of the encoder's chain, whose runs are beside this one's.

    Raises:
        HfChainError: when it cannot be read or is wrong.
    """
    return load_recipe(recipe.chain_path).model_copy(update={"output_dir": recipe.output_dir})


def largest_member(chain: ChainRecipe) -> Path | None:
    """Folder of the largest finished member of a chain's run; `None` when there is none."""
    if not Ledger(chain.run_dir).path.exists():
        return None
    family = read_family(chain.run_dir)
    saved = [member for member in family.members if is_saved(member, chain.run_dir / member.folder)]
    return chain.run_dir / max(saved, key=lambda member: member.parameters).folder if saved else None


def _first_alone(chain: ChainRecipe) -> ChainRecipe:
    return chain.model_copy(update={"name": f"{chain.name}-first", "members": chain.members[:1]})
