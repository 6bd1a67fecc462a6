"""The package inside a compiled or exported model: sizes that change, no graph break.

`torch.compile`, `torch.export`, `torch.jit.trace`, and ONNX by way of the last. The compiler's
backend is the one that runs what was captured as it stands: making code of it is PyTorch's affair.
"""

import io
import re

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from stn_tutorial import affine, grids, pooling
from stn_tutorial.sampling import MODES, PADDINGS, sample, sample_bilinear
from stn_tutorial.transformer import (
    Affine,
    PiecewiseAffine,
    Projective,
    SpatialTransformer,
    ThinPlateSpline,
)

# Batches and pictures, (N, H, W); the first is the example that a model is exported with.
SIZES = [(4, 9, 7), (2, 8, 11), (3, 13, 6), (5, 7, 12)]
rand = torch.rand


def turned(n):
    return affine.rotation(torch.linspace(10, 50, n))


# What is called, with what: functions of the picture's own tensors, of N, H and W.
CASES = {
    "sample": (
        lambda U, theta: sample(U, grids.affine_grid(theta, U.shape[2:])),
        lambda n, h, w: (rand(n, 2, h, w), turned(n)),
    ),
    "sample, nearest": (
        lambda U, grid: sample(U, grid, "nearest", "border", align_corners=True),
        lambda n, h, w: (rand(n, 2, h, w), rand(n, w, h, 2) * 2 - 1),
    ),
    "sample, bicubic": (
        lambda U, grid: sample(U, grid, "bicubic", "reflection"),
        lambda n, h, w: (rand(n, 2, h, w), rand(n, w, h, 2) * 2 - 1),
    ),
    "sample_bilinear": (
        sample_bilinear,
        lambda n, h, w: (rand(n, 2, h, w), rand(n, w, h, 2) * 2 - 1),
    ),
    "constructors": (
        lambda a, b: (
            affine.compose(affine.rotation(a), affine.scaling(1 + a, 2.0), affine.shear(b)),
            affine.compose(affine.translation(a, 0.5), affine.reflection(b), affine.identity()),
        ),
        lambda n, h, w: (rand(n), rand(n)),
    ),
    "crop": (affine.crop, lambda n, h, w: (rand(n, 4),)),
    "transform_points": (
        lambda theta, own, shared: (
            affine.transform_points(theta, own),
            affine.transform_points(theta, shared),
            affine.area_factor(theta),
        ),
        lambda n, h, w: (turned(n), rand(n, h, 2), rand(w, 2)),
    ),
    "pixels": (
        lambda theta, U: (
            affine.to_pixels(theta, U.shape[2:], (5, 6)),
            affine.from_pixels(theta, (5, 6), U.shape[2:]),
            affine.correct_aspect(theta, U.shape[2:]),
        ),
        lambda n, h, w: (turned(n), rand(n, 1, h, w)),
    ),
    "positions": (
        lambda points, U: (
            grids.normalised_to_pixel(points, U.shape[2:]),
            grids.pixel_to_normalised(points, U.shape[2:], align_corners=True),
        ),
        lambda n, h, w: (rand(n, h, 2), rand(n, 1, h, w)),
    ),
    "grids": (
        lambda theta, square, solid, U: (
            grids.regular_grid(U.shape[2:]),
            grids.affine_grid(theta, U.shape[2:], align_corners=True),
            grids.projective_grid(square, U.shape[2:]),
            grids.affine_grid_3d(solid, (3, *U.shape[2:])),
        ),
        lambda n, h, w: (turned(n), rand(n, 3, 3), rand(n, 3, 4), rand(n, 1, h, w)),
    ),
    "piecewise affine": (
        lambda theta, U: grids.piecewise_affine_grid(theta, U.shape[2:]),
        lambda n, h, w: (rand(n, 16, 2), rand(n, 1, h, w)),
    ),
    "spline": (
        lambda theta, U: grids.thin_plate_spline_grid(theta, U.shape[2:]),
        lambda n, h, w: (rand(n, 16, 2), rand(n, 1, h, w)),
    ),
    "pooling": (
        lambda x: (
            pooling.MaxBlurPool()(x),
            pooling.MaxBlurPool(3, 2, 5, "circular")(x),
            pooling.blur(x, 5, "circular", stride=2),
            pooling.shift(x, 2, -1),
        ),
        lambda n, h, w: (rand(n, 2, h, w),),
    ),
}
each_case = pytest.mark.parametrize("name", CASES)


class Called(nn.Module):
    """A model that is one call."""

    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, *inputs):
        return self.call(*inputs)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    # A graph for each size would pass as long as sizes are few.
    config = torch._dynamo.config
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    with config.patch({limit: 3}):
        yield


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@each_case
def test_compiles_with_sizes_that_change(name):
    call, inputs = CASES[name]
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="eager")
    for size in SIZES:
        given = inputs(*size)
        close(compiled(*given), call(*given))


@pytest.mark.parametrize("grid", [grids.piecewise_affine_grid, grids.thin_plate_spline_grid])
def test_compiles_when_the_points_change(grid):
    compiled = torch.compile(grid, fullgraph=True, dynamic=True, backend="eager")
    for k in (2, 4, 3):
        theta = grids.control_points(k) + 0.1 * rand(k, k * k, 2)
        close(compiled(theta, (5, 7)), grid(theta, (5, 7)))


