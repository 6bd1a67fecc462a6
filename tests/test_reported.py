"""What users of samplers have asked and reported in public, each with the right value.

One test for each report that concerns what this package does; a comment names it by tracker and
number. The values were measured, with others' code where it is right.
"""

import math

import pytest
import torch
from test_compiled import legacy, onnx_of
from torch import nn
from torch.autograd import gradgradcheck
from torch.nn import functional as F
from torchvision.ops import roi_align

from stn_tutorial import affine, grids
from stn_tutorial.sampling import sample
from stn_tutorial.transformer import Affine, SpatialTransformer, ThinPlateSpline

F64 = torch.float64


def ramp(*shape):
    """0, 1, 2, … row by row, as (1, 1, H, W)."""
    return torch.arange(math.prod(shape), dtype=F64).reshape(1, 1, *shape)


def at(*points):
    """The grid of one row that reads these normalised positions (x, y)."""
    return torch.tensor(points, dtype=F64)[None, None]


def flat(V):
    return V.flatten().tolist()


def look(transform=None, *, bias=None, side=12, **options):
    """A transformer of pictures with one channel; its θ is the identity moved by `bias`."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(side * side, 8), nn.Tanh())
    module = SpatialTransformer(net, 8, transform, **options)
    if bias is not None:
        module.regression.bias.data.copy_(torch.tensor(bias))
    return module


# pytorch#15386
def test_far_below_a_picture_of_one_row():
    U = torch.tensor([[[[1.0, 2.0]]]], dtype=F64)
    assert flat(sample(U, at((0, 30)))) == [0]
    # With corners aligned a side of one pixel has no length: wherever it is read, it is met.
    assert flat(sample(U, at((0, 30)), align_corners=True)) == [1.5]


# pytorch#40153
def test_pixel_centres_are_half_a_pixel_inside():
    U, i = ramp(1, 10), torch.arange(10, dtype=F64)
    edges, centres = (torch.stack([x, 0 * x], -1)[None, None] for x in (
        2 * i / 10 - 1, (2 * i + 1) / 10 - 1
    ))  # fmt: skip
    assert flat(sample(U, edges)) == pytest.approx([0, *(k - 0.5 for k in range(1, 10))])
    assert flat(sample(U, centres)) == pytest.approx(list(range(10)))


# kornia PR 4073, pytorch#125098
def test_border_is_no_clamp_to_one():
    U = ramp(4, 4) + 1
    assert flat(sample(U, at((-1, -1)))) == [0.25]
    assert flat(sample(U, at((-1, -1), (-5, -5)), padding="border")) == [1, 1]
    assert flat(sample(U, at((-3, -3)).clamp(-0.75, 0.75))) == [1]


# kornia#862
def test_a_grid_of_one_convention_read_with_the_other():
    U = torch.ones(1, 1, 4, 4, dtype=F64)
    grid = grids.regular_grid((4, 4), align_corners=True, dtype=F64)[None]
    expected = U.clone()
    expected[..., -1, :] = expected[..., -1] = 0
    assert torch.equal(sample(U, grid, "nearest"), expected)
    assert torch.equal(sample(U, grid, "nearest", align_corners=True), U)


# pytorch PR 97000
def test_halves_round_to_even():
    assert flat(sample(ramp(2, 4), at((-0.5, -0.5), (0.5, -0.5)), "nearest")) == [0, 2]


# kornia#4235
@pytest.mark.parametrize("grid", [grids.thin_plate_spline_grid, grids.piecewise_affine_grid])
def test_a_warp_that_moves_nothing_is_the_identity(grid):
    U = torch.rand(1, 2, 9, 13)
    assert torch.equal(sample(U, grid(grids.control_points(4)[None], (9, 13))), U)


# kornia PR 4006
@pytest.mark.parametrize("align_corners", [False, True])
def test_a_side_of_one_pixel_stands_at_zero(align_corners):
    grid = grids.regular_grid((1, 5), align_corners=align_corners)
    assert not grid[..., 1].any()
    point = grids.pixel_to_normalised(torch.zeros(1, 2), (1, 1), align_corners=align_corners)
    assert point.tolist() == [[0, 0]]


# kornia#3459
def test_a_splines_points_are_normalised():
    size = (32, 32)
    U = torch.rand(1, 1, *size, dtype=F64) + 0.1
    points = grids.control_points(4, dtype=F64)
    pixels = grids.normalised_to_pixel(points, size)
    astray = sample(U, grids.thin_plate_spline_grid(pixels[None], size))
    assert (astray == 0).double().mean() > 0.95
    right = grids.pixel_to_normalised(pixels, size)[None]
    torch.testing.assert_close(sample(U, grids.thin_plate_spline_grid(right, size)), U)


# kornia PR 3650
def test_a_quadrilateral_needs_all_of_a_homography():
    corners = torch.tensor([[-0.8, -0.6], [0.9, -0.9], [-0.3, 0.3], [0.9, 0.8]], dtype=F64)
    own = grids.control_points(2, dtype=F64)
    rows, right = [], []
    for (x, y), (u, v) in zip(own.tolist(), corners.tolist(), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    eight = torch.linalg.solve(torch.tensor(rows, dtype=F64), torch.tensor(right, dtype=F64))
    theta = torch.cat([eight, torch.ones(1, dtype=F64)]).reshape(1, 3, 3)
    found = grids.projective_grid(theta, (2, 2), align_corners=True).reshape(4, 2)
    torch.testing.assert_close(found, corners)
    affinely = grids.affine_grid(theta[:, :2], (2, 2), align_corners=True).reshape(4, 2)
    assert (affinely - corners).abs().max() > 0.1


# MONAI PR 8690
@pytest.mark.parametrize("align_corners", [False, True])
def test_the_identity_is_exact_under_both_conventions(align_corners):
    U = torch.rand(1, 1, 7, 10)
    grid = grids.affine_grid(affine.identity(), (7, 10), align_corners=align_corners)
    assert torch.equal(sample(U, grid, align_corners=align_corners), U)
    assert not torch.allclose(sample(U, grid, align_corners=not align_corners), U, atol=0.01)


def boxed(U, box, out, padding="zeros"):
    """The box (left, top, right, bottom), in pixels from the picture's upper left corner."""
    H, W = U.shape[2:]
    left, top, right, bottom = box
    edges = [2 * left / W - 1, 2 * top / H - 1, 2 * right / W - 1, 2 * bottom / H - 1]
    return sample(U, grids.affine_grid(affine.crop(edges, dtype=U.dtype), out), padding=padding)


