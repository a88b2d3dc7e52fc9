"""The control of every chain: its first member trained on, for as many MACs as its successors cost."""

from __future__ import annotations

from hf_chain.errors import HfChainError
from hf_chain.hub.settings import HubSettings
from hf_chain.methods.chain.chain_recipe import ChainRecipe
from hf_chain.methods.chain.family_data import PROCESSOR_FOLDER
from hf_chain.methods.chain.planning import family_cost
from hf_chain.methods.chain.rates import RateRules
from hf_chain.runs.ledger import CONTINUED, TRUNKS_FOLDER


def continued(recipe: ChainRecipe) -> ChainRecipe:
    """The recipe of a run with one member: the chain's first one, trained on by its own schedule, without a teacher.

    It goes on from the member's trunk, where it has one, else from what was delivered. What it reaches is what larger
    members have to beat, or their size is not used.

    Args:
        recipe (`ChainRecipe`): The chain, whose first member is saved.

    Raises:
        HfChainError: When that is not there, or has no successors.
    """
    if recipe.independent or len(recipe.members) < 2:
        raise HfChainError(f"{recipe.name} has no members that grow, which a first one could be compared with")
    first, *successors = family_cost(recipe).members
    member, folder = recipe.members[0], recipe.run_dir / recipe.folder_name(0)
    if recipe.training_of(member).get("trunk_decay") is not None:
        folder = recipe.run_dir / TRUNKS_FOLDER / folder.name
    if not folder.is_dir():
        raise HfChainError(f"{folder} is not there, from which {member.name} is trained on: run the chain first")
    macs = sum(successor.training_macs["total"] for successor in successors)
    longer = {
        "epochs": member.epochs * macs / first.training_macs["student"],
        "training": {**recipe.training_of(member), "feature_loss_weight": 0.0},
        "operator": "exact",
        "until": None,
    }
    run = {
        "name": recipe.name + CONTINUED,
        "members": [member.model_copy(update=longer)],
        "predecessor": str(folder),
        "tokenizer": recipe.tokenizer.model_copy(update={"name_or_path": str(recipe.run_dir / PROCESSOR_FOLDER)}),
        "cache_teacher_features": False,
        # Its rate is the first member's, whatever rules say of those that grow.
        "rates": RateRules(),
        "until": None,
        "hub": HubSettings(),
    }
    return recipe.model_copy(update=run)
