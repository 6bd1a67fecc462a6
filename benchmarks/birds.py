"""Birds: what windows are worth before a frozen backbone, and where learned ones go.

    python -m benchmarks.birds
    python -m benchmarks.birds looks

The first writes `book/results/birds.json`, which chapter 14 shows: on CUB's first 50 classes, with
torchvision's SqueezeNet 1.0, frozen, from the data folder. Each row, or *arm*, is a way to look:
the whole picture at some size; windows of half its side at 112 pixels, which stay where they are
put (as tiles, in the middle, on the middle of the bird's box, on its head and trunk as labelled);
the box itself; and two windows that a localisation net places and the class labels alone teach. Of
each the descriptors are put side by side and a linear classifier is trained on them, in one and the
same way, whatever the arm: so a learned window's classifier is trained afresh once the windows have
stopped. Two controls go with them: windows that *stand* where the learned ones are on average, and,
so that the localisation net itself could be refuted, `told`, the same net trained on the labelled
head and trunk, once at length and once (`told, 4 passes`) for as many passes as the class labels
have.

The second writes `book/results/birds_looks.json`: pictures of test birds, with their windows and
what is said of them. What is finished is not run again; pictures and descriptors are kept in
`--cache`. Several commands with `--only` and `--seeds` may share one file.
"""

import argparse
import base64
import io
import itertools
import json
import platform
import sys
import time
from pathlib import Path

import torch
import torchvision
from filelock import FileLock
from PIL import Image
from torch import nn
from torch.nn import functional as F

from benchmarks.sampling import ROOT, commit, device_name
from stn_tutorial.affine import crop
from stn_tutorial.data import BODY, HEAD, Birds, load_birds, part_middle, weights_file
from stn_tutorial.data.passes import generator_of
from stn_tutorial.models import BirdReader, Describer, MapLocalisation, backbone
from stn_tutorial.training.devices import exact_float32
from stn_tutorial.transformer import tiling

RESULT = ROOT / "book" / "results" / "birds.json"
LOOKS = ROOT / "book" / "results" / "birds_looks.json"
SIDE, CROP, SCALE, SEEDS = 224, 112, 0.5, (0, 1, 2)
PROBE = {"steps": 1200, "batch": 64, "rate": 3e-3, "decay": 0.01, "dropout": 0.5, "smoothing": 0.1}
JOINT = {"epochs": 4, "batch": 50, "rate": 3e-3}
FIXED = ("whole 112", "whole 160", "whole 224", "tiles", "middle", "at box", "head + trunk", "box")
LEARNED = {
    "2×ST": 0.1, "2×ST, rate 1": 1.0, "2×ST, standing": None, "told": None, "told, 4 passes": None,
}  # fmt: skip
"""By arm: the rate of the localisation net, as a share of the classifier's."""
TOLD = {"told": 40, "told, 4 passes": JOINT["epochs"]}
"""By arm: how often the localisation net is shown each labelled bird."""
ARMS = (*FIXED, *LEARNED)
SHOWN = 24


