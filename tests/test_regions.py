"""Boxes as θ, RoIPool, RoIAlign, deformable taps: beside torchvision's, and where it has none."""

import math

import cv2
import pytest
import torch
from torch.autograd import gradcheck
from torchvision import ops

from stn_tutorial import affine
from stn_tutorial.grids import affine_grid
from stn_tutorial.regions import (
    box_iou,
    box_theta,
    deformable_convolution,
    read_regions,
    roi_align,
    roi_pool,
    roi_warp,
    rotated_box_theta,
    theta_box,
)
from stn_tutorial.sampling import sample

NAN, INF = float("nan"), float("inf")
EXACT = {"rtol": 0, "atol": 1e-12}


def picture(n=3, c=4, size=(11, 17), dtype=torch.float64):
    return torch.rand(n, c, *size, dtype=dtype)


def boxes(count=40, n=3, dtype=torch.float64):
    """Boxes in, across the edge of and outside a picture of 22×34, with their picture's number."""
    corner = torch.rand(count, 2, dtype=dtype) * torch.tensor([60, 40], dtype=dtype) - 20
    side = torch.rand(count, 2, dtype=dtype) * torch.tensor([40, 30], dtype=dtype) + 0.01
    of = torch.randint(n, (count, 1)).to(dtype)
    return torch.cat([of, corner, corner + side], dim=1)


def ramp(height, width, dtype=torch.float64):
    return torch.arange(height * width, dtype=dtype).reshape(1, 1, height, width)


def box(*edges, dtype=torch.float64, **options):
    return torch.tensor([edges], dtype=dtype, **options)


# --- θ of a box ---


def test_a_box_is_a_crop():
    edges = boxes()[:, 1:]
    normalised = edges * edges.new_tensor([2 / 17, 2 / 11, 2 / 17, 2 / 11]) - 1
    torch.testing.assert_close(box_theta(edges, (11, 17)), affine.crop(normalised), **EXACT)


def test_the_whole_picture_is_the_identity_and_shows_itself():
    U = picture(1)
    theta = box_theta(box(0, 0, 17, 11), (11, 17))
    assert torch.equal(theta, affine.identity(dtype=torch.float64))
    torch.testing.assert_close(roi_warp(U, [box(0, 0, 17, 11)], (11, 17)), U, **EXACT)


def test_theta_and_back():
    edges = boxes()[:, 1:]
    torch.testing.assert_close(theta_box(box_theta(edges, (9, 5)), (9, 5)), edges, **EXACT)
    torch.testing.assert_close(
        theta_box(box_theta(edges[:, [2, 3, 0, 1]], (9, 5)), (9, 5)), edges, **EXACT
    )


def test_a_turned_box_fills_the_upright_one_around_it():
    theta = rotated_box_theta(box(6, 5, 4, 2, 45), (11, 17))
    half = 3 / math.sqrt(2)
    want = box(6 - half, 5 - half, 6 + half, 5 + half)
    torch.testing.assert_close(theta_box(theta, (11, 17)), want, **EXACT)


def test_a_box_turned_by_nothing_is_upright():
    edges = boxes()[:, 1:]
    centre, side = (edges[:, :2] + edges[:, 2:]) / 2, edges[:, 2:] - edges[:, :2]
    turned = torch.cat([centre, side, torch.zeros(len(edges), 1)], dim=1)
    torch.testing.assert_close(
        rotated_box_theta(turned, (11, 17)), box_theta(edges, (11, 17)), **EXACT
    )


@pytest.mark.parametrize("degrees", [30.0, 90.0, -120.0])
def test_a_box_turns_as_opencv_turns_a_picture(degrees):
    """OpenCV turns a picture counter-clockwise too: the box follows what it stood on."""
    y, x = torch.meshgrid(*2 * [torch.arange(64.0)], indexing="ij")
    U = torch.exp(-((x - 40) ** 2 / 60 + (y - 30) ** 2 / 20)) + 0.01 * x
    # About the middle: OpenCV's pixel (31.5, 31.5) lies at 32 from the edge.
    matrix = cv2.getRotationMatrix2D((31.5, 31.5), degrees, 1)
    turned = torch.from_numpy(cv2.warpAffine(U.numpy(), matrix, (64, 64)))
    here = torch.tensor([40.0, 30.0]) - 31.5
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    there = torch.stack([cos * here[0] + sin * here[1], -sin * here[0] + cos * here[1]]) + 32
    upright = torch.tensor([[40.5, 30.5, 12, 8, 0]])
    moved = torch.cat([there, torch.tensor([12, 8, degrees])])[None]
    want, found = (
        read_regions(V[None, None], rotated_box_theta(b, (64, 64)), torch.tensor([0]), (8, 12))
        for V, b in ((U, upright), (turned, moved))
    )
    assert (want - found).abs().max() < 0.02
    wrong = moved * torch.tensor([1, 1, 1, 1, -1])
    other = read_regions(
        turned[None, None], rotated_box_theta(wrong, (64, 64)), torch.tensor([0]), (8, 12)
    )
    assert degrees == 90 or (want - other).abs().max() > 0.1


