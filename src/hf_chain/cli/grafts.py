"""Commands on the parts of a graft: `surrogate`, `graft`, `export` and `chat`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_chain.cli.arguments import GraftedModel, NewFolder, home


def surrogate(
    target: Annotated[str, typer.Argument(help="Folder or Hub name of a decoder-only language model.", callback=home)],
    output: NewFolder,
    replaced: Annotated[
        str, typer.Option(help="Layers to replace, such as 16-26, or two_segment, block_influence or splice_error.")
    ] = "two_segment",
    translators: Annotated[int, typer.Option(min=1, help="Layers that stand in for each range.")] = 1,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="How they are made: inherit, closed_form, train:hidden, train:logits, train:lm or train:gradients. "
            "Repeatable, in turn; closed_form by default."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Text or conversations: a file (txt, json, jsonl, parquet), a folder or a Hub name.", callback=home
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="The most it may be: layers=12, macs_share=0.6 or parameters=2e9."),
    ] = None,
    samples: Annotated[int, typer.Option(min=5, help="Samples that translators are fitted on.")] = 1000,
    measured: Annotated[int, typer.Option(min=1, help="Further samples: for the cut and for the quality.")] = 300,
    max_tokens: Annotated[int, typer.Option(min=8, help="Tokens from which on a sample is cut.")] = 512,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples in one forward.")] = 8,
    responses_only: Annotated[
        bool,
        typer.Option(
            "--responses-only",
            help="Count only the responses of conversations: for the cut, the quality and train:lm.",
        ),
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
) -> None:
    """Cut a surrogate out of a language model and mend the cut."""
    from hf_chain.cli.arguments import typed_command
    from hf_chain.commands.surrogate import SurrogateOptions, cut_folder
    from hf_chain.runs.environment import check_launch

    check_launch()
    options = SurrogateOptions(
        replaced=replaced,
        translators=translators,
        methods=tuple(method or ["closed_form"]),
        data=data,
        budget=budget,
        samples=samples,
        measured=measured,
        max_tokens=max_tokens,
        batch_size=batch_size,
        responses_only=responses_only,
        revision=revision,
    )
    typer.echo(cut_folder(target, output, options, command=typed_command()))


def graft(
    vlm: Annotated[
        str, typer.Argument(help="Folder or Hub name of a grafted model, trained on a surrogate.", callback=home)
    ],
    target: Annotated[
        str, typer.Argument(help="Folder or Hub name of the language model it was cut from.", callback=home)
    ],
    output: NewFolder,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the language model.")] = None,
) -> None:
    """Plug a vision encoder that was trained on a surrogate into the whole language model; nothing is trained."""
    from hf_chain.cli.arguments import typed_command
    from hf_chain.commands.graft import graft_folder
    from hf_chain.runs.environment import check_launch

    check_launch()
    typer.echo(graft_folder(vlm, target, output, revision, command=typed_command()))


def export(
    model: GraftedModel,
    output: NewFolder,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="What to write: llava, to use, train and cast; or llava-serving, for vLLM, to serve alone.",
        ),
    ] = "llava",
) -> None:
    """Write a grafted model as a stock model that needs no hf_chain."""
    from hf_chain.cli.arguments import typed_command
    from hf_chain.commands.export import export_folder
    from hf_chain.runs.environment import check_launch

    check_launch()
    typer.echo(export_folder(model, output, format_, command=typed_command()))


def chat(
    model: GraftedModel,
    question: Annotated[
        str | None, typer.Argument(help="What to ask; without it you are asked for questions.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="Picture that the questions are about.", callback=home)] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 256,
) -> None:
    """Ask a grafted model about an image, in the terminal."""
    from hf_chain.cli.terminal import answer, talk
    from hf_chain.commands.chat import open_chat
    from hf_chain.runs.environment import check_launch

    check_launch()
    conversation = open_chat(model, image, max_new_tokens)
    if question is not None:
        answer(conversation, question)
    else:
        talk(conversation)