@each_case
def test_exports_with_sizes_that_change(name):
    call, inputs = CASES[name]
    N, H, W = SIZES[0]
    # Bounded: torch 2.6 takes any slice of an axis that is not for a claim about its size.
    symbols = {
        N: torch.export.Dim("N", min=2, max=99),
        H: torch.export.Dim("H", min=4, max=99),
        W: torch.export.Dim("W", min=4, max=99),
    }
    given = inputs(N, H, W)
    # N stands first, and is a side of θ elsewhere; H and W may stand anywhere.
    spec = tuple(
        {
            axis: symbols[side]
            for axis, side in enumerate(tensor.shape)
            if side in symbols and (axis == 0 or side != N)
        }
        for tensor in given
    )
    program = torch.export.export(Called(call), given, dynamic_shapes=(spec,))
    for size in SIZES:
        given = inputs(*size)
        close(program.module()(*given), call(*given))


# --- What older exporters do: `torch.jit.trace`, and ONNX by way of it ---

legacy = pytest.mark.filterwarnings(
    # What PyTorch 2.9 and later say of their own tracer, and of the exporter that goes by it.
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:Constant folding:UserWarning",
    "ignore:.*results are registered as constants in the trace:torch.jit.TracerWarning",
)


def onnx_of(model, given, names, dynamic):
    """The model by way of ONNX: a function of the same inputs."""
    file = io.BytesIO()
    torch.onnx.export(
        model.eval(), given, file, input_names=names, dynamic_axes=dynamic, opset_version=16,
        dynamo=False,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    return lambda *inputs: torch.from_numpy(
        session.run(None, dict(zip(names, map(np.asarray, inputs), strict=True)))[0]
    )


@legacy
@pytest.mark.parametrize(("mode", "padding"), list(zip(MODES, PADDINGS, strict=True)))
def test_sample_is_traced_and_exported_to_onnx(mode, padding):
    """Without a warning of ours: sizes are not looked at. They may all change afterwards."""

    def call(U, theta):
        return sample(U, grids.affine_grid(theta, U.shape[2:]), mode, padding)

    inputs = lambda n, h, w: (rand(n, 2, h, w), turned(n))  # noqa: E731
    given = inputs(*SIZES[0])
    dynamic = {"U": {0: "N", 2: "H", 3: "W"}, "theta": {0: "N"}}
    traced = torch.jit.trace(Called(call), given, check_trace=False)
    exported = onnx_of(Called(call), given, ["U", "theta"], dynamic)
    for size in SIZES:
        given = inputs(*size)
        close(traced(*given), call(*given))
        close(exported(*given), call(*given))


@legacy
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python:torch.jit.TracerWarning")
@pytest.mark.parametrize("size", [None, (5, 6)], ids=str)
@pytest.mark.parametrize(
    "transform", [Affine(), Projective(), PiecewiseAffine(3), ThinPlateSpline(3)], ids=repr
)
def test_transformer_is_traced_and_exported_to_onnx(transform, size):
    model = SpatialTransformer(
        nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), 8, transform, size=size
    ).eval()
    nn.init.normal_(model.regression.weight, std=0.1)
    traced = torch.jit.trace(model, rand(4, 2, 12, 12), check_trace=False)
    exported = onnx_of(model, (rand(4, 2, 12, 12),), ["U"], {"U": {0: "N"}})
    for n in (4, 1, 3):
        U = rand(n, 2, 12, 12)
        with torch.no_grad():
            close(traced(U), model(U))
            close(exported(U), model(U))
    U = rand(2, 2, 9, 14)
    with torch.no_grad():
        close(traced(U), model(U))


# --- Functional transforms, and numbers of NumPy's ---


def test_functional_gradient_by_hand():
    """`torch.func.grad` takes the hand-written Function; `vmap`, over pictures, takes `sample`."""
    U, grid = rand(2, 1, 4, 5), rand(2, 3, 3, 2) * 2 - 1
    found, expected = (
        torch.func.grad(lambda U, grid, read=read: read(U, grid).square().sum(), argnums=(0, 1))(
            U, grid
        )
        for read in (sample_bilinear, sample)
    )
    close(found, expected)
    alone = torch.vmap(lambda U, grid: sample(U[None], grid[None])[0])(U, grid)
    close(alone, sample(U, grid))


@pytest.mark.parametrize("number", [np.int64, np.int32, np.uint8])
def test_numpys_whole_numbers_are_whole_numbers(number):
    size = (number(3), number(4))
    theta = turned(2)
    assert torch.equal(grids.affine_grid(theta, size), grids.affine_grid(theta, (3, 4)))
    assert grids.control_points(number(3)).shape == (9, 2)
    assert affine.identity(number(2)).shape == (2, 2, 3)
    assert pooling.binomial(number(3)) == [0.25, 0.5, 0.25]
    x = rand(1, 1, 8, 8)
    assert torch.equal(pooling.blur(x, number(3), stride=number(2)), pooling.blur(x, 3, stride=2))
    pool = pooling.MaxBlurPool(number(2), number(2), number(3))
    assert torch.equal(pool(x), pooling.MaxBlurPool()(x))
    assert repr(pool) == repr(pooling.MaxBlurPool())
    model = SpatialTransformer(nn.Flatten(), 64, ThinPlateSpline(number(3)), size=size)
    assert model(x).shape == (1, 1, 3, 4)
    # True is no size, nor is a number with a point, NumPy's neither.
    for bad in (np.float64(3), np.bool_(True), True, 3.0):
        with pytest.raises(ValueError, match=re.escape("size must be (height, width)")):
            grids.affine_grid(theta, (4, bad))
        with pytest.raises(ValueError, match="k must be a whole number, 2 or more"):
            grids.control_points(bad)