def test_iou():
    edges = boxes()[:, 1:]
    torch.testing.assert_close(box_iou(edges, edges[:7]), ops.box_iou(edges, edges[:7]), **EXACT)
    assert torch.equal(box_iou(edges, edges).diagonal(), torch.ones(len(edges)).double())
    empty, reversed_ = box(2, 2, 2, 5), box(4, 4, 1, 1)
    for one in (empty, reversed_):
        assert box_iou(one, one) == 0
        assert box_iou(one, box(0, 0, 9, 9)) == 0
    assert box_iou(box(NAN, 0, 1, 1), box(0, 0, 1, 1)).isnan()
    assert box_iou(edges[:0], edges).shape == (0, 40)
    a, b = edges[:3].requires_grad_(), edges[:3].detach() + 1
    assert gradcheck(box_iou, (a, b))


# --- RoIAlign ---


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [1, 2, 3, 0, -1])
@pytest.mark.parametrize(("size", "scale"), [((3, 5), 0.5), ((7, 7), 0.5), ((1, 2), 0.31)])
def test_align_is_torchvisions(size, scale, ratio, aligned):
    U = picture().requires_grad_()
    every = boxes(120)
    ours = roi_align(U, every, size, scale, sampling_ratio=ratio, aligned=aligned)
    theirs = ops.roi_align(U, every, size, scale, ratio, aligned)
    torch.testing.assert_close(ours, theirs, **EXACT)
    dV = torch.rand_like(ours)
    ours, theirs = (torch.autograd.grad(V, U, dV)[0] for V in (ours, theirs))
    torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("aligned", [True, False])
def test_align_is_torchvisions_on_the_lattice(aligned):
    """Whole and half edges, out to the very last sample that still counts."""
    steps = torch.arange(-4, 24, dtype=torch.float64) / 2
    low = torch.cartesian_prod(steps, steps)
    for side in (1.0, 2.0, 5.0):
        every = torch.cat([torch.zeros(len(low), 1), low, low + side], dim=1)
        ours = roi_align(ramp(5, 9), every, (2, 2), sampling_ratio=1, aligned=aligned)
        theirs = ops.roi_align(ramp(5, 9), every, (2, 2), 1.0, 1, aligned)
        torch.testing.assert_close(ours, theirs, **EXACT)


def test_align_takes_boxes_picture_by_picture():
    U, every = picture(), boxes()
    every = every[every[:, 0].argsort()]
    parts = [every[every[:, 0] == n, 1:] for n in range(3)]
    for read in (roi_align, roi_pool, roi_warp):
        assert torch.equal(read(U, every, (2, 3)), read(U, parts, (2, 3)))
    mixed = every[torch.randperm(len(every))]
    torch.testing.assert_close(
        roi_align(U, mixed, (2, 3)), ops.roi_align(U, mixed, (2, 3), aligned=True), **EXACT
    )


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [2, -1])
def test_align_has_a_gradient_towards_the_box(ratio, aligned):
    U = picture(2, 2, (6, 7)).requires_grad_()
    inside = torch.tensor([[0.13, 1.21, 4.37, 5.03], [2.2, 0.7, 6.1, 3.3], [-1.4, -0.7, 3.9, 4.2]])
    one, two = inside.double().requires_grad_(), inside[:1].double().requires_grad_()

    def read(U, one, two):
        return roi_align(U, [one, two], (2, 3), sampling_ratio=ratio, aligned=aligned)

    assert gradcheck(read, (U, one, two))
    assert torch.autograd.grad(read(U, one, two).sum(), one)[0].abs().min() > 0
    theirs = ops.roi_align(U, [one, two], (2, 3), aligned=aligned)
    assert torch.autograd.grad(theirs.sum(), one, allow_unused=True) == (None,)


