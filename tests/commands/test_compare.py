"""`hf-chain compare`: on a real run and its twins, as text, JSON, files and a plot."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hf_chain.commands.compare import compare_runs
from hf_chain.errors import HfChainError
from hf_chain.methods.chain.comparison.plot import comparison_plot
from hf_chain.methods.chain.comparison.table import to_markdown
from hf_chain.methods.chain.recipe import ChainRecipe, recipe_class
from hf_chain.methods.chain.runner import run
from hf_chain.runs.ledger import Ledger, read_family
from hf_chain.theme import LIGHT
from support.chains import language_values
from support.command_line import Command
from support.ledgers import Trained, write_example, write_ledger
from support.plots import fixtures_without_plots, without_plots  # noqa: F401
from support.recipes import REPOSITORY


def recipe(folder: Path) -> ChainRecipe:
    """Two Llamas, the second grown from the trunk of the first, without a teacher."""
    members = [
        {"name": "tiny", "hidden_size": 16, "num_hidden_layers": 1, "epochs": 0.3},
        {"name": "small", "hidden_size": 32, "num_hidden_layers": 2, "epochs": 0.2},
    ]
    values = language_values(folder, name="chain", members=members)
    values["training"] |= {"feature_loss_weight": 0, "trunk_decay": 0.25}
    return recipe_class(values).model_validate(values)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A chain and its twins."""
    chain = recipe(tmp_path_factory.mktemp("compare"))
    return [run(chain), run(chain.as_independent())]


def test_a_run_is_compared_with_its_twins(runs: list[Path], hf_chain: Command, tmp_path: Path) -> None:
    tiny, small = read_family(runs[0]).members
    twin = read_family(runs[1]).member("small")
    outcome = hf_chain("compare", *runs, "--json", "--output", tmp_path / "out")
    assert outcome.status == 0
    values = json.loads(outcome.out)
    assert (values["metric"], values["split"], values["lower_is_better"]) == ("nats_per_token", "validation", True)
    (chain,) = values["chains"]
    first, second = chain["members"]
    assert (first["kind"], second["kind"], second["size"]) == ("alone", "grown", "32 × 2")
    macs = tiny.trunk["training_macs"] + small.training_macs["total"]
    assert second["cost_macs"]["mean"] == macs < tiny.training_macs["total"] + small.training_macs["total"]
    # One point of a twin tells on which side of it the member is.
    found, other = (one.metrics_after["validation"]["nats_per_token"] for one in (small, twin))
    assert second["twin_macs"]["seeds"]["0"] == {
        "value": twin.training_macs["total"],
        "bound": "≥" if found < other else "≤",
    }
    assert second["speed_up_macs"]["mean"] == pytest.approx(twin.training_macs["total"] / macs)
    assert chain["family"]["cost_macs"]["mean"] == tiny.training_macs["total"] + small.training_macs["total"]
    written = tmp_path / "out"
    assert {path.name for path in written.iterdir()} == {f"compare.{end}" for end in ("md", "json", "png", "svg")}
    assert json.loads((written / "compare.json").read_text()) == values
    text = hf_chain("compare", *runs).out
    assert text == (written / "compare.md").read_text()
    assert "| small  | 32 × 2 | grown |" in text and "The family tiny → small costs" in text


def test_the_keys_of_the_json_stay(tmp_path: Path) -> None:
    chain = write_ledger(tmp_path / "chain", Trained("xs", 100, 3.5), Trained("s", 200, 3.0, "xs"))
    twins = write_ledger(tmp_path / "twins", Trained("s", 500, 3.1))
    values = compare_runs([chain, twins]).to_json()
    assert set(values) == {"split", "metric", "lower_is_better", "sizes", "gaps", "chains", "notes"}
    assert set(values["sizes"][0]) == {"size", "parameters", "macs_per_sample", "twins"}
    assert set(values["sizes"][0]["twins"]) == {"points", "end", "last_doubling"}
    points = values["sizes"][0]["twins"]["points"]
    assert points == [{"seed": 0, "run": "chain", "member": "xs", "value": 3.5, "macs": 100, "seconds": 10.0}]
    assert set(values["gaps"][0]) == {"smaller", "larger", "macs", "at_equal_macs", "at_the_ends"}
    lead = {"difference", "standard_error", "standard_errors", "standard_errors_wanted", "holds", "unknown"}
    assert set(values["gaps"][0]["at_the_ends"]) == lead
    (found,) = values["chains"]
    assert set(found) == {"name", "runs", "members", "family"} and found["runs"] == {"0": "chain"}
    costs = {f"{what}_{unit}" for what in ("cost", "twin", "speed_up") for unit in ("macs", "seconds")}
    named = {"member", "size", "parameters", "kind", "delivered", "quality", "predecessor"}
    assert set(found["members"][1]) == named | costs | {"continued_predecessor", "uses_its_size"}
    assert set(found["members"][1]["uses_its_size"]) == lead
    assert set(found["members"][1]["quality"]) == {"mean", "standard_error", "bound", "seeds"}
    costs = {f"{what}_{unit}" for what in ("cost", "twins", "ratio", "largest_share") for unit in ("macs", "seconds")}
    assert set(found["family"]) == {"members", "largest", "without_twin"} | costs
    json.dumps(values, allow_nan=False)


