"""Train the two windows that the windows explorable runs: `python -m tools.train_windows`.

Drawn birds (`stn_tutorial.data.DrawnBirds`) of 48×48 pixels, every other step mirrored, and their
kind for a label. Two parts:

1. The net that reads a window, and the linear one that names the bird, learn from windows of half
   the picture's side that stand *anywhere*, each drawn anew: so they know what to say of a window
   that a reader puts there, and of one that shows no bird.
2. They are held fast, and the localisation net learns from the kind alone where to put two windows,
   which start as tiles.

Each part goes on from its checkpoint in `runs/windows`. In the end batch norm is folded into the
layers, the weights are rounded to float16 and written to `stn_tutorial/explorables/windows.bin`,
and *these* are judged on test birds, once: with windows where the localisation net puts them, and
where nobody learned to put them. Part 2 is run from three seeds; the first one ships, whatever the
others do. Figures go to `book/results/drawn_birds.json`.

`--together` trains the same network to compare with: all of it learns from the kind at once, its
windows from tiles on, for as many steps as both parts have, on the same birds.
"""

import argparse
import copy
import json
import platform
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from benchmarks.sampling import commit, device_name
from stn_tutorial import data, training
from stn_tutorial.data.passes import Passes, generator_of
from stn_tutorial.explorables import chains, window_nets
from stn_tutorial.transformer import tiling
from tools.train_network import HeldFast, folded, quantised

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "book" / "results" / "drawn_birds.json"
RUNS = ROOT / "runs" / "windows"
SEEDS, BATCH, POOL, TEST = (0, 1, 2), 64, 8192, 2000
SIZE = (window_nets.SIDE, window_nets.SIDE)
READ = training.Recipe(
    steps=1500, batch_size=BATCH, optimiser="adamw", learning_rate=4e-3, schedule="one-cycle"
)
LOOK = training.Recipe(
    steps=800, batch_size=BATCH, optimiser="adamw", learning_rate=4e-3, localisation_rate=1.0,
    schedule="one-cycle", warmup=0.1,
)  # fmt: skip
TOGETHER = training.Recipe(
    steps=READ.steps + LOOK.steps, batch_size=BATCH, optimiser="adamw", learning_rate=4e-3,
    localisation_rate=1.0, schedule="one-cycle", warmup=0.1,
)  # fmt: skip
OFFERED, OFFERED_SEED = 4, 1
"""The first test bird of each kind, of this seed: nobody chose them, and none is judged."""


def seen(U, middles):
    """What windows show: (N, 3, 48, 48) and middles (N, 2, 2) to (N, 2, 3, 24, 24)."""
    shape = (len(U), 3, window_nets.SEEN, window_nets.SEEN)
    grids = [
        F.affine_grid(window_nets.windows(one), shape, align_corners=False)
        for one in middles.unbind(1)
    ]
    views = [F.grid_sample(U, one, padding_mode="border", align_corners=False) for one in grids]
    return torch.stack(views, dim=1)


def anywhere(count, generator):
    """Middles of two windows that stand anywhere inside: (N, 2, 2)."""
    return 2 * window_nets.SCALE * (torch.rand(count, 2, 2, generator=generator) - 0.5)


class Flipped:
    """Batches of birds, every other one mirrored, by the step alone."""

    batch_size = BATCH

    def __init__(self, birds, seed):
        self.images, self.labels = birds
        self.passes = Passes(len(self.labels), BATCH, seed, "drawn birds")

    def __call__(self, step):
        which = self.passes(step)
        U = self.images[which]
        return (U.flip(3) if step % 2 else U), self.labels[which]


class Glimpses(Flipped):
    """The same birds through two windows that stand anywhere."""

    def __call__(self, step):
        U, target = super().__call__(step)
        return seen(U, anywhere(len(U), generator_of("windows anywhere", step))), target


def run(name, net, batch, recipe):
    """Train one part, or go on with it; return its seconds."""

    def show(record):
        print(name, {key: round(value, 3) for key, value in record.items()}, flush=True)

    records = training.train(
        net, batch, recipe, every=recipe.steps // 10, checkpoint=RUNS / f"{name}.pt",
        on_record=show,
    )  # fmt: skip
    return records[-1]["seconds"]


def drawn():
    return data.DrawnBirds("train", batch_size=POOL, size=SIZE)(0)


def trained_together(seed):
    """Train all at once; return the network without batch norm, and the seconds."""
    torch.manual_seed(seed)
    net = window_nets.network(norm=True)
    seconds = run(f"together-{seed}", net, Flipped(drawn(), seed), TOGETHER)
    return folded(net), seconds


def trained():
    """Train all parts; return each seed's network without batch norm, and the seconds."""
    birds = drawn()
    torch.manual_seed(SEEDS[0])
    _, describe, name = window_nets.network(norm=True)
    reader = nn.Sequential(describe, name)
    seconds = {"read": run("read", reader, Glimpses(birds, SEEDS[0]), READ)}
    reader = HeldFast(folded(reader).eval())
    nets = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        look = window_nets.network(norm=True)[0]
        both = nn.Sequential(look, reader)
        seconds[f"look {seed}"] = run(f"look-{seed}", both, Flipped(birds, seed), LOOK)
        nets.append(nn.Sequential(folded(look), *copy.deepcopy(reader.net)))
    return nets, seconds


# --- What is measured ---


def share(mask):
    return round(100 * mask.float().mean().item(), 2)


def follows(middles, at):
    """1 − var(c − p) / var(p), as chapter 14 has it."""
    return round(1 - ((middles - at).var(dim=0).sum() / at.var(dim=0).sum()).item(), 3)


