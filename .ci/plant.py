"""Leaves in the checkout what the demos leave there, and in a home caches and settings that break what uses them.

    python .ci/plant.py HOME

Tests see none of it. Runs that are there already are left alone.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.graft_runs import write_graft_run  # noqa: E402
from support.report_runs import write_run  # noqa: E402


def main(home: Path) -> None:
    """Writes both runs, and the home."""
    for name, write in {"scenes": write_run, "graft-scenes": write_graft_run}.items():
        run_dir = ROOT / "runs" / name
        if not run_dir.exists():
            write(run_dir)
            print(run_dir)
    (home / "accelerate").mkdir(parents=True)
    (home / "accelerate" / "default_config.yaml").write_text("num_processes: 3\ndistributed_type: NONE\nunknown: 1\n")
    for cache in ("datasets", "hub", "token", "xdg"):
        (home / cache).write_text("a file in place of a cache, in which nothing can be written")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