def test_the_text_says_what_the_figures_mean(tmp_path: Path, hf_chain: Command) -> None:
    runs = []
    for seed, quality in enumerate((3.30, 3.32)):
        members = [Trained("xs", 100, 3.5), Trained("s", 300, quality, "xs"), Trained("m", 600, 3.4, "s")]
        runs.append(write_ledger(tmp_path / f"books-{seed}", *members, seed=seed))
        twin = [Trained("xs-1", 200, 3.45), Trained("xs-2", 600, 3.42, "xs-1")]
        runs.append(write_ledger(tmp_path / f"xs-{seed}", *twin, seed=seed))
        runs.append(write_ledger(tmp_path / f"s-{seed}", Trained("s", 500, 3.29 + seed / 100), seed=seed))
    text = hf_chain("compare", *runs).out
    assert "## books\n" in text and "± is the standard error over seeds" in text
    assert "s: ≤ 1.25 ×, as the twin's first point is better already." in text
    assert "There is no twin of m (1600 × 2) with a seed of the chain." in text
    assert "no twin says what m would cost alone" in text
    assert "m does not use its size: it is not ahead of its predecessor, trained on for the same MACs." in text
    # 3.435 for 400, half way in logarithms from 200 to 800, is 0.135 and 0.115 behind.
    *_, row = [line for line in text.splitlines() if line.startswith("| s ")]
    assert [cell.strip() for cell in row.split("|")][-4:-1] == ["3.435 ± 0.000", "+0.125 ± 0.010", "yes"]


def test_the_example_of_the_page_is_what_the_command_says(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "compare.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```text\n(## Sizes alone\n.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert shown in to_markdown(compare_runs(write_example(tmp_path)))


def test_runs_without_a_chain_are_twins_alone(tmp_path: Path, hf_chain: Command) -> None:
    run_dir = write_ledger(tmp_path / "twins", Trained("xs", 100, 3.5), Trained("s", 200, 3.49), independent=True)
    text = hf_chain("compare", run_dir).out
    assert "## Sizes alone" in text and "there is no chain to compare" in text


def test_the_plot_has_twins_as_lines_and_members_as_points(tmp_path: Path) -> None:
    chain = write_ledger(
        tmp_path / "chain", Trained("xs", 100, 3.5), Trained("s", 200, 3.0, "xs"), Trained("m", 700, 2.9, "s")
    )
    twins = write_ledger(tmp_path / "twins", Trained("s-1", 500, 3.1), Trained("s-2", 1500, 2.95, "s-1"))
    control = write_ledger(tmp_path / "control", Trained("s-on", 900, 2.97, str(chain / "02-s")))
    figure = comparison_plot(compare_runs([chain, twins, control], output=tmp_path / "out"), LIGHT)
    (axis,) = figure.axes
    drawn = [tuple(map(tuple, line.get_xydata())) for line in axis.lines]
    assert ((500, 3.1), (2000, 2.95)) in drawn
    for point in ((100, 3.5), (300, 3.0), (1000, 2.9), (1200, 2.97)):
        assert (point,) in drawn
    assert ((100, 3.5), (300, 3.0), (1000, 2.9)) in drawn
    assert axis.get_xscale() == "log"
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["100 × 2 alone", "400 × 2 alone", "1600 × 2 alone", "chain", "not counted"]
    assert {"xs", "s", "m"} <= {text.get_text() for text in axis.texts}
    with Image.open(tmp_path / "out" / "compare.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) > 400 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert (tmp_path / "out" / "compare.svg").read_text().lstrip().startswith("<?xml")


def test_what_is_no_chain_and_what_cannot_be_written_is_said_in_a_line(tmp_path: Path, hf_chain: Command) -> None:
    graft: dict[str, Any] = {"target": {}, "encoder": {}, "stages": []}
    Ledger(tmp_path / "graft").append("run_started", recipe=graft, plan={}, environment={})
    chain = write_ledger(tmp_path / "chain", Trained("xs", 100, 3.5))
    message = hf_chain("compare", chain, tmp_path / "graft").message
    assert message == f"{tmp_path / 'graft'} is the run of a graft, which has its baseline in itself: leave it out"
    with pytest.raises(HfChainError, match=f"{chain / 'ledger.jsonl'}.* cannot be written"):
        compare_runs([chain], output=chain / "ledger.jsonl")
    assert "No ledger.jsonl in" in hf_chain("compare", tmp_path).message


def test_no_torch_is_started(tmp_path: Path) -> None:
    chain = write_ledger(tmp_path / "chain", Trained("xs", 100, 3.5), Trained("s", 200, 3.0, "xs"))
    code = (
        "import sys\nfrom hf_chain.cli import main\nmain()\n"
        "assert not {'torch', 'datasets'} & set(sys.modules), 'torch was started'\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "compare", chain], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "The family xs → s costs 300 MACs" in done.stdout


def test_names_do_not_stand_on_each_other(tmp_path: Path) -> None:
    runs = []
    for name, quality in {"one": 3.0, "other": 3.001}.items():
        members = Trained("xs", 100, 3.5), Trained("s", 200, quality, "xs")
        runs.append(write_ledger(tmp_path / name, *members, training={"learning_rate": quality}))
    figure = comparison_plot(compare_runs(runs, output=tmp_path / "out"), LIGHT)
    names = [text for text in figure.axes[0].texts if text.get_visible()]
    assert sorted(text.get_text() for text in names) == ["s", "xs"] and len(figure.axes[0].texts) == 4
