"""Commands on models and runs of a chain: `grow`, `convert`, `push`, `report` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_chain.cli.arguments import NewFolder, RunFolder, home, homes
from hf_chain.errors import HfChainError


def grow(
    predecessor: Annotated[str, typer.Argument(help="Folder or Hub name of a model.", callback=home)],
    output: Annotated[
        Path | None, typer.Argument(help="Folder of the result, which must not exist yet.", callback=home)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A field of its configuration: hidden_size=1024, vision_config.hidden_size=384."),
    ] = None,
    vision_width: Annotated[int | None, typer.Option(min=1, help="Width of a CLIP's image tower.")] = None,
    vision_depth: Annotated[int | None, typer.Option(min=1, help="Blocks of a CLIP's image tower.")] = None,
    text_width: Annotated[int | None, typer.Option(min=1, help="Width of a CLIP's text tower.")] = None,
    text_depth: Annotated[int | None, typer.Option(min=1, help="Blocks of a CLIP's text tower.")] = None,
    embedding: Annotated[int | None, typer.Option(min=1, help="Size of a CLIP's embedding.")] = None,
    operator: Annotated[str, typer.Option(help="exact, copy, copy_fused, stack, interpolate or random.")] = "exact",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of the new weights.")] = 0,
    check: Annotated[bool, typer.Option("--check", help="Say what grows how, and the error; write nothing.")] = False,
) -> None:
    """Make a larger model out of a smaller one, without training."""
    from hf_chain.commands.grow import fields_of, grow_folder
    from hf_chain.cost.table import markdown_table

    if output is None and not check:
        raise HfChainError("no folder is given for the grown model: add one, or --check to write nothing")
    flags = {
        "vision_config.hidden_size": vision_width,
        "vision_config.num_hidden_layers": vision_depth,
        "text_config.hidden_size": text_width,
        "text_config.num_hidden_layers": text_depth,
        "projection_dim": embedding,
    }
    sizes = {name: size for name, size in flags.items() if size is not None} | fields_of(set_ or [])
    fields, errors = grow_folder(predecessor, None if check else output, sizes, operator, seed)
    if check:
        rows = [[name, str(old), str(new), how] for name, old, new, how in fields]
        typer.echo(markdown_table(["field", "now", "grown", "how"], rows))
    measured = ", ".join(f"{error:.1e} ({kind})" for kind, error in errors.items())
    typer.echo(f"{predecessor if check else output}: relative error of the outputs {measured}")


def convert(
    source: Annotated[str, typer.Argument(help="Folder or Hub name of a model.", callback=home)],
    output: NewFolder,
    to: Annotated[str, typer.Option(help="transformers, open_clip or timm.")] = "transformers",
) -> None:
    """Read a checkpoint of open_clip or timm as a stock model, or write a stock model as one of theirs."""
    from hf_chain.commands.convert import convert_folder

    typer.echo(f"{output}: {', '.join(convert_folder(source, output, to))}")


def push(
    run_dir: RunFolder,
    prefix: Annotated[str | None, typer.Option(help="Start of the repository names; default: the recipe's.")] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Create private repositories, and push to no public one.")
    ] = False,
) -> None:
    """Push the members of a run that are not on the Hub yet."""
    from hf_chain.commands.push import push_run

    report = push_run(run_dir, prefix, private)
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
    from hf_chain.commands.report import write_report

    typer.echo(write_report(run_dir, baseline))


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of runs: chains, and twins.", callback=homes)
    ],
    metric: Annotated[str | None, typer.Option(help="Metric to compare by; default: the task's main one.")] = None,
    split: Annotated[str, typer.Option(help="Split that it was measured on.")] = "validation",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder for compare.md, .json, .png and .svg.", callback=home)
    ] = None,
) -> None:
    """Say what chains cost against twins of the same sizes at equal quality, from the ledgers of runs."""
    import json

    from hf_chain.commands.compare import compare_runs
    from hf_chain.methods.chain.comparison.table import to_markdown

    found = compare_runs(runs, metric, split, output)
    typer.echo(json.dumps(found.to_json(), indent=2) if as_json else to_markdown(found), nl=as_json)
