"""Commands on models and runs of a chain: `grow`, `push` and `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_chain.cli.arguments import NewFolder, RunFolder, home
from hf_chain.errors import HfChainError


def grow(
    predecessor: Annotated[str, typer.Argument(help="Folder or Hub name of a CLIP model.", callback=home)],
    output: NewFolder,
    vision_width: Annotated[int | None, typer.Option(min=1, help="Width of the image tower.")] = None,
    vision_depth: Annotated[int | None, typer.Option(min=1, help="Blocks of the image tower.")] = None,
    text_width: Annotated[int | None, typer.Option(min=1, help="Width of the text tower.")] = None,
    text_depth: Annotated[int | None, typer.Option(min=1, help="Blocks of the text tower.")] = None,
    embedding: Annotated[int | None, typer.Option(min=1, help="Size of the shared embedding.")] = None,
    operator: Annotated[str, typer.Option(help="exact, copy, copy_fused, stack, interpolate or random.")] = "exact",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the new weights.")] = 0,
) -> None:
    """Make a larger model out of a smaller one, without training."""
    from hf_chain.stages.grow_folder import grow_folder

    sizes = {"vision": (vision_width, vision_depth), "text": (text_width, text_depth)}
    error = grow_folder(predecessor, output, sizes, embedding, operator, seed)
    typer.echo(f"{output}: relative error of the embeddings {error['image']:.1e} (image), {error['text']:.1e} (text)")


def push(
    run_dir: RunFolder,
    prefix: Annotated[str | None, typer.Option(help="Start of the repository names; default: the recipe's.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Create private repositories.")] = False,
) -> None:
    """Push the members of a run that are not on the Hub yet."""
    from pydantic import ValidationError

    from hf_chain.hub import HubSettings, check_login, push_pending
    from hf_chain.stages.ledger import read_family
    from hf_chain.stages.problems import first_problem

    given = read_family(run_dir).recipe.get("hub", {})
    values = given | {"push": True} | ({"prefix": prefix} if prefix else {}) | ({"private": True} if private else {})
    try:
        hub = HubSettings.model_validate(values)
    except ValidationError as error:
        raise HfChainError(f"hub.{first_problem(error, HubSettings, values)}") from error
    check_login(hub.prefix)
    report = push_pending(run_dir, hub)
    for result in report.pushed:
        typer.echo(result.url)
    if report.failed:
        raise HfChainError("; ".join(report.failed.values()))
    if not report.pushed:
        typer.echo("Nothing to push: every saved member is on the Hub.")


def report(
    run_dir: RunFolder,
    baseline: Annotated[
        Path | None, typer.Option(help="Folder of the run that trained the members independently.", callback=home)
    ] = None,
) -> None:
    """Write the family table, the plots and the page of a run."""
    from hf_chain.report import write_report

    typer.echo(write_report(run_dir, baseline))