def test_turned_boxes_have_a_gradient_too():
    U = picture(1, 2, (8, 9)).requires_grad_()
    turned = torch.tensor([[4.1, 3.9, 3.3, 2.1, 33.0]]).double().requires_grad_()

    def read(U, turned):
        theta = rotated_box_theta(turned, (8, 9))
        return read_regions(U, theta, torch.tensor([0]), (2, 3), 2)

    assert gradcheck(read, (U, turned))


def test_a_region_is_a_grid_that_is_sampled():
    """With one sample inside, `read_regions` is the book's own grid and sampler."""
    U = picture(1)
    theta = box_theta(box(2.3, 1.2, 14.1, 9.8), (11, 17))
    want = sample(U, affine_grid(theta, (4, 6)), padding="border")
    torch.testing.assert_close(read_regions(U, theta, torch.tensor([0]), (4, 6)), want, **EXACT)


# tensorflow#26278, onnx#3428, faster-rcnn.pytorch#807
def test_align_gives_the_values_that_readers_asked_for():
    V = roi_align(ramp(5, 5), [box(1, 1, 3, 3)], (4, 4), sampling_ratio=1)
    assert V[0, 0, 0].tolist() == pytest.approx([4.5, 5, 5.5, 6])
    U = (10 * torch.arange(6.0)[:, None] + torch.arange(6.0))[None, None]
    at = [torch.tensor([[1.0, 1, 3, 3]])]
    first = [
        roi_align(U, at, (4, 4), sampling_ratio=1, aligned=aligned)[0, 0, 0, 0].item()
        for aligned in (True, False)
    ]
    assert first == pytest.approx([8.25, 13.75])
    read = [
        roi_align(ramp(5, 5), [box(0, 0, 2, 2)], (2, 2), sampling_ratio=2, aligned=aligned)
        for aligned in (False, True)
    ]
    assert read[0].flatten().tolist() == pytest.approx([3, 4, 8, 9])
    assert read[1].flatten().tolist() == pytest.approx([0.75, 1.625, 5.125, 6])


# vision PR 9629
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [2, -1])
@pytest.mark.parametrize(
    "edges", [(NAN, 0, 3, 3), (0, 0, 3, NAN), (0, 0, INF, 4), (-INF, 1, INF, 4), (0, -INF, 2, -INF)]
)
def test_a_box_that_is_no_box_reads_nothing(edges, ratio, aligned):
    U, bad = picture(1).requires_grad_(), box(*edges, requires_grad=True)
    good = box(1, 2, 8, 9)
    V = roi_align(U, [torch.cat([bad, good])], (2, 3), sampling_ratio=ratio, aligned=aligned)
    assert torch.equal(V[0], torch.zeros_like(V[0]))
    assert torch.equal(V[1:], roi_align(U, [good], (2, 3), sampling_ratio=ratio, aligned=aligned))
    V.sum().backward()
    assert torch.equal(bad.grad, torch.zeros_like(bad))
    assert U.grad.isfinite().all()
    assert torch.equal(roi_pool(U, [bad.detach()], (2, 3)), torch.zeros_like(V[:1]))


@pytest.mark.parametrize("ratio", [2, -1])
def test_empty_reversed_and_outside(ratio):
    U = ramp(6, 8)
    point = roi_align(U, [box(2.5, 3.5, 2.5, 3.5)], (2, 2), sampling_ratio=ratio)
    torch.testing.assert_close(point, torch.full_like(point, 26), **EXACT)
    there, mirrored = (
        roi_align(U, [b], (2, 3), sampling_ratio=ratio) for b in (box(1, 1, 7, 5), box(7, 5, 1, 1))
    )
    torch.testing.assert_close(mirrored, there.flip(2, 3), **EXACT)
    for edges in ((20, 20, 30, 30), (-30, 1, -20, 3), (1e30, 1e30, 2e30, 2e30)):
        V = roi_align(U, [box(*edges)], (2, 2), sampling_ratio=1)
        assert torch.equal(V, torch.zeros_like(V))
    one, two = roi_align(U, [box(3, 3, 2, 2)], (2, 2), sampling_ratio=2, aligned=False), None
    two = ops.roi_align(U, [box(3, 3, 2, 2)], (2, 2), 1.0, 2, False)
    torch.testing.assert_close(one, two, **EXACT)