class Pictures:
    """All pictures, the frozen backbone, and descriptors, each made once and kept in a folder."""

    def __init__(self, cache: Path):
        self.cache = cache
        cache.mkdir(parents=True, exist_ok=True)
        self.birds = {split: self._birds(split) for split in ("train", "test")}
        net = backbone("squeezenet1_0", weights_file("squeezenet1_0"))
        net = net.to(memory_format=torch.channels_last)
        self.describe = Describer(net, (CROP, CROP))

    def _birds(self, split):
        path = self.cache / f"{split}.pt"
        if not path.exists():
            torch.save(tuple(load_birds(split, "cub-part", (SIDE, SIDE))), path)
        return Birds(*torch.load(path, weights_only=True))

    def batch(self, split, which, flip):
        U = self.birds[split].images[which].float() / 255
        return U.flip(3) if flip else U

    def read(self, U):
        with torch.autocast("cpu", torch.bfloat16):
            return self.describe(U.contiguous(memory_format=torch.channels_last)).float()

    def kept(self, name, make):
        path = self.cache / f"{name}.pt"
        if not path.exists():
            torch.save(make(), path)
        return torch.load(path, weights_only=True)

    @torch.no_grad()
    def each(self, split, flip, work):
        count = len(self.birds[split].labels)
        parts = [work(self.batch(split, slice(k, k + 64), flip), slice(k, k + 64))
                 for k in range(0, count, 64)]  # fmt: skip
        return torch.cat(parts)

    def described(self, theta, side=CROP):
        """Return descriptors of windows θ, (N, K, 2, 3) of each split: train twice, and test.

        Mirrored pictures have mirrored windows.
        """

        def work(split, flip):
            own = theta[split] * MIRROR if flip else theta[split]

            def views(U, part):
                found = [self.read(self.seen(U, one, side)) for one in own[part].unbind(1)]
                return torch.cat(found, dim=1)

            return self.each(split, flip, views)

        return {
            "train": torch.stack([work("train", False), work("train", True)]),
            "test": work("test", False),
        }

    def seen(self, U, theta, side):
        whole = bool((theta == torch.eye(2, 3)).all())
        if whole:  # shrunk with a filter, as any network's pictures are
            return F.interpolate(U, (side, side), mode="bilinear", antialias=True)
        grid = F.affine_grid(theta, [len(U), 3, side, side], align_corners=False)
        return F.grid_sample(U, grid, padding_mode="border", align_corners=False)

    def maps(self):
        """Return the backbone's maps of whole pictures at 112 pixels: train twice, and test."""
        layers = self.describe.net.features

        def work(U, _):
            small = F.interpolate(U, (CROP, CROP), mode="bilinear", antialias=True)
            small = (small - self.describe.mean) / self.describe.spread
            with torch.autocast("cpu", torch.bfloat16):
                return layers(small.contiguous(memory_format=torch.channels_last)).half()

        def make():
            both = [self.each("train", flip, work) for flip in (False, True)]
            return {"train": torch.stack(both), "test": self.each("test", False, work)}

        return self.kept("maps", make)

    def places(self, split):
        """Return the middles of heads, trunks and boxes, and where there is none: the box's."""
        birds = self.birds[split]
        box = (birds.boxes[:, :2] + birds.boxes[:, 2:]) / 2
        head, there = part_middle(birds, HEAD)
        trunk, also = part_middle(birds, BODY)
        return {
            "head": torch.where(there[:, None], head, box),
            "trunk": torch.where(also[:, None], trunk, box),
            "box": box,
            "judged": there & also,
        }


MIRROR = torch.tensor([[1.0, -1, -1], [-1, 1, 1]])
"""θ of a picture from left to right: what is read is mirrored too."""


def windows(centres):
    """Return θ (N, K, 2, 3) of windows about centres (N, K, 2)."""
    n, k = centres.shape[:2]
    box = torch.cat([centres - SCALE, centres + SCALE], dim=2)
    return crop(box.flatten(0, 1)).view(n, k, 2, 3)


def theta_of(arm, pictures):
    """Return a fixed arm's θ of both splits, and the pixels that each view is read at."""
    theta, side = {}, CROP
    for split, birds in pictures.birds.items():
        n, places = len(birds.labels), pictures.places(split)
        if arm.startswith("whole"):
            theta[split], side = torch.eye(2, 3).expand(n, 1, 2, 3), int(arm.split()[1])
        elif arm == "box":
            theta[split] = crop(birds.boxes)[:, None]
        elif arm == "tiles":
            theta[split] = tiling(2, SCALE).expand(n, 2, 2, 3)
        else:
            middles = {
                "middle": [torch.zeros(n, 2)],
                "at box": [places["box"]],
                "head + trunk": [places["head"], places["trunk"]],
            }[arm]
            theta[split] = windows(torch.stack(middles, dim=1))
    return theta, side


def classifier(features, classes=50):
    return nn.Sequential(
        nn.BatchNorm1d(features), nn.Dropout(PROBE["dropout"]), nn.Linear(features, classes)
    )