def aligned(U, box, out, ratio=1, *, right=True):
    boxes = torch.tensor([[0, *box]], dtype=U.dtype)
    return roi_align(U, boxes, out, sampling_ratio=ratio, aligned=right)


# tensorflow#26278
def test_a_box_of_four_pixels_enlarged():
    V = boxed(ramp(5, 5), (1, 1, 3, 3), (4, 4))
    assert flat(V[0, 0, 0]) == pytest.approx([4.5, 5, 5.5, 6], abs=1e-12)
    torch.testing.assert_close(V, aligned(ramp(5, 5), (1, 1, 3, 3), (4, 4)))


# onnx#3428
def test_a_box_is_off_by_half_a_pixel_where_pixels_have_no_extent():
    U = 10 * torch.arange(6, dtype=F64)[:, None] + torch.arange(6)
    U = U[None, None]
    V = boxed(U, (1, 1, 3, 3), (4, 4))
    assert V[0, 0, 0, 0].item() == pytest.approx(8.25, abs=1e-12)
    torch.testing.assert_close(V, aligned(U, (1, 1, 3, 3), (4, 4)))
    shifted = aligned(U, (1, 1, 3, 3), (4, 4), right=False)
    torch.testing.assert_close(shifted, V + 5.5)
    assert shifted[0, 0, 0, 0].item() == pytest.approx(13.75)


# faster-rcnn.pytorch#807
def test_roi_align_is_a_crop_and_a_mean():
    U, box = ramp(5, 5), (0, 0, 2, 2)
    V = F.avg_pool2d(boxed(U, box, (4, 4), "border"), 2)
    assert flat(V) == pytest.approx([0.75, 1.625, 5.125, 6], abs=1e-12)
    torch.testing.assert_close(V, aligned(U, box, (2, 2), 2))
    assert flat(aligned(U, box, (2, 2), 2, right=False)) == pytest.approx([3, 4, 8, 9])


# vision PR 9629
def test_a_box_that_is_not_a_number_reads_nothing():
    assert flat(boxed(ramp(5, 5) + 1, (math.nan,) * 4, (2, 2))) == [0] * 4
    assert boxed(ramp(5, 5), (1, 1, math.inf, 3), (2, 2)).isfinite().all()


# pytorch#94733
def test_a_half_precision_picture_and_a_float_grid():
    U, grid = torch.rand(1, 1, 8, 8).half(), grids.affine_grid(affine.rotation(20), (8, 8))
    with pytest.raises(RuntimeError, match="Half"):
        F.grid_sample(U, grid, align_corners=False)
    assert torch.equal(sample(U, grid), sample(U.float(), grid).half())


# Not reported: PyTorch's sampler on a CPU, in half precision, beyond 32 767 pixels in a plane.
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_pictures_in_half_precision(dtype):
    U = torch.rand(1, 1, 192, 192).to(dtype)
    bias = [-0.1, -0.2, 0.05, 0.2, -0.1, 0.0]
    module = look(bias=bias, side=192)
    expected = module(U.float())
    V = module.to(dtype)(U)
    theta = affine.identity() + torch.tensor(bias).reshape(1, 2, 3)
    ours = sample(U.float(), grids.affine_grid(theta, (192, 192)))
    torch.testing.assert_close(expected, ours, rtol=0, atol=1e-4)
    # θ's own numbers are rounded to the dtype too: of 192 pixels that is up to half a pixel.
    smooth = F.avg_pool2d(V.float() - expected, 32).abs().max()
    assert V.isfinite().all()
    assert V.max() <= 1
    assert smooth < 0.1