@pytest.mark.parametrize("read", [roi_align, roi_pool, roi_warp])
def test_no_boxes(read):
    U = picture().requires_grad_()
    none = torch.zeros(0, 4, dtype=U.dtype)
    assert read(U, 3 * [none], (2, 5)).shape == (0, 4, 2, 5)
    assert read(U, torch.zeros(0, 5, dtype=U.dtype), (2, 5)).shape == (0, 4, 2, 5)
    some = read(U, [none, box(1, 1, 5, 5), none], (2, 5))
    assert torch.equal(some, read(U[1:2], [box(1, 1, 5, 5)], (2, 5)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_a_picture_is_read_in_float32(dtype):
    U, every = picture(dtype=torch.float32).to(dtype), boxes(dtype=torch.float32)
    V = roi_align(U, every, (3, 3), 0.5)
    assert V.dtype == dtype
    assert torch.equal(V, roi_align(U.float(), every, (3, 3), 0.5).to(dtype))


@pytest.mark.parametrize("read", [roi_align, roi_pool, roi_warp])
def test_what_does_not_fit_is_said(read):
    U = picture()
    with pytest.raises(ValueError, match=r"for each of 3 pictures, but 1 was given"):
        read(U, [box(0, 0, 1, 1)], (2, 2))
    with pytest.raises(ValueError, match=r"\(K, 5\).*shape \(2, 4\) was given"):
        read(U, torch.zeros(2, 4), (2, 2))
    with pytest.raises(ValueError, match=r"boxes\[1\] must have shape \(K, 4\)"):
        read(U, [box(0, 0, 1, 1), torch.zeros(4), box(0, 0, 1, 1)], (2, 2))
    with pytest.raises(TypeError, match=r"floating"):
        read(U, torch.zeros(2, 5, dtype=torch.int64), (2, 2))
    with pytest.raises(IndexError, match="0 to 2, but 3 was given"):
        read(U, torch.tensor([[3.0, 0, 0, 1, 1]]), (2, 2))
    with pytest.raises(ValueError, match=r"size must be \(height, width\)"):
        read(U, boxes(), 7)


def test_what_does_not_fit_is_said_of_regions():
    U, theta = picture(), affine.identity(2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"of must be whole numbers of shape \(2,\)"):
        read_regions(U, theta, torch.zeros(3, dtype=torch.int64), (2, 2))
    with pytest.raises(ValueError, match=r"samples must .* shape \(2, 2\), but shape \(2,\)"):
        read_regions(U, theta, torch.zeros(2).long(), (2, 2), torch.ones(2).long())
    with pytest.raises(ValueError, match="samples must be a whole number, 1 or more"):
        read_regions(U, theta, torch.zeros(2).long(), (2, 2), 0)
    with pytest.raises(ValueError, match="context must be 0 or more"):
        roi_warp(U, boxes(), (4, 6), context=2)


# --- R-CNN's warp ---


def test_context_shows_what_lies_around():
    """With two pixels of context, the inner part is the warp without, and its surroundings join."""
    U = picture(1, size=(40, 50))
    wide = roi_warp(U, [box(10, 12, 22, 28)], (12, 10), context=2)
    inner = roi_warp(U, [box(10, 12, 22, 28)], (8, 6))
    torch.testing.assert_close(wide[:, :, 2:-2, 2:-2], inner, **EXACT)


# --- RoIPool ---


@pytest.mark.parametrize(("size", "scale"), [((3, 5), 0.5), ((7, 7), 0.5), ((1, 2), 0.31)])
def test_pool_is_torchvisions(size, scale, monkeypatch):
    U, every = picture().requires_grad_(), boxes(120)
    reversed_ = every[:, [0, 3, 4, 1, 2]]
    halves = torch.cat([every[:, :1], every[:, 1:].mul(2).round() / 2], dim=1)
    for some in (every, reversed_, halves):
        theirs = ops.roi_pool(U, some, size, scale)
        for at_once in (1 << 24, 50):
            monkeypatch.setattr("stn_tutorial.regions.reading.AT_ONCE", at_once)
            ours = roi_pool(U, some, size, scale)
            assert torch.equal(ours, theirs)
        dV = torch.rand_like(ours)
        ours, theirs = (torch.autograd.grad(V, U, dV)[0] for V in (ours, theirs))
        torch.testing.assert_close(ours, theirs, **EXACT)


def test_pool_has_no_gradient_towards_the_box():
    edges = box(1.2, 1.3, 7.4, 8.1, requires_grad=True)
    V = roi_pool(picture(1).requires_grad_(), [edges], (2, 2))
    assert torch.autograd.grad(V.sum(), edges, allow_unused=True) == (None,)


# --- Deformable convolution ---


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"dilation": 2}])
def test_offsets_of_zero_are_the_convolution(settings):
    U, weight, bias = picture(), torch.randn(5, 4, 3, 3).double(), torch.randn(5).double()
    want = torch.nn.functional.conv2d(U, weight, bias, **settings)
    still = torch.zeros(3, 18, *want.shape[2:]).double()
    found = deformable_convolution(U, still, weight, bias, **settings)
    torch.testing.assert_close(found, want, **EXACT)


