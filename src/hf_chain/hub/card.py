"""What cards of all methods are made of: a template that is filled in, and names that give nothing away."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData, hf_hub_download

from hf_chain.files import write_text
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


@dataclass(frozen=True)
class CardSheet:
    """What a card tells: a method fills it in, and the hub does not ask which method it is.

    Args:
        template (`tuple[str, str]`): Package, and file in its `templates`, of the card's body.
        values (`Mapping[str, Any]`): What the template needs, all of it.
        task (`str`): The Hub's name of the task, for `pipeline_tag`.
        tags (`Sequence[str]`): Tags of the method, before those of the recipe.
        bases (`Sequence[str]`): Repositories of the models that it was made of.
        relation (`str`, *optional*): What it is to them, for `base_model_relation`.
        results (`Sequence[EvalResult]`): Results as the Hub reads them.
        model_name (`str`): What they are results of.
    """

    template: tuple[str, str]
    values: Mapping[str, Any]
    task: str
    tags: Sequence[str]
    bases: Sequence[str] = ()
    relation: str | None = None
    results: Sequence[EvalResult] = ()
    model_name: str = ""


def model_card(sheet: CardSheet, hub: HubSettings) -> ModelCard:
    """The card of a sheet: metadata for the Hub, and the body for people.

    Args:
        sheet (`CardSheet`): What it tells.
        hub (`HubSettings`): Language, licence, data set and tags.
    """
    package, template = sheet.template
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    body = environment.get_template(template).render(**sheet.values)
    metadata = ModelCardData(
        language=hub.language,
        license=hub.license,
        library_name="transformers",
        pipeline_tag=sheet.task,
        tags=[*sheet.tags, *hub.tags],
        datasets=[hub.dataset] if hub.dataset else None,
        base_model=list(sheet.bases) if len(sheet.bases) > 1 else next(iter(sheet.bases), None),
        model_name=sheet.model_name if sheet.results else None,
        eval_results=list(sheet.results) or None,
    )
    if sheet.bases and sheet.relation:
        metadata["base_model_relation"] = sheet.relation
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n{body}")


def write_card(folder: Path, card: ModelCard) -> Path:
    """Writes a card beside its model, and returns its path."""
    path = folder / "README.md"
    write_text(path, str(card))
    return path


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
