"""The command line: `hf-chain plan | run | grow | eval | push | report`.

Rooms are imported inside the commands, so that `--help` starts neither torch nor the network.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from hf_chain.errors import HfChainError

app = typer.Typer(
    help="Train something small first and hand its knowledge on.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

WRITE_FAILURES = ("No space left on device", "Disk quota exceeded", "File too large", "inline_container")
"""What Python, safetensors and torch (which names the writer only) say where a disk is full."""

RecipePath = Annotated[Path, typer.Argument(help="The recipe, a YAML file.")]
RunFolder = Annotated[Path, typer.Argument(help="Folder of a run, such as runs/scenes.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Recipe value to replace, such as members.small.epochs=4. Repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def plan(
    recipe: RecipePath,
    set_: Overrides = None,
    as_json: AsJson = False,
    tflops: Annotated[float | None, typer.Option(help="TFLOP/s you expect, to plan hours.")] = None,
) -> None:
    """Say what a recipe costs, before anything is trained."""
    import json

    from hf_chain.cost import plan_table
    from hf_chain.stages.memory import memory_plan
    from hf_chain.stages.planning import family_cost
    from hf_chain.stages.recipe import load_recipe
    from hf_chain.stages.validation import check_growth

    loaded = load_recipe(recipe, set_ or [])
    cost = family_cost(loaded)
    check_growth(loaded, cost)
    if as_json:
        typer.echo(json.dumps(cost.to_json(), indent=2))
        return
    typer.echo(plan_table(cost, tflops))
    typer.echo(f"\nMemory on one device\n\n{memory_plan(loaded, cost)}")


@app.command()
def run(
    recipe: RecipePath,
    set_: Overrides = None,
    output_dir: Annotated[str | None, typer.Option(help="Folder of all runs.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of weights, data order and growth.")] = None,
    independent: Annotated[bool, typer.Option("--independent", help="Train every member from scratch.")] = False,
    push_to_hub: Annotated[bool, typer.Option("--push-to-hub", "--push_to_hub", help="Push every member.")] = False,
    hub_prefix: Annotated[str | None, typer.Option(help="Start of the repository names: user/family.")] = None,
) -> None:
    """Train the family of a recipe, or what is left of it."""
    from hf_chain.stages.launch import RunArguments, launch

    arguments = RunArguments(str(recipe), set_ or [], output_dir, seed, independent, push_to_hub, hub_prefix)
    typer.echo(launch(arguments))


@app.command()
def grow(
    predecessor: Annotated[str, typer.Argument(help="Folder or Hub name of a CLIP model.")],
    output: Annotated[Path, typer.Argument(help="Folder of the grown model, which must not exist yet.")],
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


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="Folder or Hub name of a CLIP model.")],
    recipe: Annotated[Path, typer.Option("--recipe", help="Recipe whose data and evaluation sections are used.")],
    set_: Overrides = None,
) -> None:
    """Measure zero-shot classification and retrieval; prints JSON."""
    import json

    from hf_chain.stages.evaluate_folder import evaluate_folder
    from hf_chain.stages.recipe import load_recipe

    typer.echo(json.dumps(evaluate_folder(model, load_recipe(recipe, set_ or [])), indent=2))


@app.command()
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


@app.command()
def report(
    run_dir: RunFolder,
    baseline: Annotated[
        Path | None, typer.Option(help="Folder of the run that trained the members independently.")
    ] = None,
) -> None:
    """Write the family table, the plots and the page of a run."""
    from hf_chain.report import write_report

    typer.echo(write_report(run_dir, baseline))


def exit_cleanly(command: Callable[[], Any]) -> None:
    """Runs a command; what goes wrong is one line on the error stream and an exit status, never a traceback.

    Set `HF_CHAIN_DEBUG=1` to see tracebacks.
    """
    if os.environ.get("HF_CHAIN_DEBUG"):
        command()
        return
    try:
        command()
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on from the last checkpoint", status=130)
    except Exception as error:
        _fail(_explain(error), getattr(error, "exit_code", 1))


def main() -> None:
    """Entry point of `hf-chain`."""
    exit_cleanly(_command)


def _command() -> None:
    # Not in its standalone mode typer leaves errors to us, and returns the status it would exit with.
    status = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    if status == 130:
        raise KeyboardInterrupt
    if status:
        sys.exit(status)


def _explain(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, HfChainError):
        return text
    if hasattr(error, "format_message"):  # Of a wrong command line, which has no public class in typer.
        return f"{' '.join(error.format_message().split()).rstrip('.')}; see hf-chain --help"
    if any(sign in text for sign in WRITE_FAILURES):
        return f"the disk is full, or a quota is ({text[:300]}): free some space, then the same command goes on"
    if isinstance(error, PermissionError):
        return f"no permission to write {error.filename}: choose another folder or change its rights"
    return f"{type(error).__name__}: {text[:400]} (set HF_CHAIN_DEBUG=1 for the traceback)"


def _fail(message: str, status: int = 1) -> None:
    sys.stdout.flush()
    _close_progress_bars()
    print(f"hf-chain: {message}", file=sys.stderr)
    sys.exit(status)


def _close_progress_bars() -> None:
    """Ends the lines of bars that an error has left open, so that the message has a line of its own."""
    if tqdm := sys.modules.get("tqdm"):
        for bar in list(getattr(tqdm.tqdm, "_instances", ())):
            bar.close()


if __name__ == "__main__":
    main()
