"""A film of the long run: what ST-CNN's transformer does to six digits while it learns.

Run it with `python -m benchmarks.film`; it writes `book/results/film.json`, which chapter 10 shows.
ST-CNN affine learns distortion R as its cell of the table does, seed 0. At moments from the start
to the end it is asked for θ of held-out digits: of six, which are kept with their pictures, and of
a thousand, of which the angles and areas are summed up.
"""

import base64
import io
import json

import torch
from PIL import Image

from benchmarks.sampling import ROOT
from benchmarks.trials import PLAN, asked, begin, said_of
from stn_tutorial.data import hold_out, load_digits
from stn_tutorial.training import choose_device, error_rate, train

RESULT = ROOT / "book" / "results" / "film.json"
MODEL, DISTORTION, SEED = "st-cnn-affine", "R", 0
SHOWN, WATCHED = 6, 1000
MOMENTS = (0, 25, 50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000)
"""Steps, each about twice the last."""
TENTHS = (0.1, 0.5, 0.9)


def angle(theta):
    """By how many degrees each θ (N, 2, 3) turns, nearest in the sense of least squares: (N,)."""
    A = theta[:, :, :2]
    return torch.rad2deg(torch.atan2(A[:, 1, 0] - A[:, 0, 1], A[:, 0, 0] + A[:, 1, 1]))


def strip(U):
    """Pictures (N, 1, H, W) from 0 to 1 side by side, as the text of a PNG."""
    row = U[:, 0].permute(1, 0, 2).flatten(1).mul(255).round().byte()
    file = io.BytesIO()
    Image.fromarray(row.numpy()).save(file, format="PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


@torch.no_grad()
def looked_at(model, step, U, true, judge):
    """Return one moment of the film, `true` the angles of the distortion's own θ."""
    theta = model.eval().transformer.theta(U).float().cpu()
    own = angle(theta)
    both = torch.cov(torch.stack([true, own]))
    tenths = torch.tensor(TENTHS)
    areas = torch.linalg.det(theta[:, :, :2])
    return {
        "step": step,
        "held_out_error": round(error_rate(model, judge), 2),
        "slope": round((both[0, 1] / both[0, 0]).item(), 3),
        "angles": [round(one, 1) for one in own.quantile(tenths).tolist()],
        "areas": [round(one, 3) for one in areas.quantile(tenths).tolist()],
        "theta": [[[round(v, 4) for v in row] for row in one] for one in theta[:SHOWN].tolist()],
    }


def main():
    steps, output, execution = asked(__doc__, RESULT)
    device = choose_device()
    digits, held_out = hold_out(load_digits("train"))
    model, batches, judge = begin(MODEL, DISTORTION, SEED, digits, held_out, device)
    U = torch.cat([pictures for pictures, _ in judge])[:WATCHED]
    true = angle(judge.theta()[:WATCHED])
    film = [looked_at(model, 0, U, true, judge)]

    def watch(record):
        if record["step"] in MOMENTS or record["step"] == steps:
            film.append(looked_at(model, record["step"], U, true, judge))
            print(film[-1]["step"], film[-1]["held_out_error"], film[-1]["slope"], flush=True)

    recipe = PLAN.recipe.scaled(steps)
    records = train(model, batches, recipe, every=25, execution=execution, on_record=watch)
    result = {
        "command": "python -m benchmarks.film",
        "model": MODEL,
        "distortion": DISTORTION,
        "seed": SEED,
        "steps": steps,
        "watched": len(U),
        "pictures": strip(U[:SHOWN].cpu()),
        "film": film,
        **said_of(records, execution, device),
    }
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
