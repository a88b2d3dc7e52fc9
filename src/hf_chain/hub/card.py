"""What cards of all methods are made of: a template that is filled in, and names that give nothing away."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import HfApi, hf_hub_download

from hf_chain.hub.retry import RetryPolicy, call_hub
from hf_chain.hub.settings import HubSettings
from hf_chain.runs.ledger import FamilyRecord, MemberRecord

HUB_URL = "https://huggingface.co"
"""Cards link to the Hub itself, also where `HF_ENDPOINT` names a mirror."""

_HUB_REVISION = re.compile(r"(?P<repo>[\w.-]+(/[\w.-]+)?)@(?P<revision>[0-9a-f]{7,40})")
_SNAPSHOT = re.compile(r"models--(?P<repo>[^/]+)/snapshots/(?P<revision>[0-9a-f]{40})")


def predecessor_revision(repo_or_path: str | Path, revision: str | None = None, api: HfApi | None = None) -> str:
    """Names the exact model that `from_pretrained(repo_or_path, revision=revision)` loads.

    Args:
        repo_or_path (`str` or `Path`): Repository of the Hub or local folder.
        revision (`str`, *optional*): Branch, tag or commit.
        api (`HfApi`, *optional*): Client to ask with.

    Returns:
        `str`: `repo@commit` for a model of the Hub, also when its folder in the local cache is given; else the path.

    Raises:
        HfChainError: when there is neither such a folder nor such a repository.
    """
    path = Path(repo_or_path)
    if not path.exists():
        endpoint, token = (api.endpoint, api.token) if api is not None else (None, None)
        # The download resolves names as from_pretrained does, from the local cache where the Hub is out of reach.
        config, _ = call_hub(
            lambda: hf_hub_download(
                str(repo_or_path), "config.json", revision=revision, endpoint=endpoint, token=token
            ),
            f"model {repo_or_path}",
            RetryPolicy(attempts=4, total=30.0),
        )
        path = Path(config).parent
    snapshot = _SNAPSHOT.search(path.as_posix())
    if snapshot is None:
        return str(repo_or_path)
    return f"{snapshot['repo'].replace('--', '/')}@{snapshot['revision']}"


@dataclass(frozen=True)
class Ancestor:
    """One link of a chain; `repo_id` and `revision` are `None` where it is not known to be on the Hub."""

    name: str
    repo_id: str | None = None
    revision: str | None = None

    @property
    def url(self) -> str | None:
        """Page of the model on the Hub."""
        if self.repo_id is None:
            return None
        return f"{HUB_URL}/{self.repo_id}" + (f"/tree/{self.revision}" if self.revision else "")


def outside_ancestor(parent: str) -> Ancestor:
    """A model from outside of the run.

    Args:
        parent (`str`): `repo@commit`, or a path, of which only the last part is given away.
    """
    match = _HUB_REVISION.fullmatch(parent)
    return Ancestor(match["repo"], match["repo"], match["revision"]) if match else Ancestor(Path(parent).name)


def run_ancestor(record: MemberRecord, hub: HubSettings) -> Ancestor:
    """A model of the run: on the Hub when its members are pushed, at a known commit once it is there."""
    repo_id = hub.repo_id(record.name) if hub.push else None
    pushed = record.push.get("repo_id") == repo_id and record.push.get("state") == "pushed"
    return Ancestor(record.name, repo_id, record.push.get("revision") if pushed and repo_id else None)


def ancestors(family: FamilyRecord, member: MemberRecord, hub: HubSettings) -> list[Ancestor]:
    """The chain that led to `member`, smallest first, without `member` itself."""
    records = {record.name: record for record in family.members}
    chain: list[Ancestor] = []
    parent = member.parent
    while parent is not None:
        if parent in records:
            record = records[parent]
            chain.append(run_ancestor(record, hub))
            parent = record.parent
        else:
            chain.append(outside_ancestor(parent))
            parent = None
    return chain[::-1]


def render_card(package: str, template: str, **values: Any) -> str:
    """Fills in the body of a card.

    Args:
        package (`str`): Package that has the template.
        template (`str`): File in its `templates`.
        **values: What the template needs, all of it.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(**values)


def public_name(source: str) -> str:
    """A Hub name as it is; of a local path only the last part."""
    return Path(source).name if Path(source).exists() or Path(source).is_absolute() else str(source)


def public_path(text: str) -> str:
    """Of an absolute path the last part; any other text as it is."""
    return Path(text).name if Path(text).is_absolute() else text


def public_recipe(recipe: dict[str, Any]) -> str:
    """A recipe as YAML, with the last part alone of every absolute path in it.

    Args:
        recipe (`dict`): As `model_dump` gives it.
    """
    return yaml.safe_dump(_public(recipe), sort_keys=False, allow_unicode=True)


def _public(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _public(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_public(item) for item in value]
    return public_path(value) if isinstance(value, str) else value