@exact_float32()
def probe(descriptors, labels, seed):
    """Train a linear classifier on descriptors, and return its scores of the test birds."""
    torch.manual_seed(seed)
    made = descriptors["train"]
    head = classifier(made.shape[2])
    steps = PROBE["steps"]
    optimiser = torch.optim.AdamW(head.parameters(), PROBE["rate"], weight_decay=PROBE["decay"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        which = torch.randint(len(labels["train"]), (PROBE["batch"],))
        flip = torch.randint(2, (PROBE["batch"],))
        loss = F.cross_entropy(head(made[flip, which]), labels["train"][which],
                               label_smoothing=PROBE["smoothing"])  # fmt: skip
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        return head.eval()(descriptors["test"])


def share(mask):
    return round(100 * mask.float().mean().item(), 2)


def looks_of(theta, places):
    """Say of windows θ (N, K, 2, 3) what they hold, and what they follow."""
    judged = places["judged"]
    centres = theta[judged, :, :, 2]
    points = {name: places[name][judged] for name in ("head", "trunk", "box")}
    found = {"centre": [[round(x, 4) for x in c.mean(0).tolist()] for c in centres.unbind(1)]}
    found["spread"] = [[round(x, 4) for x in c.std(0).tolist()] for c in centres.unbind(1)]
    for name in ("head", "trunk"):
        off = (centres - points[name][:, None]).abs()
        holds = (off < SCALE).all(dim=2)
        found[f"holds {name}"] = [share(one) for one in holds.unbind(1)]
        found[f"any holds {name}"] = share(holds.any(dim=1))
    for name, at in points.items():
        left = (centres - at[:, None]).var(dim=0).sum(dim=1) / at.var(dim=0).sum()
        found[f"follows {name}"] = [round(1 - x, 4) for x in left.tolist()]
    nearer = (centres - points["head"][:, None]).norm(dim=2) < (
        centres - points["trunk"][:, None]
    ).norm(dim=2)
    found["nearer the head"] = [share(one) for one in nearer.unbind(1)]
    found["one each"] = share(nearer.any(dim=1) & ~nearer.all(dim=1))
    return found


def controls(pictures):
    """Say what windows hold that nobody learned: one at random inside, and two."""
    places = pictures.places("test")
    n = len(places["head"])
    drawn = torch.rand(200, n, 2, 2, generator=generator_of("random windows")) - SCALE
    rows = [looks_of(windows(one), places) for one in drawn]
    keys = ("any holds head", "any holds trunk", "one each")
    found = {key: round(sum(row[key] for row in rows) / len(rows), 2) for key in keys}
    for name in ("head", "trunk"):
        each = [sum(row[f"holds {name}"]) / 2 for row in rows]
        found[f"holds {name}"] = round(sum(each) / len(each), 2)
    return found


def reader_of(pictures, seed):
    torch.manual_seed(seed)
    finder = MapLocalisation(512, (6, 6))
    return BirdReader(
        pictures.describe, finder, 50, scale=SCALE, size=(CROP, CROP), share=True,
        dropout=PROBE["dropout"],
    )  # fmt: skip


@torch.no_grad()
def placed(reader, maps):
    """Return θ (N, K, 2, 3) of maps, in evaluation mode; the mode stays what it was."""
    mode = reader.training
    reader.eval()
    parts = [torch.stack(reader.look.thetas(part.float()), 1) for part in maps.split(250)]
    reader.train(mode)
    return torch.cat(parts)


@exact_float32()
def learn(pictures, seed, rate, epochs):
    """Train windows and classifier from class labels; return the reader and how it went."""
    reader, maps = reader_of(pictures, seed), pictures.maps()
    labels = pictures.birds["train"].labels
    finder = list(reader.look.parameters())
    optimiser = torch.optim.AdamW(
        [{"params": finder, "lr": rate * JOINT["rate"]},
         {"params": reader.classify.parameters(), "lr": JOINT["rate"]}],
        weight_decay=PROBE["decay"],
    )  # fmt: skip
    steps = epochs * len(labels) // JOINT["batch"]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    draw, places, history = generator_of("birds", seed), pictures.places("test"), []
    order, losses = torch.empty(0, dtype=torch.int64), []
    for step in range(steps):
        if step % max(steps // epochs, 1) == 0:
            history.append({"step": step, **looks_of(placed(reader, maps["test"]), places)})
        if len(order) < JOINT["batch"]:
            order = torch.randperm(len(labels), generator=draw)
        which, order = order[: JOINT["batch"]], order[JOINT["batch"] :]
        flip = int(torch.randint(2, (1,), generator=draw))
        thetas = reader.look.thetas(maps["train"][flip, which].float())
        views = reader.look.sample(pictures.batch("train", which, flip), thetas)
        made = torch.cat([pictures.read(view) for view in views.unbind(1)], dim=1)
        loss = F.cross_entropy(reader.classify(made), labels[which],
                               label_smoothing=PROBE["smoothing"])  # fmt: skip
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if step % 10 == 9:
            print(f"   {step + 1}/{steps} loss {sum(losses[-10:]) / 10:.3f}", flush=True)
    history.append({"step": steps, **looks_of(placed(reader, maps["test"]), places)})
    return reader, history


@exact_float32()
def told(pictures, seed, epochs):
    """Train the same localisation net on the labelled head and trunk."""
    reader, maps = reader_of(pictures, seed), pictures.maps()["train"]
    places = pictures.places("train")
    wanted = torch.stack([places["head"], places["trunk"]], dim=1)
    optimiser = torch.optim.AdamW(reader.look.parameters(), 1e-3, weight_decay=PROBE["decay"])
    steps = epochs * len(wanted) // PROBE["batch"]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    draw = generator_of("told", seed)
    for _ in range(steps):
        which = torch.randint(len(wanted), (PROBE["batch"],), generator=draw)
        flip = int(torch.randint(2, (1,), generator=draw))
        target = wanted[which] * torch.tensor([-1.0 if flip else 1.0, 1.0])
        made = torch.stack(reader.look.thetas(maps[flip, which].float()), dim=1)[..., 2]
        loss = F.smooth_l1_loss(made, target, beta=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return reader


def standing(pictures, seed):
    """Return windows that stand where the learned ones of rate 1 are on average in training."""
    path = pictures.cache / f"theta 2×ST, rate 1 {seed}.pt"
    theta = torch.load(path, weights_only=True)
    mean = theta["train"].mean(dim=0, keepdim=True)
    return {split: mean.expand(len(own), -1, -1, -1) for split, own in theta.items()}


def judged(pictures, theta, side, seeds, labels):
    """Return each seed's share of right test birds for fixed windows."""
    made = pictures.described(theta, side)
    found = [probe(made, labels, seed) for seed in seeds]
    return found, [share(scores.argmax(1) == labels["test"]) for scores in found]


def write(path, content):
    content |= {
        "command": "python -m benchmarks.birds" + (" looks" if "looks" in sys.argv else ""),
        "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "precision": "backbone bfloat16, all else float32",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def earlier(out):
    return json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}


def measure(pictures, out, only, seeds_wanted):
    """Run the arms that are missing, and write the file after each.

    Several commands on one file share it: each writes what the others have written too.
    """
    found = {}
    labels = {split: birds.labels for split, birds in pictures.birds.items()}
    test = pictures.places("test")
    found |= {
        "data": "CUB-200-2011, classes 1 to 50: "
        + ", ".join(f"{len(x)} {split}" for split, x in labels.items()),
        "backbone": "squeezenet1_0, frozen; " + weights_file("squeezenet1_0").name,
        "probe": PROBE,
        "joint": JOINT,
        "scale": SCALE,
        "crop": CROP,
        "seeds": list(SEEDS),
        "clock": "processor seconds, the machine not idle",
    }
    jobs = [(arm, SEEDS) for arm in FIXED]
    jobs += [(arm, (seed,)) for seed, arm in itertools.product(SEEDS, LEARNED)]
    for arm, seeds in jobs:
        known = [(row["arm"], row["seeds"]) for row in earlier(out).get("rows", [])]
        if (arm, list(seeds)) in known or (only and arm not in only):
            continue
        if arm in LEARNED and seeds[0] not in seeds_wanted:
            continue
        began, row = time.process_time(), {"arm": arm, "seeds": list(seeds), "commit": commit()}
        side = CROP
        if arm in FIXED:
            theta, side = theta_of(arm, pictures)
        elif arm == "2×ST, standing":
            theta = standing(pictures, seeds[0])
        else:
            if arm in TOLD:
                row["passes"] = TOLD[arm]
                reader = told(pictures, seeds[0], TOLD[arm])
            else:
                row["rate"] = LEARNED[arm]
                reader, row["history"] = learn(pictures, seeds[0], LEARNED[arm], JOINT["epochs"])
            maps = pictures.maps()
            theta = {
                "train": placed(reader, maps["train"][0]),
                "test": placed(reader, maps["test"]),
            }
            torch.save(theta, pictures.cache / f"theta {arm} {seeds[0]}.pt")
        scores, row["accuracy"] = judged(pictures, theta, side, seeds, labels)
        torch.save(scores[0], pictures.cache / f"scores {arm} {seeds[0]}.pt")
        if not (arm.startswith("whole") or arm == "box"):
            row["looks"] = looks_of(theta["test"], test)
        row["pixels"] = theta["test"].shape[1] * side**2
        row["process_seconds"] = round(time.process_time() - began, 1)
        print({k: v for k, v in row.items() if k != "history"}, flush=True)
        with FileLock(pictures.cache / ".lock"):
            before = earlier(out)
            rows = [*before.get("rows", []), row]
            rows.sort(key=lambda one: (ARMS.index(one["arm"]), one["seeds"]))
            write(out, before | found | {"rows": rows, "controls": controls(pictures)})


def jpeg(image):
    """A picture, (3, H, W) bytes, as the text of a JPEG of 144 pixels a side."""
    memory = io.BytesIO()
    small = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((144, 144))
    small.save(memory, "jpeg", quality=85)
    return base64.b64encode(memory.getvalue()).decode()


def confused(scores, labels, names, count=6):
    """Return the pairs of classes that are taken for one another most often."""
    said = scores.argmax(1)
    table = torch.zeros(len(names), len(names), dtype=torch.int64)
    table.index_put_((labels, said), torch.ones_like(labels), accumulate=True)
    both = (table + table.T).triu(diagonal=1).flatten()
    pairs = both.argsort(descending=True, stable=True)[:count].tolist()
    return [[names[k // len(names)], names[k % len(names)], int(both[k])] for k in pairs]


def looks(pictures, out):
    """Write some test birds with their windows, and pairs of kinds that differ in a detail."""
    test, places = pictures.birds["test"], pictures.places("test")
    theta = torch.load(pictures.cache / "theta 2×ST, rate 1 0.pt", weights_only=True)["test"]
    said = {
        arm: torch.load(pictures.cache / f"scores {arm} 0.pt", weights_only=True)
        for arm in ("2×ST, rate 1", "whole 112", "whole 224")
    }
    # Evenly over the classes, and so whatever the networks make of them.
    shown = torch.linspace(0, len(test.labels) - 1, SHOWN).round().long().tolist()
    rows = [
        {
            "picture": jpeg(test.images[k]),
            "truth": test.names[test.labels[k]],
            "said": {arm: test.names[scores[k].argmax()] for arm, scores in said.items()},
            "centres": [[round(x, 3) for x in c] for c in theta[k, :, :, 2].tolist()],
            **{name: [round(x, 3) for x in places[name][k].tolist()] for name in ("head", "trunk")},
        }
        for k in shown
    ]
    train, heads = pictures.birds["train"], pictures.places("train")["head"]
    pairs = []
    for name in PAIR:
        chosen = (train.labels == train.names.index(name)).nonzero()[:, 0][:4]
        box = torch.cat([heads[chosen] - 0.3, heads[chosen] + 0.3], dim=1)
        seen = pictures.seen(pictures.batch("train", chosen, False), crop(box), CROP)
        close = (255 * seen).round().to(torch.uint8)
        pairs.append({"name": name, "whole": [jpeg(one) for one in train.images[chosen]],
                      "head": [jpeg(one) for one in close]})  # fmt: skip
    write(out, {
        "source": "CUB-200-2011 (Wah et al. 2011); the photographs are their authors'",
        "commit": commit(), "birds": rows, "pairs": pairs,
        "confused": confused(said["whole 112"], test.labels, test.names),
    })  # fmt: skip


PAIR = ("Black billed Cuckoo", "Yellow billed Cuckoo")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("all", "looks"), default="all")
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "birds")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--only", nargs="*", choices=ARMS, help="these arms alone")
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS, help="of what is learned")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pictures = Pictures(options.cache)
    if options.what == "all":
        measure(pictures, options.out, options.only, options.seeds)
    else:
        looks(pictures, LOOKS if options.out == RESULT else options.out)


if __name__ == "__main__":
    main()
