"""Regions that answer words, and two ways to look while telling: chapter 16's longer runs.

    python -m benchmarks.words
    python -m benchmarks.words align

train on MNIST's digits, judge on held-out ones, and write `book/results/words.json` and
`alignment.json` after each network; what is there already is not trained again.

- the first: the teller with soft attention over a fixed grid, with a window for each word, and with
  the same network whose window always shows all: the control;
- the second: Karpathy and Fei-Fei's alignment; once with the sentences that belong to the pictures,
  once with every picture given another one's sentence, for all of the training: the control.

IoU is that of the place that is chosen for a word with the thing that the word names or colours.
"""

import argparse
import json
import platform
import time

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.house_numbers import png
from benchmarks.sampling import ROOT, commit, device_name
from stn_tutorial.data import COLOURS, KINDS, WORDS, hold_out, load_digits, told_scenes
from stn_tutorial.models import Aligner, Teller, attention_box, count_parameters, ranking_loss
from stn_tutorial.regions import box_iou, theta_box

RESULTS = {task: ROOT / "book" / "results" / name for task, name in
           (("tell", "words.json"), ("align", "alignment.json"))}  # fmt: skip
SCENES, JUDGED, BATCH = 4000, 400, 32
SHOWN = 3
STEPS = {"align": 400, "tell": 1200}
RATE = 4e-3
MEANT = {"colour": tuple(COLOURS), "kind": KINDS}


def trained(net, loss_of, count, steps, seed):
    """Train with AdamW and a rate that rises once and falls; return the processor's seconds."""
    g = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    start = time.process_time()
    for _ in range(steps):
        loss = loss_of(torch.randint(count, (BATCH,), generator=g))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    net.eval()
    return round(time.process_time() - start, 1)


def is_kind_of_word(words, kind):
    numbers = torch.tensor([WORDS.index(word) for word in MEANT[kind]])
    return torch.isin(words, numbers)


def overlaps(chosen, scenes):
    """IoU of each word's place, (N, T, 4), with the thing it is about; NaN for other words."""
    n, t = scenes.about.shape
    truth = scenes.boxes.gather(1, scenes.about.clamp(min=0)[..., None].expand(-1, -1, 4))
    found = box_iou(chosen.flatten(0, 1), truth.flatten(0, 1)).diagonal().reshape(n, t)
    return torch.where(scenes.about >= 0, found, torch.nan)


def by_kind(values, words):
    return {kind: round(values[is_kind_of_word(words, kind)].mean().item(), 4) for kind in MEANT}


def align(variant, seed, train, judged):
    torch.manual_seed(seed)
    net = Aligner(len(WORDS))
    words = train.words
    if variant == "another's sentence":
        words = words.roll(1, 0)
    seconds = trained(
        net, lambda c: ranking_loss(net(train.images[c], words[c])), len(words),
        STEPS["align"], seed,
    )  # fmt: skip
    with torch.no_grad():
        boxes = net.boxes(judged.images.shape[2:])
        own = net.answers(judged.images, judged.words)
        scores = net(judged.images[:100], judged.words[:100])
        best = box_iou(judged.boxes.flatten(0, 1), boxes).max(dim=1).values.mean()
        mean = box_iou(judged.boxes.flatten(0, 1), boxes).mean()
    return {
        "iou": by_kind(overlaps(boxes[own], judged), judged.words),
        "iou_best_region": round(best.item(), 4),
        "iou_any_region": round(mean.item(), 4),
        "own_sentence_first": round(
            (scores.argmax(dim=1) == torch.arange(len(scores))).float().mean().item(), 4
        ),
        "of_sentences": len(scores),
        "parameters": count_parameters(net),
        "seconds": seconds,
    }


def tell(variant, seed, train, judged):
    torch.manual_seed(seed)
    net = Teller(len(WORDS), variant)

    def loss(c):
        scores, _ = net(train.images[c], train.words[c])
        return F.cross_entropy(scores.flatten(0, 1), train.words[c].flatten())

    seconds = trained(net, loss, len(train.words), STEPS["tell"], seed)
    with torch.no_grad():
        scores, looks = net(judged.images, judged.words)
    size = judged.images.shape[2:]
    flat = looks.flatten(0, 1)
    places = attention_box(flat, size) if variant == "grid" else theta_box(flat, size)
    places = places.unflatten(0, judged.words.shape)
    right = (scores.argmax(dim=-1) == judged.words).float()
    shown = looks[:SHOWN] if variant == "grid" else places[:SHOWN]
    return {
        "word_accuracy": by_kind(right, judged.words),
        "iou": by_kind(overlaps(places, judged), judged.words),
        "said": [[WORDS[w] for w in one] for one in scores[:SHOWN].argmax(dim=-1).tolist()],
        "shown": [
            [[round(x, 3) for x in look.flatten().tolist()] for look in one] for one in shown
        ],
        "parameters": count_parameters(net),
        "seconds": seconds,
    }


JOBS = [
    ("tell", "window", tell),
    ("tell", "grid", tell),
    ("tell", "still", tell),
    ("align", "its own sentence", align),
    ("align", "another's sentence", align),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("task", nargs="?", choices=tuple(RESULTS), default="tell")
    options = parser.parse_args()
    path = RESULTS[options.task]
    torch.set_num_threads(1)
    train, held = hold_out(load_digits("train", "mnist"))
    scenes, judged = told_scenes(train, SCENES, seed=1), told_scenes(held, JUDGED, seed=2)
    found = {"rows": []}
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
    for seed in options.seeds:
        for task, variant, run in JOBS:
            if task != options.task:
                continue
            key = {"task": task, "variant": variant, "seed": seed, "steps": STEPS[task]}
            if any(key.items() <= row.items() for row in found["rows"]):
                continue
            row = key | run(variant, seed, scenes, judged) | {"commit": commit()}
            print({k: v for k, v in row.items() if k not in ("shown", "said")}, flush=True)
            found["rows"].append(row)
            found |= {
                "pictures": png((255 * judged.images[:SHOWN]).round().to(torch.uint8)),
                "sentences": [[WORDS[w] for w in one] for one in judged.words[:SHOWN].tolist()],
                "train_scenes": SCENES,
                "judged_scenes": JUDGED,
                "judged_seed": 2,
                "batch": BATCH,
                "rate": RATE,
                "dataset": "mnist",
                "clock": "processor seconds, the machine not idle",
                "command": "python -m benchmarks.words" + " align" * (options.task == "align"),
                "commit": commit(),
                "device": device_name(torch.device("cpu")),
                "threads": 1,
                "versions": {"python": platform.python_version(), "torch": torch.__version__},
            }
            text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
