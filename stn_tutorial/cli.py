"""The command `stn-tutorial`: train one model, fill the paper's table, look after the data.

Each command says what it is about to do, shows its progress, and may be stopped at any time.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

from stn_tutorial import data, experiments
from stn_tutorial._checks import check_choice
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


def _fail(message: object) -> typer.Exit:
    typer.echo(f"stn-tutorial: {message}", err=True)
    return typer.Exit(2)


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


def _names(given: str, known: tuple[str, ...], what: str) -> list[str]:
    """Split `a,b` and check each name."""
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
Out = Annotated[Path, typer.Option(help="Folder for results, weights and checkpoints.")]
Device = Annotated[
    str | None, typer.Option(help="'cuda', 'cuda:1', 'cpu', …; a GPU where there is one.")
]
Precision = Annotated[
    str,
    typer.Option(
        help="'float32'; 'auto' for mixed precision on a GPU; 'bfloat16' for it on any device: on "
        "a CPU that is made for it, twice as fast."
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
    out: Out = Path("runs"),
    device: Device = None,
    precision: Precision = "float32",
    compile: Compile = None,
) -> None:
    """Train one model on one distortion, and say its error.

    Example: stn-tutorial train R st-cnn-affine

    Stop it with Ctrl-C; the same command goes on from the last checkpoint. When it has finished, it
    says the result again without training.

    On several GPUs, which then share each batch:
    torchrun --nproc-per-node 2 -m stn_tutorial.cli train R st-cnn-affine
    """
    try:
        check_choice("recipe", recipe, tuple(experiments.RECIPES))
        where = _device(device)
        steps = steps or experiments.default_steps(recipe, where)
        cell = experiments.Cell(distortion, model, recipe, seed, steps, data.dataset_name())
        known = experiments.finished(cell, out) is not None
        how = Execution(precision, channels_last=True, compile=compile)
        result = experiments.run(cell, out, device=where, execution=how)
    except KeyboardInterrupt:
        typer.echo(f"\nStopped. The same command goes on from the last checkpoint in {out}.")
        raise typer.Exit(130) from None
    except (ValueError, RuntimeError, FloatingPointError) as error:
        raise _fail(error) from error
    if result is None:  # under torchrun, the first process tells
        return
    paper = experiments.PAPER[model].get(distortion)
    typer.echo(
        f"{distortion} {model}, {recipe} recipe, seed {seed}: "
        f"test error {result['test_error']:.2f} %, held out {result['held_out_error']:.2f} %"
        + (f"; the paper's is {paper} %" if paper and cell.dataset == "mnist" else "")
    )
    typer.echo(f"{'Finished before' if known else 'Written'}: {out / cell.name}.json")


@app.command()
def reproduce(
    which: Annotated[str, typer.Argument(metavar="TABLE", help="Which table: 'table1'.")],
    rows: Annotated[str, typer.Option(help="Models, separated by commas.")] = ",".join(MODELS),
    columns: Annotated[str, typer.Option(help="Distortions, separated by commas.")] = ",".join(
        data.DISTORTIONS
    ),
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds: 0, 1, … in turn.")] = 3,
    recipe: Recipe = "modern",
    steps: Steps = None,
    out: Out = Path("runs"),
    device: Device = None,
    precision: Precision = "float32",
    compile: Compile = None,
) -> None:
    """Fill the paper's Table 1, cell by cell, and print it beside the paper's figures.

    Example: stn-tutorial reproduce table1 --rows cnn,st-cnn-affine --columns R --seeds 1

    Finished cells are not run again, and an interrupted one goes on: stop with Ctrl-C whenever you
    like, and give the same command to go on. OUT/table1.json holds the table.

    On several GPUs, give each its own rows or columns and all the same --out: that is faster than
    torchrun, where they share each batch.
    """
    out_table = out / "table1.json"
    todo: list[experiments.Cell] = []
    try:
        check_choice("table", which, ("table1",))
        check_choice("recipe", recipe, tuple(experiments.RECIPES))
        where = _device(device)
        todo = experiments.cells(
            columns=_names(columns, tuple(data.DISTORTIONS), "columns"),
            rows=_names(rows, MODELS, "rows"),
            seeds=range(seeds),
            recipe=recipe,
            steps=steps or experiments.default_steps(recipe, where),
        )
        how = Execution(precision, channels_last=True, compile=compile)
        experiments.reproduce(todo, out, device=where, execution=how)
        if processes()[0] > 0:
            return
        table = experiments.merge(out, out_table)
    except KeyboardInterrupt:
        done = sum(experiments.finished(cell, out) is not None for cell in todo)
        experiments.merge(out, out_table)
        typer.echo(
            f"\nStopped: {done} of {len(todo)} cells are finished, in {out}. "
            "The same command goes on."
        )
        raise typer.Exit(130) from None
    except (ValueError, RuntimeError, FloatingPointError) as error:
        raise _fail(error) from error
    typer.echo("\n" + experiments.render(table))


@app.command("data")
def data_command() -> None:
    """Fetch MNIST where it is missing, check it, and say where it is.

    STN_TUTORIAL_DATA names the folder; STN_TUTORIAL_DATASET=digits chooses the digits that come
    with scikit-learn instead, which need no network.
    """
    try:
        if data.dataset_name() == "mnist":
            typer.echo(f"MNIST's folder: {data.data_folder()}")
        for split in ("train", "test"):
            data.load_digits(split)
    except (ValueError, RuntimeError) as error:
        raise _fail(error) from error
    typer.echo("All is there, and as it should be.")


if __name__ == "__main__":
    app()
