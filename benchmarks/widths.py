"""What our solved widths are worth: FCN and CNN on R at the widths that the paper is said to have.

Run it with `python -m benchmarks.widths`; it writes `book/results/widths.json`, which chapter 11
shows. As we understand the paper's appendix, its networks have 128 to 256 units or 32 to 64
filters; the package solves for 400 thousand parameters, and gets others. Each of these four learns
by the modern recipe, from the table's digits and seed, and is judged as a cell of the table is. A
run in the file is not run again.
"""

from benchmarks.sampling import ROOT
from benchmarks.trials import PLAN, asked, begin, fill, said_of
from stn_tutorial.data import FixedSet, load_digits
from stn_tutorial.models import count_parameters
from stn_tutorial.training import choose_device, error_rate, train

RESULT = ROOT / "book" / "results" / "widths.json"
WIDTHS = (("fcn", 128), ("fcn", 256), ("cnn", 32), ("cnn", 64))
DISTORTION, SEED = "R", 0


def trial(model_name, units, digits, held_out, test, steps, execution, device):
    """Train once; return the row of the table."""
    recipe = PLAN.recipe.scaled(steps)
    model, batches, judge = begin(model_name, DISTORTION, SEED, digits, held_out, device, units)
    records = train(model, batches, recipe, every=steps, execution=execution)
    unseen = FixedSet(test, DISTORTION, "test", device=device)
    return {
        "model": model_name,
        "width": units,
        "parameters": count_parameters(model),
        "seed": SEED,
        "steps": steps,
        "learning_rate": recipe.learning_rate,
        "held_out_error": round(error_rate(model.eval(), judge), 2),
        "error": round(error_rate(model, unseen), 2),
        **said_of(records, execution, device),
    }


def main():
    steps, output, execution = asked(__doc__, RESULT)
    test, device = load_digits("test"), choose_device()

    def one(name, units, digits, held_out):
        return trial(name, units, digits, held_out, test, steps, execution, device)

    about = {
        "command": "python -m benchmarks.widths", "distortion": DISTORTION, "recipe": "modern",
    }  # fmt: skip
    fill(output, about, ("model", "width"), WIDTHS, one)


if __name__ == "__main__":
    main()
