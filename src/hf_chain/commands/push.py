"""What `hf-chain push` does: brings what a run has saved to the Hub, with the cards of its method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from pydantic import ValidationError

from hf_chain.commands.methods import method_of
from hf_chain.errors import HfChainError
from hf_chain.hub import HubSettings, PushReport, RetryPolicy, check_login, check_private, pending, push_what_is_left
from hf_chain.runs.ledger import read_family
from hf_chain.runs.recipe_file import first_problem


def push_pending(
    run_dir: str | Path,
    hub: HubSettings | None = None,
    api: HfApi | None = None,
    policy: RetryPolicy | None = None,
) -> PushReport:
    """Pushes what a run has saved and not pushed, in order, and records each outcome in the ledger.

    A card that was written before its repository was known is written anew, with its repository in it.

    Args:
        run_dir (`str` or `Path`): Folder of the run.
        hub (`HubSettings`, *optional*): Where to push; by default as the run's recipe says.
        api (`HfApi`, *optional*): Client to push with.
        policy (`RetryPolicy`, *optional*): How patiently to repeat; by default within `hub.timeout`.

    Returns:
        `PushReport`: What was pushed and what was not.

    Raises:
        HfChainError: when there is no readable ledger, or no prefix to push to.
    """
    method = method_of(read_family(run_dir).recipe)
    return push_what_is_left(run_dir, method.write_card, hub, api, policy)


def push_run(run_dir: Path, prefix: str | None = None, private: bool = False) -> PushReport:
    """Checks login and privacy, then pushes what is left.

    Args:
        run_dir (`Path`): Folder of the run.
        prefix (`str`, *optional*): Start of the repository names; by default the recipe's.
        private (`bool`): Whether new repositories are private, and nothing is pushed to a public one.

    Raises:
        HfChainError: when a value is not allowed, nobody is logged in, or a repository is public.
    """
    given = read_family(run_dir).recipe.get("hub", {})
    values: dict[str, Any] = given | {"push": True}
    values |= ({"prefix": prefix} if prefix else {}) | ({"private": True} if private else {})
    try:
        settings = HubSettings.model_validate(values)
    except ValidationError as error:
        raise HfChainError(f"hub.{first_problem(error, HubSettings, values)}") from error
    check_login(settings.prefix)
    check_private(settings, [record.name for record in pending(run_dir, settings.prefix)])
    return push_pending(run_dir, settings)