# pytorch#34704
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_second_derivatives(mode):
    U = torch.rand(1, 1, 4, 5, dtype=F64, requires_grad=True)
    pixels = torch.randint(0, 4, (1, 3, 2, 2)) + 0.2 + 0.6 * torch.rand(1, 3, 2, 2, dtype=F64)
    grid = grids.pixel_to_normalised(pixels, (4, 5)).requires_grad_()
    assert gradgradcheck(lambda U, grid: sample(U, grid, mode), (U, grid))


# jax#14819
def test_zeros_begin_at_the_last_centre_and_fade_in():
    point = grids.pixel_to_normalised(torch.full((1, 1, 1, 2), 7.01, dtype=F64), (8, 8))
    V = sample(torch.ones(1, 1, 8, 8, dtype=F64), point)
    assert V.item() == pytest.approx(0.99**2, abs=1e-12)


# NARUTO#1, hdrnet-pytorch#5
@pytest.mark.parametrize(("axis", "expected"), [(0, 7), (1, 4.5), (2, 4.5)])
def test_the_order_of_axes_in_a_volume(axis, expected):
    U = torch.arange(10, dtype=F64).expand(1, 1, 10, 10, 10)
    theta = torch.zeros(1, 3, 4, dtype=F64)
    theta[0, axis, 3] = 0.5
    grid = grids.affine_grid_3d(theta, (1, 1, 1))
    assert F.grid_sample(U, grid, align_corners=False).item() == pytest.approx(expected)


# WarpAffine2GridSample#3
def test_opencvs_matrix_when_sizes_differ():
    matrix = torch.tensor([[[1.0, 0, -2], [0, 1, -2]]], dtype=F64)
    first = lambda sizes: flat(  # noqa: E731
        sample(ramp(8, 8), grids.affine_grid(affine.from_opencv(matrix, *sizes), (4, 4)))[0, 0, 0]
    )
    assert first([(8, 8), (4, 4)]) == pytest.approx([18, 19, 20, 21])
    assert first([(8, 8), (8, 8)])[:2] == pytest.approx([22.5, 24.5])


# keras#478
def test_a_one_beside_the_diagonal_is_a_shear():
    theta = affine.identity()
    theta[0, 0, 1] = 1
    assert torch.equal(theta, affine.shear(-1.0))
    assert affine.decompose(theta).shear.item() == -1


# kevinzakka/spatial-transformer-network#3
def test_what_is_seen_is_what_the_network_gets():
    module = look(side=12)
    network = nn.Sequential(module, nn.Flatten(), nn.Linear(144, 3))
    U = torch.rand(2, 1, 12, 12)
    before = network(U)
    network(U).sum().backward()
    assert module.regression.bias.grad.abs().min() > 0
    with torch.no_grad():
        module.regression.bias[2] += 0.5
        assert not torch.allclose(network(U), before)


# kevinzakka/spatial-transformer-network#6
def test_a_batch_of_one_keeps_its_axis():
    V, theta = look(size=(5, 6))(torch.rand(1, 1, 12, 12), return_theta=True)
    assert (V.shape, theta.shape) == ((1, 1, 5, 6), (1, 2, 3))


# crnn#38
@pytest.mark.parametrize("transform", [ThinPlateSpline(4), Affine()], ids=repr)
def test_the_identity_is_a_start_from_which_to_learn(transform):
    """The last layer's weights have a gradient at once, the layers before it from the next step."""
    module = look(transform)
    U = torch.rand(4, 1, 12, 12)
    step = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(2):
        step.zero_grad()
        (module(U) - U.roll(1, -1)).square().mean().backward()
        seen = [p.grad.abs().max().item() for p in module.parameters()]
        step.step()
        assert seen[-1] > 0
        assert seen[-2] > 0
    assert min(seen) > 0


# coremltools#2068, TensorRT#3674
@legacy
@pytest.mark.filterwarnings("ignore:Converting a tensor to a Python:torch.jit.TracerWarning")
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_what_is_exported_gives_the_same_at_the_border(padding):
    module = look(bias=[0.5, 0.2, 0.1, -0.2, 0.6, 0.0], padding=padding).eval()
    exported = onnx_of(module, (torch.rand(2, 1, 12, 12),), ["U"], {"U": {0: "N"}})
    U = torch.rand(3, 1, 12, 12)
    with torch.no_grad():
        torch.testing.assert_close(exported(U), module(U), rtol=1e-4, atol=1e-5)
