"""The command `stn-tutorial`: train one model, fill the paper's table, look after the data.

Each command says what it is about to do, shows its progress, and may be stopped at any time.

Exit codes: 0 when all went well, 1 when a cell could not be finished, 2 when nothing could be done
(a wrong name, a full disk), 130 when it was stopped.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from tqdm import tqdm

from stn_tutorial import data, experiments
from stn_tutorial._checks import check_choice
from stn_tutorial.data import cub, svhn
from stn_tutorial.models import MODELS
from stn_tutorial.training import Execution, choose_device, processes

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help=(
        "Train the classifiers of the Spatial Transformer Networks paper (Jaderberg et al. 2015) "
        "on distorted MNIST, and put the results beside its table."
    ),
)


@contextmanager
def _in_one_line() -> Iterator[None]:
    """End a command with one line that says what is wrong and where, instead of a traceback."""
    try:
        yield
    except typer.Exit:  # which is a RuntimeError
        raise
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        typer.echo(
            f"stn-tutorial: {where}{error.strerror or error}. What was saved before is whole; "
            "mend this, and the same command goes on.",
            err=True,
        )
        raise typer.Exit(2) from error
    except experiments.FailedCellError as error:
        typer.echo(f"stn-tutorial: {error}", err=True)
        raise typer.Exit(1) from error
    except (ValueError, RuntimeError) as error:
        typer.echo(f"stn-tutorial: {error}", err=True)
        raise typer.Exit(2) from error


def _folder(name: str) -> Path:
    """Return the folder of the results, or say why it cannot be one."""
    if not name.strip():
        raise ValueError("--out names no folder: it is empty")
    out = Path(name)
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"--out must be a folder, but {place} is a file")
    return out


def _device(name: str | None) -> torch.device:
    if name is None:
        return choose_device()
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"there is no device {name!r} here ({str(error).splitlines()[0]})"
        ) from error
    return device


def _names(given: str | None, known: tuple[str, ...], what: str) -> list[str]:
    """Split `a,b` and check each name; all of them for None."""
    if given is None:
        return list(known)
    names = [name.strip() for name in given.split(",") if name.strip()]
    for name in names:
        check_choice(what, name, known)
    if not names:
        raise ValueError(f"{what} names nothing")
    return names


Recipe = Annotated[
    str, typer.Option(help="How to train: 'paper', its 150 000 steps of SGD, or 'modern'.")
]
Steps = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Training steps; the schedule is squeezed into them. By default the recipe's: 150 000 "
        "of 256 digits for 'paper'; of 128 for 'modern', 10 000 on a CPU and 120 000 on a GPU.",
    ),
]
Out = Annotated[
    str,
    typer.Option(
        metavar="FOLDER",
        help="Where results, weights and checkpoints go. Commands on one folder share the cells.",
    ),
]
Device = Annotated[
    str | None, typer.Option(help="'cuda', 'cuda:1', 'cpu', …; a GPU where there is one.")
]
Precision = Annotated[
    str,
    typer.Option(
        help="'float32'; 'auto' for mixed precision on a GPU, in bfloat16 where it has that, else "
        "in float16; 'bfloat16' or 'float16' for one of them: bfloat16 also on a CPU that is made "
        "for it, twice as fast."
    ),
]
Compile = Annotated[
    str | None,
    typer.Option(help="Compile the model: 'default' or 'reduce-overhead'. Pays off in long runs."),
]


@app.command()
def train(
    distortion: Annotated[
        str, typer.Argument(help=f"What is done to the digits: {', '.join(data.DISTORTIONS)}.")
    ],
    model: Annotated[str, typer.Argument(help=f"One of {', '.join(MODELS)}.")],
    seed: Annotated[int, typer.Option(help="Of weights, order and distortions.")] = 0,
    recipe: Recipe = "modern",
    steps: Steps = None,
    out: Out = "runs",
    device: Device = None,
    precision: Precision = "float32",
    compile: Compile = None,
) -> None:
    """Train one model on one distortion, and say its error.

    Example: stn-tutorial train R st-cnn-affine

    Stop it with Ctrl-C: it saves, and the same command goes on from there. When it has finished, it
    says the result again without training.

    On several GPUs, which then share each batch:
    torchrun --nproc-per-node 2 -m stn_tutorial.cli train R st-cnn-affine
    """
    with _in_one_line():
        check_choice("recipe", recipe, tuple(experiments.RECIPES))
        folder, where = _folder(out), _device(device)
        steps = steps or experiments.default_steps(recipe, where)
        cell = experiments.Cell(distortion, model, recipe, seed, steps, data.dataset_name())
        known = experiments.finished(cell, folder) is not None
        how = Execution(precision, channels_last=True, compile=compile)
        try:
            result = experiments.run(cell, folder, device=where, execution=how)
        except KeyboardInterrupt:
            typer.echo(f"Stopped. The same command goes on from the checkpoint in {folder}.")
            raise typer.Exit(130) from None
    if result is None:  # under torchrun, the first process tells
        return
    paper = experiments.PAPER[model].get(distortion)
    typer.echo(
        f"{distortion} {model}, {recipe} recipe, seed {seed}: "
        f"test error {result['test_error']:.2f} %, held out {result['held_out_error']:.2f} %"
        + (f"; the paper's is {paper} %" if paper and cell.dataset == "mnist" else "")
    )
    typer.echo(f"{'Finished before' if known else 'Written'}: {folder / cell.name}.json")


@app.command()
def reproduce(
    which: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="Which table: "
            + "; ".join(f"{name!r}, {e.title}" for name, e in experiments.EXPERIMENTS.items())
            + ".",
        ),
    ],
    rows: Annotated[
        str | None, typer.Option(help="Models, separated by commas; all when left out.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Columns, in Table 1 distortions, separated by commas; all when left out."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds: 0, 1, … in turn.")] = 3,
    recipe: Recipe = "modern",
    steps: Steps = None,
    out: Out = "runs",
    device: Device = None,
    precision: Precision = "float32",
    compile: Compile = None,
    on: Annotated[
        str,
        typer.Option(
            help="'here'; or 'ray', the cluster that RAY_ADDRESS names or that this machine is "
            "part of: one task a cell. Needs stn-tutorial[ray]."
        ),
    ] = "here",
    cores: Annotated[int, typer.Option(min=1, help="With --on ray: CPU cores for a cell.")] = 1,
    gpus: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="With --on ray: GPUs for a cell; 0.25 puts four on one. By default 1 where the "
            "cluster has any, else 0.",
        ),
    ] = None,
) -> None:
    """Fill a table of the paper's, cell by cell, and print it beside the paper's figures.

    Example: stn-tutorial reproduce table1 --rows cnn,st-cnn-affine --columns R --seeds 1

    Finished cells are not run again, and an interrupted one goes on: stop with Ctrl-C whenever you
    like, and give the same command to go on. OUT/TABLE.json holds the table. A cell that fails is
    reported and the others go on.

    On several GPUs, or machines with a common folder, give the same command on each, with the same
    --out: they share the cells. That is faster than torchrun, where GPUs share each batch.
    """
    with _in_one_line():
        check_choice("table", which, tuple(experiments.EXPERIMENTS))
        recipes = experiments.EXPERIMENTS[which].layout.recipes
        check_choice("recipe", recipe, tuple(recipes))
        check_choice("on", on, ("here", "ray"))
        if processes()[1] > 1:
            raise ValueError(
                "torchrun is for one cell, by the command train; of reproduce give the same "
                "command to each GPU, with the same --out: they share the cells"
            )
        experiment, folder = experiments.EXPERIMENTS[which], _folder(out)
        if on == "ray":
            if device is not None:
                raise ValueError("with --on ray, --gpus says where a cell runs, not --device")
            if gpus is None:
                gpus = min(1.0, experiments.connect().cluster_resources().get("GPU", 0.0))
            where = torch.device("cuda" if gpus else "cpu")
        else:
            where = _device(device)
        todo = experiment.cells(
            columns=_names(columns, experiment.columns, "columns"),
            rows=_names(rows, experiment.rows, "rows"),
            seeds=range(seeds),
            recipe=recipe,
            steps=steps or experiments.default_steps(recipe, where, recipes),
        )
        how = Execution(precision, channels_last=True, compile=compile)
        stopped, problems = False, {}
        try:
            if on == "ray":
                problems = experiments.reproduce_on_ray(
                    todo, folder, cores=cores, gpus=gpus or 0.0, execution=how
                )
            else:
                problems = experiments.reproduce(todo, folder, device=where, execution=how)
        except KeyboardInterrupt:
            stopped = True
        table = experiment.merge(folder)
        typer.echo("\n" + experiment.render(table))
        done = experiments.count_finished(todo, folder)
        if stopped:
            typer.echo(
                f"\nStopped: {done} of {len(todo)} cells are finished, in {folder}. "
                "The same command goes on."
            )
        elif problems:
            typer.echo(f"\n{len(problems)} of {len(todo)} cells could not be finished:")
        for title, problem in problems.items():
            typer.echo(f"{title}: {problem}")
        experiments.write_table(lambda: experiment.merge(folder), folder / f"{which}.json")
        if stopped or problems:
            raise typer.Exit(130 if stopped else 1)


@app.command("data")
def data_command(
    which: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="'digits'; 'svhn' for SVHN's whole house numbers; 'cub' for CUB-200-2011's birds.",
        ),
    ] = "digits",
    parts: Annotated[
        str | None,
        typer.Option(help="Of svhn: train, extra, test, separated by commas; all when left out."),
    ] = None,
    side: Annotated[
        int, typer.Option(help="Of svhn: pixels along each side of a crop, 64 or 128.")
    ] = 64,
) -> None:
    """Fetch data where they are missing, check them, and say where they are.

    STN_TUTORIAL_DATA names the folder. The digits are MNIST's; STN_TUTORIAL_DATASET=digits chooses
    those that come with scikit-learn instead, which need no network.

    The house numbers are SVHN's (train 0.4 GB, test 0.3 GB, extra 2 GB), for non-commercial use
    only; they need stn-tutorial[svhn]. The birds are CUB-200-2011's (1.15 GB); their report is to
    be cited. Stop with Ctrl-C whenever you like: the same command goes on with half a file.
    """
    with _in_one_line():
        check_choice("what", which, ("digits", "svhn", "cub"))
        try:
            if which == "svhn":
                _fetch_svhn(_names(parts, tuple(svhn.ARCHIVES), "parts"), side)
            elif which == "cub":
                _fetch_cub()
            else:
                _fetch_digits()
        except KeyboardInterrupt:
            typer.echo("Stopped. What has come is kept; the same command goes on from there.")
            raise typer.Exit(130) from None
    typer.echo("All is there, and as it should be.")


def _fetch_digits() -> None:
    if data.dataset_name() == "mnist":
        typer.echo(f"MNIST's folder: {data.data_folder()}")
    for split in ("train", "test"):
        data.load_digits(split)


def _bar(total: int, unit: str) -> tqdm:
    return tqdm(total=total, unit=unit, unit_scale=True, file=sys.stdout, leave=False)


def _show(bar: tqdm, have: int, _: int = 0) -> None:
    bar.update(have - bar.n)


def _fetch_svhn(parts: list[str], side: int) -> None:
    """Fetch and prepare those parts that are not prepared yet."""
    if side not in (64, 128):
        raise ValueError(f"--side must be 64 or 128, but {side} was given")
    svhn.check_reader()
    typer.echo(svhn.TERMS)
    for part in parts:
        archive = svhn.ARCHIVES[part]
        if svhn.is_prepared(part, side):
            typer.echo(f"{part}: prepared before, {side} pixels a side")
            continue
        typer.echo(f"{part}: {archive.size / 1e6:,.0f} MB, {archive.numbers:,d} pictures")
        with _bar(archive.size, "B") as bar:
            path = svhn.fetch(part, on_bytes=partial(_show, bar))
        with _bar(archive.numbers, "crop") as bar:
            count = svhn.prepare(part, path, side, on_number=partial(_show, bar))
        typer.echo(
            f"{part}: {count['written']:,d} numbers cropped to {side}×{side}; "
            f"{count['too long']} of more than {data.POSITIONS} digits left out. "
            f"{path} is not needed any more."
        )


def _fetch_cub() -> None:
    """Fetch and prepare the birds, unless they are prepared."""
    typer.echo(cub.TERMS)
    if cub.is_prepared():
        typer.echo("prepared before")
        return
    typer.echo(f"{cub.CUB.size / 1e6:,.0f} MB, {cub.CUB.birds:,d} pictures")
    with _bar(cub.CUB.size, "B") as bar:
        path = cub.fetch(on_bytes=partial(_show, bar))
    with _bar(cub.CUB.birds, "bird") as bar:
        count = cub.prepare(path, on_bird=partial(_show, bar))
    typer.echo(f"{count:,d} birds, shrunk. {path} is not needed any more.")


if __name__ == "__main__":
    app()
