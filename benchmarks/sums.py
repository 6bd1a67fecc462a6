"""Where the windows of the networks look that add two digits at full size (chapter 12).

    python -m benchmarks.sums --runs runs

It reads the weights that `stn-tutorial reproduce addition --columns channels` has left in a folder,
and writes `book/results/addition_looks.json`: of each network with windows, how far each window
*stills* each digit on the test pictures (see `benchmarks/windows.py`), and the error with each
picture's own θ, and with the mean θ of all test pictures in the place of it.
"""

import argparse
import json
from pathlib import Path

import torch

from benchmarks.house_numbers import held, transformers
from benchmarks.sampling import ROOT, commit
from benchmarks.windows import stilled
from stn_tutorial.data import FixedSums, load_digits
from stn_tutorial.models import build_addition
from stn_tutorial.training import error_rate

RESULT = ROOT / "book" / "results" / "addition_looks.json"


@torch.no_grad()
def looked(path, test):
    """Return what is written of one network."""
    settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
    recipe = settings["recipe_settings"]
    model = build_addition(
        settings["model"], batch_norm=recipe["batch_norm"], dropout=recipe["dropout"]
    )
    model.load_state_dict(torch.load(path.with_suffix(".pt"), weights_only=True))
    model.eval()
    windows = transformers(model)
    row = {key: settings[key] for key in ("model", "recipe", "steps", "seed")}
    if settings["model"].endswith("affine"):  # of which the middle of a window is a column of θ
        row["stilled"] = stilled(lambda U: [window.theta(U) for window in windows], test)
    row["error"] = round(error_rate(model, test), 2)
    thetas = (torch.cat([window.theta(U) for U, _ in test]) for window in windows)
    with held(model, [theta.mean(dim=0, keepdim=True) for theta in thetas]):
        row["error_at_mean"] = round(error_rate(model, test), 2)
    return row


def main() -> None:
    """Look at all networks that have windows, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the weights")
    parser.add_argument("--output", type=Path, default=RESULT)
    chosen = parser.parse_args()
    test, rows = FixedSums(load_digits("test", "mnist"), "channels", "test"), []
    for path in sorted(chosen.runs.glob("mnist_addition_channels_*st-fcn-*_seed*.json")):
        rows.append(looked(path, test))
        print(rows[-1], flush=True)
    found = {
        "command": "python -m benchmarks.sums --runs runs",
        "commit": commit(),
        "torch": torch.__version__,
        "rows": rows,
    }
    chosen.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