def parts(birds):
    """Where head and wing of the first step's birds are, (N, 2) each."""
    U, target = birds(0)
    every = data.Birds(U, target, *birds.truth(0), data.DRAWN_BIRDS)
    named = {"head": data.HEAD, "wing": ("left wing", "right wing")}
    return {name: data.part_middle(every, which)[0] for name, which in named.items()}


@torch.no_grad()
def judged(nets, birds, only=()):
    """Of a reader with windows here and there: what is right, in %, and what the windows hold."""
    U, target = birds(0)
    at = parts(birds)
    places = {
        "own": nets["localise"](U).view(-1, 2, 2).clamp(-0.5, 0.5),
        "tiles": tiling(2, window_nets.SCALE)[:, :, 2].expand(len(U), 2, 2),
        "middle": torch.zeros(len(U), 2, 2),
        "anywhere": anywhere(len(U), generator_of("judged windows")),
        "head and wing": torch.stack([at["head"], at["wing"]], dim=1).clamp(-0.5, 0.5),
        "wing twice": torch.stack([at["wing"], at["wing"]], dim=1).clamp(-0.5, 0.5),
    }
    places["standing"] = places["own"].mean(dim=0).expand(len(U), 2, 2)
    rows = {}
    for name, middles in places.items():
        if only and name not in only:
            continue
        said = nn.Sequential(window_nets.Describe(nets["read"]), nets["name"])(seen(U, middles))
        best = said.argmax(dim=1)
        row = {"kind": share(best == target), "bill": share(best // 2 == target // 2),
               "wing": share(best % 2 == target % 2)}  # fmt: skip
        for part, spot in at.items():
            held = ((middles - spot[:, None]).abs() < window_nets.SCALE).all(dim=2)
            row[f"holds {part}"] = [share(one) for one in held.unbind(1)]
            row[f"any holds {part}"] = share(held.any(dim=1))
            row[f"follows {part}"] = [follows(one, spot) for one in middles.unbind(1)]
        row["middle"] = [[round(x, 3) for x in c.mean(dim=0).tolist()] for c in middles.unbind(1)]
        rows[name] = row
    return rows


def offered():
    """The birds that the explorable offers: their strip, and of each kind, head and wing."""
    birds = data.DrawnBirds("test", batch_size=64, seed=OFFERED_SEED, size=SIZE)
    U, target = birds(0)
    at = parts(birds)
    chosen = [(target == kind).nonzero()[0].item() for kind in range(OFFERED)]
    images = (255 * U[chosen]).round().to(torch.uint8).permute(2, 0, 3, 1)
    strip = Image.fromarray(images.reshape(SIZE[0], -1, 3).contiguous().numpy())
    return strip, {
        str(k + 1): {
            "kind": int(target[one]),
            **{name: [round(x, 3) for x in spot[one].tolist()] for name, spot in at.items()},
        }
        for k, one in enumerate(chosen)
    }


def publish(rows, birds, strip):
    """Put what the explorable states beside its weights."""
    figures = {
        "birds": TEST,
        **{
            place: {name: row[name] for name in ("kind", "any holds head", "any holds wing")}
            for place, row in rows.items()
        },
    }
    figures["own"] |= {name: rows["own"][name] for name in ("follows head", "follows wing")}
    told = {"figures": figures, "birds": birds}
    window_nets.FIGURES.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    strip.save(window_nets.STRIP, optimize=True)


def compare(seeds, made_by, test):
    """Train all at once from each seed, and add what is measured to the file."""
    for seed in seeds:
        net, seconds = trained_together(seed)
        own = {name: quantised(one) for name, one in window_nets.plain(net).items()}
        row = {"seed": seed, "windows": judged(own, test), "seconds": round(seconds)}
        row |= {"command": "python -m tools.train_windows --together", "commit": made_by}
        result = json.loads(RESULT.read_text(encoding="utf-8"))
        others = [one for one in result.get("together", []) if one["seed"] != seed]
        result["together"] = sorted([*others, row], key=lambda one: one["seed"])
        result["recipes"]["together"] = asdict(TOGETHER)
        write(result)
        print(seed, {place: one["kind"] for place, one in row["windows"].items()}, flush=True)


def write(result):
    text = json.dumps(result, indent=1, ensure_ascii=False)
    RESULT.write_text(text + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--together", type=int, nargs="*", metavar="SEED", help="to compare with")
    chosen = parser.parse_args()
    made_by = commit()  # before anything is written
    torch.set_num_threads(1)
    RUNS.mkdir(parents=True, exist_ok=True)
    test = data.DrawnBirds("test", batch_size=TEST, size=SIZE)
    if chosen.together is not None:
        compare(chosen.together or SEEDS, made_by, test)
        return
    nets, seconds = trained()
    rows = []
    for seed, net in zip(SEEDS, nets, strict=True):
        own = {name: quantised(one) for name, one in window_nets.plain(net).items()}
        if seed == SEEDS[0]:
            ships = own
            window_nets.WEIGHTS.write_bytes(chains.half(window_nets.parameters(own)))
        rows.append({"seed": seed, "windows": judged(own, test)})
        print(seed, {place: row["kind"] for place, row in rows[-1]["windows"].items()}, flush=True)
    strip, birds = offered()
    publish(rows[0]["windows"], birds, strip)
    result = {
        "data": f"{POOL} drawn birds, 48×48 pixels, and their mirror images",
        "test_birds": TEST,
        "seeds": list(SEEDS),
        "parameters": sum(p.numel() for p in window_nets.parameters(ships)),
        "recipes": {"read": asdict(READ), "look": asdict(LOOK)},
        "rows": rows,
        "offered": birds,
        "command": "python -m tools.train_windows",
        "commit": made_by,
        "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "seconds": {part: round(one) for part, one in seconds.items()},
        "clock": "wall clock, the machine not idle",
    }
    write(result)


if __name__ == "__main__":
    main()
