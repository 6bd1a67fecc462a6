"""Co-localisation's loss, boxes, overlap, compositing, congealing's entropy; the canvases."""

import math

import pytest
import torch
import torchvision
from torch.autograd import gradcheck

from stn_tutorial import data
from stn_tutorial.affine import crop, decompose, identity, invert, rotation, transform_points
from stn_tutorial.alignment import box_of, composite, overlap, stack_entropy, triplet_hinge
from stn_tutorial.data import CANVAS_FACTS, Digits, embedded_digits, scatter
from stn_tutorial.grids import affine_grid
from stn_tutorial.sampling import sample


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- The triplet hinge ---


def test_hinge_is_the_papers_sum_over_pairs():
    own, other = 2 * draw(5, 3), 2 * draw(5, 3, seed=1)
    total, kept = 0.0, 0
    for n in range(5):
        for m in range(5):
            if m != n:
                term = (own[n] - own[m]).square().sum() - (own[n] - other[n]).square().sum() + 1
                total += max(0.0, term.item())
                kept += term.item() > 0
    assert 0 < kept < 20, "an example with both sides of the hinge"
    assert math.isclose(triplet_hinge(own, other).item(), total / 20, rel_tol=1e-12)


def test_hinge_by_the_margin():
    own = torch.zeros(2, 1)
    other = torch.tensor([[1.0], [1.0]])  # a distance of exactly 1
    assert triplet_hinge(own, other).item() == 0
    assert triplet_hinge(own, other, margin=3).item() == 2


def test_hinge_does_not_care_for_order_or_place():
    own, other = draw(6, 4), draw(6, 4, seed=1)
    value = triplet_hinge(own, other)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert torch.allclose(triplet_hinge(own[order], other[order]), value)
    assert torch.allclose(triplet_hinge(own + 7, other + 7), value)


def test_hinge_gradient():
    own = (2 * draw(4, 3)).requires_grad_()
    other = (2 * draw(4, 3, seed=1)).requires_grad_()
    assert gradcheck(triplet_hinge, (own, other))
    far = (other.detach() + 100).requires_grad_()
    triplet_hinge(own, far).backward()
    assert not own.grad.any(), "beyond the margin nothing pulls"


@pytest.mark.parametrize(
    ("own", "other", "error", "message"),
    [
        (torch.zeros(4, 2), torch.zeros(3, 2), ValueError, r"\(4, 2\) and \(3, 2\) were given"),
        (torch.zeros(1, 2), torch.zeros(1, 2), ValueError, "N from 2 on"),
        (torch.zeros(4), torch.zeros(4), ValueError, r"own must have shape \(N, D\)"),
        (torch.zeros(4, 2).long(), torch.zeros(4, 2), TypeError, "own must have a floating dtype"),
    ],
)
def test_hinge_refuses(own, other, error, message):
    with pytest.raises(error, match=message):
        triplet_hinge(own, other)


# --- Boxes ---


def test_box_is_crops_inverse():
    low = draw(20, 2) * 2 - 1
    boxes = torch.cat([low, low + draw(20, 2, seed=1)], dim=1)
    assert torch.allclose(box_of(crop(boxes)), boxes)


def test_box_of_a_turned_window_holds_its_corners():
    side = math.sqrt(2)
    expected = torch.tensor([[-side, -side, side, side]], dtype=torch.float64)
    assert torch.allclose(box_of(rotation(45.0, dtype=torch.float64)), expected)


def test_box_of_a_mirrored_window_is_no_inside_out_one():
    assert box_of(-crop((0.0, 0.0, 0.5, 0.5))).tolist() == [[-0.5, -0.5, 0.0, 0.0]]


def test_overlap_agrees_with_torchvision():
    corners = 4 * draw(200, 2, 2)
    a = torch.cat([corners.amin(1), corners.amax(1)], dim=1)
    b = a.roll(1, dims=0)
    expected = torchvision.ops.box_iou(a, b).diagonal()
    assert (expected > 0).any()
    assert (expected == 0).any()
    assert torch.allclose(overlap(a, b), expected)
    assert torch.allclose(overlap(a, b[:1]), torchvision.ops.box_iou(a, b[:1])[:, 0])


