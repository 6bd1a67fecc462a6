"""Which slant would give the paper's errors on P: one constant, asked of three models.

Run it with `python -m benchmarks.slant`; it writes `book/results/slant.json`, which chapter 11
shows. Of distortion P the package assumes that each corner moves by a normal draw of 5 pixels.
Were another width of that draw the paper's, all of the paper's errors on P should be met at one
and the same width. Each model learns by the modern recipe, as in the table, for some widths, and is
judged on the digits held out. Nothing is chosen by it. A run in the file is not run again.
"""

import copy

from benchmarks.sampling import ROOT
from benchmarks.trials import PLAN, asked, begin, fill, said_of
from stn_tutorial.data import DISTORTIONS
from stn_tutorial.experiments import PAPER
from stn_tutorial.training import choose_device, error_rate, train

RESULT = ROOT / "book" / "results" / "slant.json"
WIDTHS: dict[str, tuple[float, ...]] = {
    "fcn": (2.0, 2.5, 3.0, 4.0, 5.0),
    "st-fcn-affine": (2.0, 2.5, 3.0, 4.0, 5.0),
    "cnn": (3.0, 4.0),
}
"""Of the corners' draw, in pixels. A CNN costs as much as seven of the others."""
SEED = 0


def slanted(width):
    """Distortion P whose corners move by a normal draw of so many pixels."""
    distortion = copy.copy(DISTORTIONS["P"])
    distortion.sigma = width
    return distortion


def trial(model_name, width, digits, held_out, steps, execution, device):
    """Train once; return the row of the table."""
    recipe = PLAN.recipe.scaled(steps)
    model, batches, judge = begin(model_name, "P", SEED, digits, held_out, device)
    batches.distortion = judge.distortion = slanted(width)
    records = train(model, batches, recipe, every=steps, execution=execution)
    return {
        "model": model_name,
        "width": width,
        "seed": SEED,
        "steps": steps,
        "learning_rate": recipe.learning_rate,
        "held_out_error": round(error_rate(model.eval(), judge), 2),
        "paper": PAPER[model_name]["P"],
        **said_of(records, execution, device),
    }


def main():
    steps, output, execution = asked(__doc__, RESULT)
    device = choose_device()

    def one(name, width, digits, held_out):
        return trial(name, width, digits, held_out, steps, execution, device)

    about = {
        "command": "python -m benchmarks.slant",
        "distortion": "P, its corners' standard deviation in pixels as `width`",
    }
    wanted = [(name, width) for name, widths in WIDTHS.items() for width in widths]
    fill(output, about, ("model", "width"), wanted, one)


if __name__ == "__main__":
    main()