@pytest.mark.parametrize("masked", [False, True])
def test_deformable_is_torchvisions(masked):
    inputs = {
        "U": picture(2, 3, (9, 9)),
        "offsets": 5 * torch.randn(2, 12, 4, 4).double(),
        "weight": torch.randn(5, 3, 2, 3).double(),
        "bias": torch.randn(5).double(),
        "mask": torch.rand(2, 6, 4, 4).double() if masked else None,
    }
    given = [one.requires_grad_() for one in inputs.values() if one is not None]
    U, offsets, weight, bias, mask = inputs.values()
    options = {"stride": 2, "mask": mask}
    ours = deformable_convolution(U, offsets, weight, bias, padding=0, **options)
    theirs = ops.deform_conv2d(U, offsets, weight, bias, **options)
    torch.testing.assert_close(ours, theirs, **EXACT)
    dV = torch.rand_like(ours)
    for one, two in zip(
        torch.autograd.grad(ours, given, dV), torch.autograd.grad(theirs, given, dV), strict=True
    ):
        torch.testing.assert_close(one, two, **EXACT)


# vision#8881
def test_offsets_are_y_then_x():
    U = ramp(5, 7)
    offsets = torch.zeros(1, 2, 5, 7).double()
    offsets[:, 0] = 1
    V = deformable_convolution(U, offsets, torch.ones(1, 1, 1, 1).double())
    torch.testing.assert_close(V[0, 0, :4], U[0, 0, 1:], **EXACT)


def test_deformable_gradient_and_values_that_are_none():
    U = picture(1, 2, (5, 6)).requires_grad_()
    offsets = (torch.randn(1, 18, 3, 4) * 0.3 + 0.13).double().requires_grad_()
    weight = torch.randn(2, 2, 3, 3).double().requires_grad_()
    assert gradcheck(deformable_convolution, (U, offsets, weight))
    bad = torch.zeros(1, 18, 3, 4).double()
    bad[0, 0], bad[0, 3] = NAN, INF
    bad = bad.requires_grad_()
    without = weight.detach().clone().flatten(2)
    without[:, :, :2] = 0
    V = deformable_convolution(U, bad, weight)
    want = torch.nn.functional.conv2d(U, without.reshape(weight.shape))
    torch.testing.assert_close(V, want, **EXACT)
    assert torch.autograd.grad(V.sum(), bad)[0].isfinite().all()


def test_what_does_not_fit_is_said_of_taps():
    U, weight = picture(), torch.randn(5, 4, 3, 3).double()
    with pytest.raises(ValueError, match=r"offsets must have shape \(N, 18, 9, 15\)"):
        deformable_convolution(U, torch.zeros(3, 9, 9, 15), weight)
    with pytest.raises(ValueError, match="4 input channels, but 3 were given"):
        deformable_convolution(U, torch.zeros(3, 18, 9, 15), weight[:, :3])
    with pytest.raises(ValueError, match="same batch size"):
        deformable_convolution(U, torch.zeros(1, 18, 9, 15), weight)


def test_a_box_of_whole_pixels_gives_those_pixels():
    U = picture(1)
    V = roi_align(U, [box(3, 2, 9, 6)], (4, 6), sampling_ratio=1)
    torch.testing.assert_close(V, U[:, :, 2:6, 3:9], **EXACT)