def test_overlap_of_odd_boxes():
    one = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert overlap(one, one).tolist() == [1]
    for odd in ([2.0, 2.0, 2.0, 2.0], [1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 2.0, 1.0]):
        assert overlap(one, torch.tensor([odd])).tolist() == [0]
    nothing = torch.zeros(1, 4)
    assert overlap(nothing, nothing).tolist() == [0]
    assert overlap(one, torch.full((1, 4), math.nan)).isnan().all()


def test_overlap_gradient_and_refusals():
    a = torch.tensor([[0.0, 0.0, 2.0, 1.5]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[0.5, 0.25, 3.0, 1.0]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(overlap, (a, b))
    with pytest.raises(ValueError, match="but 2 and 3 were given"):
        overlap(torch.zeros(2, 4), torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"b must have shape \(N, 4\)"):
        overlap(torch.zeros(2, 4), torch.zeros(2, 5))


# --- Compositing ---


def test_composite_is_exact_at_both_ends():
    back, front = draw(2, 3, 4, 5).float(), draw(2, 3, 4, 5, seed=1).float()
    alpha = (draw(2, 1, 4, 5, seed=2) > 0.5).float()
    assert torch.equal(composite(back, front, alpha), torch.where(alpha > 0, front, back))
    half = composite(back, front, torch.full_like(alpha, 0.5))
    assert torch.allclose(half, (back + front) / 2)


def test_composite_gradient_reaches_all_three():
    parts = [draw(1, 2, 2, 3, seed=k).requires_grad_() for k in range(2)]
    alpha = draw(1, 1, 2, 3, seed=2).requires_grad_()
    assert gradcheck(composite, (*parts, alpha))


@pytest.mark.parametrize(
    ("front", "alpha", "message"),
    [
        ((2, 3, 4, 4), (2, 2, 4, 4), "were given"),
        ((2, 3, 4, 4), (2, 1, 4, 3), "were given"),
        ((2, 1, 4, 4), (2, 1, 4, 4), "were given"),
        ((1, 3, 4, 4), (2, 1, 4, 4), "same batch size"),
        ((2, 3, 4), (2, 1, 4, 4), r"foreground must have shape \(N, C, H, W\)"),
    ],
)
def test_composite_refuses(front, alpha, message):
    with pytest.raises(ValueError, match=message):
        composite(torch.zeros(2, 3, 4, 4), torch.zeros(front), torch.zeros(alpha))


# --- Congealing ---


def test_entropy_of_known_stacks():
    ink = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(4, 1, 1, 1)
    expected = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert math.isclose(stack_entropy(ink).item(), expected, rel_tol=1e-6)
    assert stack_entropy(torch.ones(3, 1, 2, 2)).item() == 0
    assert stack_entropy(torch.zeros(3, 1, 2, 2)).item() == 0
    assert stack_entropy(5 * torch.ones(3, 1, 2, 2)).item() == 0  # clipped


def test_entropy_rises_where_pictures_are_moved_apart():
    letter = data.letter_f((32, 32)).expand(4, -1, -1, -1)
    apart = torch.stack([one.roll(3 * k, dims=-1) for k, one in enumerate(letter)])
    assert stack_entropy(apart) > 2 * stack_entropy(letter)


def test_entropy_gradient_is_finite_at_black_and_white():
    stack = draw(3, 1, 3, 4)
    stack[:, :, 0], stack[:, :, 1] = 0, 1
    stack.requires_grad_()
    stack_entropy(stack).backward()
    assert stack.grad.isfinite().all()
    inner = (0.2 + 0.6 * draw(3, 1, 2, 2, seed=1)).requires_grad_()
    assert gradcheck(stack_entropy, (inner,))
    with pytest.raises(ValueError, match="at least one picture"):
        stack_entropy(torch.zeros(0, 1, 4, 4))


# --- Canvases ---


@pytest.fixture(scope="module")
def few():
    digits = embedded_digits()
    return Digits(digits.images[:40], digits.labels[:40])


def test_the_box_shows_the_digit_itself(few):
    canvases = scatter(few, seed=0, clutter=0)
    assert canvases.images.shape == (40, 1, 84, 84)
    assert torch.equal(canvases.labels, few.labels)
    corner = ((canvases.boxes[:, :2] + 1) * 42).round().long()
    for image, (x, y), digit in zip(canvases.images, corner.tolist(), few.images, strict=True):
        assert torch.equal(image[:, y : y + 28, x : x + 28], digit / 255)
        assert math.isclose(image.sum().item(), (digit / 255).sum().item(), rel_tol=1e-5)
    assert canvases.boxes.abs().max() <= 1
    assert corner.amin() < 8, "near one end"
    assert corner.amax() > 48, "and near the other"


def test_pieces_only_add_ink_and_leave_the_places(few):
    bare, full = (scatter(few, seed=3, clutter=k) for k in (0, 16))
    assert torch.equal(bare.boxes, full.boxes)
    added = full.images - bare.images
    assert (added >= 0).all()
    covered = (added > 0).flatten(1).sum(dim=1)
    assert (covered > 36).all(), "more than one piece"
    assert (covered <= 16 * 36).all(), "sixteen pieces at most"
    assert full.images.max() <= 1


def test_the_same_seed_gives_the_same_canvases(few):
    one, two, other = scatter(few, seed=1), scatter(few, seed=1), scatter(few, seed=2)
    assert torch.equal(one.images, two.images)
    assert not torch.equal(one.boxes, other.boxes)


def test_pieces_come_from_the_pool(few):
    blank = Digits(torch.zeros(5, 1, 28, 28, dtype=torch.uint8), torch.zeros(5).long())
    assert torch.equal(scatter(few, 0, pool=blank).images, scatter(few, 0, clutter=0).images)


def test_canvases_refuse(few):
    with pytest.raises(TypeError, match=r"images of digits must be uint8"):
        scatter(Digits(few.images.float(), few.labels), 0)
    with pytest.raises(ValueError, match=r"images of pool must have shape \(N, 1, 28, 28\)"):
        scatter(few, 0, pool=Digits(few.images[:, :, :20], few.labels))
    with pytest.raises(ValueError, match="clutter must be a whole number, 0 or more"):
        scatter(few, 0, clutter=-1)
    with pytest.raises(ValueError, match="pool must hold at least one digit"):
        scatter(few, 0, pool=Digits(few.images[:0], few.labels[:0]))
    assert all(fact.mark in ("a", "b", "c", "c+") for fact in CANVAS_FACTS)


# --- Faces ---


def test_spectacles_of_the_same_pose_sit_on_the_eyes():
    generator = torch.Generator().manual_seed(0)
    theta = data.draw_poses(8, generator)
    faces = data.draw_faces(theta, generator, (64, 64))
    alpha = data.draw_spectacles(theta, (64, 64))
    assert faces.shape == alpha.shape == (8, 1, 64, 64)
    assert 0 <= faces.min() < faces.max() <= 1
    places = transform_points(invert(theta), torch.tensor(data.LENSES))
    eyes = sample(faces, places[:, None])[:, 0, 0]
    skin = sample(faces, transform_points(invert(theta), torch.tensor([[0.0, -0.5]]))[:, None])
    assert (eyes < 0.5 * skin[:, 0, 0]).all(), "dark, where the lenses' middles are"
    assert (sample(alpha, places[:, None]) < 0.05).all(), "through which the eyes are seen"
    rim = torch.tensor(data.LENSES) + torch.tensor([[0.0, 0.2], [0.0, 0.2]])
    assert (sample(alpha, transform_points(invert(theta), rim)[:, None]) > 0.6).all()


def test_spectacles_drawn_and_warped_agree():
    theta = data.draw_poses(4, torch.Generator().manual_seed(1))
    drawn = data.draw_spectacles(theta, (96, 96))
    flat = data.draw_spectacles(identity(), (96, 96)).expand(4, -1, -1, -1)
    assert (sample(flat, affine_grid(theta, (96, 96))) - drawn).abs().mean() < 0.01


def test_poses_are_what_they_are_said_to_be():
    found = decompose(data.draw_poses(500, torch.Generator().manual_seed(2)))
    assert 12 < found.degrees.abs().max() <= 15.01
    assert found.sx.min() > 0.79
    assert found.sx.max() < 1.06
    assert torch.allclose(found.sx, found.sy, atol=1e-5)
    with pytest.raises(ValueError, match="count must be a whole number, 1 or more"):
        data.draw_poses(0, torch.Generator())
    with pytest.raises(ValueError, match=r"theta must have shape \(N, 2, 3\)"):
        data.draw_spectacles(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"size must be"):
        data.draw_faces(identity(), torch.Generator(), (32,))
