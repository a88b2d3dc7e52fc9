"""Commands on a recipe, of a chain or of a graft: `plan`, `run` and `eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_chain.cli.arguments import Overrides, RecipePath, home, homes
from hf_chain.errors import HfChainError


def plan(
    recipe: RecipePath,
    set_: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    tflops: Annotated[float | None, typer.Option(help="TFLOP/s you expect, to plan hours.")] = None,
    curves: Annotated[
        list[Path] | None,
        typer.Option(help="Run to learn a law of loss from, and to propose epochs by. Repeatable.", callback=homes),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="With --curves: what the family may cost: 500T (MACs), 20h or 100USD.")
    ] = None,
    quality: Annotated[
        float | None, typer.Option(help="With --curves: what the largest member shall reach, in the metric's unit.")
    ] = None,
    price: Annotated[float | None, typer.Option(help="Price of an hour, for a --budget of money.")] = None,
    metric: Annotated[str | None, typer.Option(help="With --curves: its metric; the task's by default.")] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            help="With --curves: how far members have to be ahead of the one before; twice the error by default."
        ),
    ] = None,
) -> None:
    """Say what a recipe costs, before anything is trained; or, with --curves, how long to train its members."""
    import json

    from hf_chain.commands.run import RunArguments

    arguments = RunArguments(str(recipe), set_ or [])
    if not curves:
        if budget is not None or quality is not None:
            raise HfChainError("--budget and --quality need a law of loss: give --curves of a run that has pilots")
        values, text = arguments.method.plan(arguments.recipe(), tflops)
    else:
        from hf_chain.commands.forecast import Wish, forecast

        wish = Wish([str(run) for run in curves], budget, quality, tflops, price, metric, margin=margin)
        values, text = forecast(arguments.chain_recipe("--curves"), wish)
    typer.echo(json.dumps(values, indent=2) if as_json else text)


def run(
    recipe: RecipePath,
    set_: Overrides = None,
    output_dir: Annotated[str | None, typer.Option(help="Folder of all runs.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, data order and growth.")] = None,
    independent: Annotated[
        bool, typer.Option("--independent", help="Train every member of a chain from scratch.")
    ] = False,
    continued: Annotated[
        bool, typer.Option("--continued", help="Train the first member of a chain on, for the MACs of the others.")
    ] = False,
    straight: Annotated[
        bool, typer.Option("--straight", help="Train a graft's parts on its target, without a surrogate.")
    ] = False,
    push_to_hub: Annotated[bool, typer.Option("--push-to-hub", "--push_to_hub", help="Push every result.")] = False,
    hub_prefix: Annotated[str | None, typer.Option(help="Start of the repository names: user/family.")] = None,
) -> None:
    """Train the family or the graft of a recipe, or what is left of it."""
    from hf_chain.commands.run import RunArguments, launch

    arguments = RunArguments(
        str(recipe),
        set_ or [],
        output_dir=output_dir,
        seed=seed,
        push_to_hub=push_to_hub,
        hub_prefix=hub_prefix,
        independent=independent,
        continued=continued,
        straight=straight,
    )
    typer.echo(launch(arguments))


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="Folder or Hub name of a model; with --suite also the folder of a chain's run.", callback=home
        ),
    ],
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", help="Recipe whose data and evaluation sections are used.", callback=home),
    ] = None,
    suite: Annotated[
        Path | None,
        typer.Option("--suite", help="Suite file: data sets to measure transfer on, a YAML file.", callback=home),
    ] = None,
    set_: Overrides = None,
) -> None:
    """Measure a model with the data of a recipe, or its transfer to the data sets of a suite; prints JSON."""
    import json

    if (recipe is None) == (suite is None):
        raise HfChainError(
            f"{'both' if recipe else 'neither'} --recipe and --suite given to measure {model} by: give one"
        )
    if suite is not None:
        from hf_chain.commands.transfer import SOME_SKIPPED, evaluate_suite, is_partial

        found = evaluate_suite(model, suite, set_ or [])
        typer.echo(json.dumps(found, indent=2))
        raise typer.Exit(SOME_SKIPPED if is_partial(found) else 0)
    from hf_chain.commands.run import RunArguments

    arguments = RunArguments(str(recipe), set_ or [])
    typer.echo(json.dumps(arguments.method.evaluate(model, arguments.recipe()), indent=2))
