"""The modern recipe's learning rate, chosen for CNN and for ST-CNN by the same trials.

Run it with `python -m benchmarks.tuning`; it writes `book/results/tuning.json`, which chapter 11
shows. Each model is trained on distortion R at each learning rate, from two seeds, for as many
steps as a cell of the table gets on a CPU, with nothing else of the recipe changed, and is judged
on the digits that are held out. Test digits are not touched. A trial that is in the file is not run
again. (`tuning_short.json` holds earlier trials of five passes, from one seed.)
"""

import argparse
import json
import math
import statistics
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path

from filelock import FileLock

from benchmarks.sampling import ROOT
from benchmarks.trials import PLAN, begin, said_of
from stn_tutorial.data import hold_out, load_digits
from stn_tutorial.training import Execution, choose_device, error_rate, train

RESULT = ROOT / "book" / "results" / "tuning.json"
MODELS = ("cnn", "st-cnn-affine")
RATES = (5e-3, 1e-2, 2e-2)
DISTORTION, SEEDS = "R", (0, 1)
STEPS = PLAN.cpu_steps
KEY = ("model", "learning_rate", "seed")


def trial(model_name, rate, seed, digits, held_out, execution, device):
    """Train once; return the row of the table."""
    recipe = replace(PLAN.recipe.scaled(STEPS), learning_rate=rate)
    model, batches, judge = begin(model_name, DISTORTION, seed, digits, held_out, device)
    records = train(
        model,
        batches,
        recipe,
        every=STEPS,
        evaluate=lambda model: error_rate(model, judge),
        execution=execution,
    )
    return {
        "model": model_name,
        "learning_rate": rate,
        "seed": seed,
        "steps": STEPS,
        "held_out_error": round(records[-1]["error"], 2),
        **said_of(records, execution, device),
    }


def best_rate(rows):
    """Return the rate with the lowest error, all models alike; None while a trial is missing.

    Lowest is the geometric mean, so that no model counts for more because it errs more.
    """
    found = {tuple(row[key] for key in KEY): row["held_out_error"] for row in rows}
    if not set(product(MODELS, RATES, SEEDS)) <= found.keys():
        return None
    return min(
        RATES,
        key=lambda rate: statistics.mean(
            math.log(found[model, rate, seed]) for model, seed in product(MODELS, SEEDS)
        ),
    )


def load_rows(path):
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def add(path, row):
    """Put a row into the file, where another process may be doing so as well."""
    with FileLock(Path(tempfile.gettempdir()) / "stn-tutorial-tuning.lock"):
        rows = [*load_rows(path), row]
        rows.sort(key=lambda one: (MODELS.index(one["model"]), one["learning_rate"], one["seed"]))
        result = {
            "command": "python -m benchmarks.tuning",
            "distortion": DISTORTION,
            "steps": STEPS,
            "rows": rows,
        }
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--precision", default="float32", help="see training.Execution")
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    execution = Execution(arguments.precision, channels_last=True)
    digits, held_out = hold_out(load_digits("train"))
    # All rates from one seed before the next, so that what was stopped early compares them all.
    for seed, rate, name in product(arguments.seeds, RATES, arguments.models):
        done = [tuple(row[key] for key in KEY) for row in load_rows(arguments.output)]
        if (name, rate, seed) in done:
            continue
        print(f"{name}, learning rate {rate:g}, seed {seed}:", flush=True)
        row = trial(name, rate, seed, digits, held_out, execution, choose_device())
        add(arguments.output, row)
    print("best rate:", best_rate(load_rows(arguments.output)) or "trials are missing")


if __name__ == "__main__":
    main()
