"""The model card of one member: Hub metadata, results, lineage, cost and the recipe that made it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import EvalResult, ModelCard

from hf_chain.cost.table import escaped, human, markdown_table
from hf_chain.errors import HfChainError
from hf_chain.evaluation.metrics import metric_of
from hf_chain.hub.card import CardSheet, ancestors, model_card, public_name, write_card
from hf_chain.hub.settings import HubSettings
from hf_chain.methods.chain.report.outcomes import outcomes
from hf_chain.methods.chain.report.transfer import transfer_table
from hf_chain.runs.ledger import FamilyRecord, MemberRecord
from hf_chain.tasks import find_paradigm

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

TAGS = ["hf_chain", "chain-of-models"]

BASE_MODEL_RELATION = "finetune"
"""The Hub knows adapter, merge, quantized and finetune. A member is a full model trained on from its predecessor's
weights: nothing is attached to the predecessor, mixed with it or compressed, so of the four it is a finetune."""

_TOP_K = re.compile(r"(zero_shot_)?top(?P<k>\d+)")
_RECALL = re.compile(r"(?P<way>image_to_text|text_to_image)_r(?P<k>\d+)")


def write_member_card(
    folder: str | Path, family: FamilyRecord, member: MemberRecord, hub: HubSettings, recipe_yaml: str
) -> Path:
    """Writes `README.md` into the folder of a saved member.

    Args:
        folder (`str` or `Path`): Folder with the member's `config.json`.
        family (`FamilyRecord`): The run so far, for the ancestors and the plan.
        member (`MemberRecord`): The member, evaluated.
        hub (`HubSettings`): Licence, data set and so on; repository names are used only when `hub.push` is set, as
            otherwise nothing is there.
        recipe_yaml (`str`): The recipe that made the member, as YAML.

    Returns:
        `Path`: The card.

    Raises:
        HfChainError: when `folder` holds no saved member.
    """
    from transformers import AutoConfig  # starts torch

    folder = Path(folder)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except OSError as error:
        raise HfChainError(f"No saved member in {folder}: its config.json cannot be read") from error
    return write_card(folder, member_card(config, family, member, hub, recipe_yaml))


def member_card(
    config: PreTrainedConfig, family: FamilyRecord, member: MemberRecord, hub: HubSettings, recipe_yaml: str
) -> ModelCard:
    """Builds the card of `member`, a model of configuration `config`; see `write_member_card`."""
    repo_id = hub.repo_id(member.name) if hub.push else None
    chain = ancestors(family, member, hub)
    data = _data_name(family, hub)
    name = (hub.repo_id(member.name) or member.name).rpartition("/")[2]
    methods = {"model-growth": member.operator, "distillation": member.training_macs.get("teacher")}
    base = chain[-1].repo_id if chain else None
    recipe = family.recipe
    paradigm = find_paradigm(recipe.get("task", "contrastive"), recipe.get("family", "clip"))
    sheet = CardSheet(
        template=("hf_chain.methods.chain", paradigm.card),
        values={
            "title": repo_id.partition("/")[2] if repo_id else member.name,
            "location": repo_id or ".",
            "local": repo_id is None,
            "member": member,
            "config": config,
            "parameters": human(member.parameters),
            "chain": chain,
            "data": data,
            **paradigm.card_values(config, recipe.get("data") or {}),
            "outside": chain[0].name if chain and chain[0].name not in {m.name for m in family.members} else None,
            "results": _results_table(member),
            "measured": _measured(member),
            "transfer": _transfer(member),
            "counted": {name: human(macs) for name, macs in member.training_macs.items() if macs},
            "evaluation": human(member.evaluation_macs) if member.evaluation_macs else None,
            "planned": _planned(family, member),
            "stopped": next(outcomes([member]), None),
            "environment": family.environment,
            "recipe": recipe_yaml.strip(),
        },
        task=paradigm.hub_task,
        tags=[*TAGS, config.model_type, *(tag for tag, used in methods.items() if used)],
        bases=(base,) if base else (),
        relation=BASE_MODEL_RELATION,
        results=[
            *(_eval_results(member, hub.dataset or data, data, paradigm.hub_task) if data else ()),
            *_transfer_results(member),
        ],
        model_name=name,
    )
    return model_card(sheet, hub)


def _eval_results(member: MemberRecord, dataset: str, name: str, hub_task: str) -> list[EvalResult]:
    results = []
    for split, metrics in member.metrics_after.items():
        for metric, value in metrics.items():
            if not math.isfinite(value):
                continue
            recall = _RECALL.fullmatch(metric)
            results.append(
                EvalResult(
                    task_type="image-text-retrieval" if recall else hub_task,
                    task_name="Image-text retrieval" if recall else hub_task.replace("-", " ").capitalize(),
                    dataset_type=dataset,
                    dataset_name=name,
                    dataset_split=split,
                    metric_type="recall" if recall else "accuracy" if _TOP_K.fullmatch(metric) else metric,
                    metric_name=metric_title(metric),
                    metric_value=round(value, 4),
                )
            )
    return results


def _transfer_results(member: MemberRecord) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="zero-shot-image-classification" if metric.startswith("zero_shot") else "image-classification",
            task_name=metric_of(metric).title,
            dataset_type=public_name(result["source"]),
            dataset_name=name,
            dataset_split=result["split"],
            metric_type="accuracy",
            metric_name=metric_of(metric).title,
            metric_value=round(value, 4),
        )
        for name, result in member.transfer.items()
        for metric, value in result["metrics"].items()
    ]


def _transfer(member: MemberRecord) -> str:
    header, rows = transfer_table([member])
    return markdown_table(header, [[escaped(name), *cells] for name, *cells in rows]) if rows else ""


def metric_title(metric: str) -> str:
    """The name readers know: `top-1 accuracy` for `zero_shot_top1`, `image-to-text R@5` for `image_to_text_r5`."""
    if top := _TOP_K.fullmatch(metric):
        return f"top-{top['k']} accuracy"
    if recall := _RECALL.fullmatch(metric):
        return f"{recall['way'].replace('_', '-')} R@{recall['k']}"
    return metric_of(metric).title


def _results_table(member: MemberRecord) -> str:
    rows = [
        [
            escaped(f"{split}: {metric_title(metric)}"),
            _figure(metric, member.metrics_before.get(split, {}).get(metric)),
            _figure(metric, value),
        ]
        for split, metrics in member.metrics_after.items()
        for metric, value in metrics.items()
    ]
    return markdown_table(["split and metric", "before training", "after training"], rows) if rows else ""


def _measured(member: MemberRecord) -> str:
    """What the figures are."""
    names = {metric for metrics in member.metrics_after.values() for metric in metrics}
    shares = {metric_of(name).is_share for name in names}
    return " ".join([*["Shares of right answers."] * (True in shares), *["Lower is better."] * (False in shares)])


def _figure(metric: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{100 * value:.1f} %" if metric_of(metric).is_share else f"{value:.4f}"


def _planned(family: FamilyRecord, member: MemberRecord) -> dict[str, str] | None:
    """Planned cost of the chain up to `member` and of training `member` from scratch, evaluation included in both."""
    rows = family.plan.get("members", [])
    names = [row["name"] for row in rows]
    if member.name not in names:
        return None
    row = rows[names.index(member.name)]
    chain = sum(r["training_macs"] + r["evaluation_macs"] for r in rows[: names.index(member.name) + 1])
    alone = row["independent_training_macs"] + row["evaluation_macs"] - row.get("until_macs", 0)
    return {
        "chain": human(chain),
        "alone": human(alone),
        "epochs": f"{family.plan['baseline_epochs']:g}",
        "share": f"{100 * chain / alone:.1f} %",
        "family_ratio": f"{family.plan['family_ratio']:.2f}",
    }


def _data_name(family: FamilyRecord, hub: HubSettings) -> str | None:
    """Name of the training data that readers can follow: of a local path only the last part is given away."""
    source = (family.recipe.get("data") or {}).get("source")
    if source is None or hub.dataset:
        return hub.dataset
    return Path(source).name if Path(source).exists() or Path(source).is_absolute() else source
