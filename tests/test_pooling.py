"""Max-pool and blur-pool, and the measure of how steady a class is."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import nn
from torch.autograd import gradcheck
from torch.nn import functional as F

from stn_tutorial.pooling import (
    PADDINGS,
    MaxBlurPool,
    agreement,
    binomial,
    blur,
    shift,
    shift_consistency,
)

F64 = torch.float64

each_padding = pytest.mark.parametrize("padding", PADDINGS)
each_shape = pytest.mark.parametrize("shape", [(2, 3, 9), (2, 3, 8, 9)], ids=["signal", "picture"])
paddings = st.sampled_from(list(PADDINGS))
odd = st.sampled_from([1, 3, 5, 7])
sides = st.integers(3, 20)


def signal(values):
    return torch.tensor([[values]], dtype=torch.float32)


def bits(text):
    return signal([float(bit) for bit in text])


def close(actual, expected, tolerance=1e-12):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


# --- Smoke ---


@each_padding
@each_shape
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
def test_shape_dtype_and_device_are_kept(shape, dtype, padding):
    x = torch.rand(shape).to(dtype)
    assert blur(x, padding=padding).shape == x.shape
    assert blur(x, padding=padding).dtype == dtype
    y = MaxBlurPool(padding=padding)(x)
    assert y.shape == tuple([*shape[:2], *((s + (padding == "circular")) // 2 for s in shape[2:])])
    assert y.dtype == dtype
    assert MaxBlurPool()(x.to("meta")).device.type == "meta"


def test_an_empty_batch():
    assert MaxBlurPool()(torch.rand(0, 3, 8, 8)).shape == (0, 3, 4, 4)
    assert blur(torch.rand(0, 2, 8)).shape == (0, 2, 8)


def test_module_has_no_parameters_and_says_what_it_is():
    pool = MaxBlurPool(3, 2, 5, "circular")
    assert not pool.state_dict()
    assert repr(pool) == "MaxBlurPool(kernel=3, stride=2, taps=5, padding='circular')"


# --- Bad input ---


@pytest.mark.parametrize("function", [blur, MaxBlurPool()])
def test_says_what_is_wrong_with_a_signal(function):
    with pytest.raises(TypeError, match=r"x must be a torch\.Tensor, but a list was given"):
        function([1.0])
    with pytest.raises(TypeError, match=r"x must have a floating dtype, but torch\.uint8 was"):
        function(torch.zeros(1, 1, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"shape \(N, C, L\) or \(N, C, H, W\), but shape \(8,\)"):
        function(torch.zeros(8))
    with pytest.raises(ValueError, match=r"must not be empty, but shape \(1, 1, 0\) was given"):
        function(torch.zeros(1, 1, 0))


@pytest.mark.parametrize("bad", [0, -3, 2.5, True, "3", None])
def test_says_what_is_wrong_with_a_number(bad):
    x = torch.zeros(1, 1, 8)
    for name, call in (
        ("taps", lambda: binomial(bad)),
        ("taps", lambda: blur(x, bad)),
        ("stride", lambda: blur(x, stride=bad)),
        ("kernel", lambda: MaxBlurPool(bad)),
        ("stride", lambda: MaxBlurPool(stride=bad)),
        ("taps", lambda: MaxBlurPool(taps=bad)),
    ):
        with pytest.raises(ValueError, match=rf"{name} must be a whole number, 1 or more, but"):
            call()


def test_says_what_is_wrong_with_the_rest():
    for call in (binomial, lambda taps: blur(torch.zeros(1, 1, 8), taps)):
        with pytest.raises(ValueError, match=r"taps must be odd, but 4 was given"):
            call(4)
    for call in (lambda p: blur(torch.zeros(1, 1, 8), padding=p), lambda p: MaxBlurPool(padding=p)):
        with pytest.raises(ValueError, match=r"padding must be one of border, circular, but 'zero"):
            call("zeros")
    with pytest.raises(ValueError, match=r"x must be 3 long at least .* 7 taps, but shape \(1, 1"):
        blur(torch.zeros(1, 1, 2), 7, "circular")
    with pytest.raises(ValueError, match=r"x must be 2 long at least for a window of 2, but shape"):
        MaxBlurPool()(torch.zeros(1, 1, 5, 1))
    with pytest.raises(ValueError, match=r"U must have shape \(N, C, H, W\), but shape \(8,\)"):
        shift(torch.zeros(8))


def test_says_what_is_wrong_with_the_measure():
    with pytest.raises(
        TypeError, match=r"classes must be .* whole numbers, but torch\.float32 was"
    ):
        agreement(torch.zeros(3, 3))
    with pytest.raises(TypeError, match=r"but list was given"):
        agreement([[1]])
    for shape in ((3,), (0, 3), (3, 0), (1, 2, 3)):
        with pytest.raises(ValueError, match=r"classes must have shape \(K, N\), not empty, but"):
            agreement(torch.zeros(shape, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"images must have a floating dtype, but torch\.uint8 was"):
        shift_consistency(nn.Flatten(), torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"reach must be a whole number, 0 or more, but -1 was"):
        shift_consistency(nn.Flatten(), torch.zeros(1, 1, 8, 8), reach=-1)


# --- Known values: exact, since binomial weights are binary fractions ---


def test_binomial_known_values():
    assert binomial(1) == [1]
    assert binomial(3) == [0.25, 0.5, 0.25]
    assert binomial(5) == [1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16]


def test_blur_known_values():
    x = signal([0, 0, 16, 0, 0, 32])
    assert blur(x).tolist() == [[[0, 4, 8, 4, 8, 24]]]
    assert blur(x, padding="circular").tolist() == [[[8, 4, 8, 4, 8, 16]]]
    assert blur(x, 5).tolist() == [[[1, 4, 6, 6, 11, 22]]]
    assert blur(x, stride=2).tolist() == [[[0, 8, 8]]]
    assert blur(x, 1).tolist() == x.tolist()
    assert blur(signal([5])).tolist() == [[[5]]]


def test_blur_of_a_picture_is_a_product():
    x = torch.zeros(1, 2, 3, 4)
    x[0, 1, 1, 2] = 16
    assert blur(x)[0, 0].abs().max() == 0, "channels do not mix"
    assert blur(x)[0, 1].tolist() == [[0, 1, 2, 1], [0, 2, 4, 2], [0, 1, 2, 1]]
    assert blur(x, stride=2)[0, 1].tolist() == [[0, 2], [0, 2]]


def test_the_bits_of_chapter_2():
    """Zhang's example: the difference is softened and does not vanish."""
    x, moved = bits("00110011"), bits("01100110")
    assert F.max_pool1d(x, 2).tolist() == [[[0, 1, 0, 1]]]
    assert F.max_pool1d(moved, 2).tolist() == [[[1, 1, 1, 1]]]
    pool = MaxBlurPool(padding="circular")
    assert pool(x).tolist() == [[[0.5, 1, 0.5, 1]]]
    assert pool(moved).tolist() == [[[0.75, 0.75, 0.75, 0.75]]]
    # Without wrapping: 0 1 1 1 0 1 1 and 1 1 1 0 1 1 1, blurred.
    assert MaxBlurPool()(x).tolist() == [[[0.25, 1, 0.5, 1]]]
    assert MaxBlurPool()(moved).tolist() == [[[1, 0.75, 0.75, 1]]]


def test_shift_known_values():
    U = torch.arange(1.0, 7).view(1, 1, 2, 3)
    assert shift(U, right=1).tolist() == [[[[0, 1, 2], [0, 4, 5]]]]
    assert shift(U, right=-1, down=1).tolist() == [[[[0, 0, 0], [2, 3, 0]]]]
    assert shift(U, down=-1).tolist() == [[[[4, 5, 6], [0, 0, 0]]]]
    for far in ({"right": 3}, {"right": -9}, {"down": 2}, {"down": -70}):
        assert shift(U, **far).tolist() == torch.zeros_like(U).tolist()


def test_agreement_known_values():
    assert agreement(torch.tensor([[7], [7], [1], [7]])) == 0.625
    assert agreement(torch.tensor([[7, 2], [7, 2], [1, 2], [7, 2]])) == 0.8125
    assert agreement(torch.arange(4)[:, None]) == 0.25
    assert agreement(torch.tensor([[True], [False]])) == 0.5


def test_shift_consistency_known_values():
    """A model that says which column the one white pixel stands in: never the same, by column."""
    U = torch.zeros(2, 1, 7, 7)
    U[:, :, 3, 3] = 1

    def column(U):
        return U.sum(dim=(1, 2))

    assert shift_consistency(column, U, reach=2) == pytest.approx(1 / 5)
    assert shift_consistency(column, U, reach=0) == 1
    # Does it see all shifts? By row and column there are 25 classes.
    assert shift_consistency(nn.Flatten(), U, reach=2, batch_size=1) == pytest.approx(1 / 25)


def test_shift_consistency_measures_in_evaluation_mode_and_without_gradients():
    seen = []

    class Model(nn.Module):
        def forward(self, U):
            seen.append((self.training, torch.is_grad_enabled(), len(U)))
            return U.sum(dim=(1, 2))

    shift_consistency(Model().train(), torch.rand(5, 1, 4, 4), reach=1, batch_size=3)
    assert set(seen) == {(False, False, 3), (False, False, 2)}
    assert len(seen) == 18


# --- Properties ---


@given(sides, odd, paddings, st.floats(-100, 100, width=32))
def test_blur_keeps_a_constant(length, taps, padding, value):
    x = torch.full((1, 1, length, length + 1), value, dtype=F64)
    close(blur(x, taps, padding), x, 1e-12)


@given(sides, odd)
def test_wrapped_blur_keeps_the_sum_and_moves_along(length, taps):
    x = torch.randn(2, 1, length, length + 2, dtype=F64)
    close(blur(x, taps, "circular").sum((2, 3)), x.sum((2, 3)), 1e-10)
    moved = blur(x.roll((1, 2), (2, 3)), taps, "circular")
    close(moved, blur(x, taps, "circular").roll((1, 2), (2, 3)))


@given(sides, odd)
def test_blur_moves_along_in_the_interior(length, taps):
    x = torch.randn(1, 1, length + 8, dtype=F64)
    reach = taps // 2
    inner = slice(reach, -reach or None)
    close(blur(x[..., 1:], taps)[..., inner], blur(x, taps)[..., 1:][..., inner])


@given(st.integers(1, 10), odd, st.integers(1, 3))
def test_wrapped_pool_moves_along_with_its_stride_exactly(length, taps, stride):
    x = torch.randn(1, 2, length * stride + 6 * stride, dtype=torch.float32)
    pool = MaxBlurPool(2, stride, taps, "circular")
    assert torch.equal(pool(x.roll(stride, 2)), pool(x).roll(1, 2))


@given(odd, st.sampled_from([0.0, 0.125, 0.25, 0.375, 0.5]))
def test_a_wave_is_damped_by_the_power_of_a_cosine(taps, f):
    wave = torch.cos(2 * math.pi * f * torch.arange(16, dtype=F64))[None, None]
    factor = (0.5 + 0.5 * math.cos(2 * math.pi * f)) ** (taps // 2)
    close(blur(wave, taps, "circular"), factor * wave)


@given(sides, odd, st.integers(1, 3), st.integers(1, 4), paddings)
def test_pool_is_its_three_steps(length, taps, kernel, stride, padding):
    x = torch.randn(1, 2, length, length + 3, dtype=F64)
    wrapped = F.pad(x, [0, kernel - 1] * 2, mode="circular") if padding == "circular" else x
    tops = F.max_pool2d(wrapped, kernel, 1)
    expected = blur(tops, taps, padding)[..., ::stride, ::stride]
    assert torch.equal(MaxBlurPool(kernel, stride, taps, padding)(x), expected)


@given(st.integers(0, 4), st.integers(1, 6))
def test_agreement_counts_pairs(seed, views):
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(3, (views, 4), generator=generator)
    pairs = [(a == b).double().mean() for a, b in itertools.product(classes, classes)]
    assert agreement(classes) == pytest.approx(torch.stack(pairs).mean().item())


# --- Agreement with others ---


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (2, 5)], ids=str)
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (2, 1), (2, 3), (1, 2)])
def test_one_tap_is_torchs_max_pool(size, kernel, stride):
    x = torch.randn(2, 3, *size)
    pool = MaxBlurPool(kernel, stride, taps=1)
    assert torch.equal(pool(x), F.max_pool2d(x, kernel, stride))
    assert torch.equal(pool(x[..., 0, :]), F.max_pool1d(x[..., 0, :], kernel, stride))
    assert MaxBlurPool(kernel, stride)(x).shape == F.max_pool2d(x, kernel, stride).shape


@each_padding
@pytest.mark.parametrize("taps", [1, 3, 5])
def test_blur_agrees_with_scipy(taps, padding):
    x = torch.randn(1, 1, 9, 6, dtype=F64)
    mode = {"border": "nearest", "circular": "wrap"}[padding]
    theirs = x[0, 0].numpy()
    for axis in (0, 1):
        theirs = ndimage.convolve1d(theirs, binomial(taps), axis, mode=mode)
    close(blur(x, taps, padding)[0, 0], torch.from_numpy(theirs))


def test_blur_agrees_with_a_depthwise_convolution():
    x = torch.randn(2, 3, 8, 9, dtype=F64)
    w = torch.tensor(binomial(5), dtype=F64)
    kernel = torch.outer(w, w).expand(3, 1, 5, 5)
    theirs = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), kernel, groups=3, stride=2)
    close(blur(x, 5, stride=2), theirs)


@given(st.integers(-5, 5), st.integers(-5, 5))
def test_shift_agrees_with_scipy(right, down):
    U = torch.rand(1, 1, 4, 5, dtype=F64)
    theirs = ndimage.shift(U[0, 0].numpy(), (down, right), order=0)
    assert torch.equal(shift(U, right, down)[0, 0], torch.from_numpy(theirs))


# --- Gradients and compilation ---


@each_padding
@each_shape
def test_gradients(shape, padding):
    x = torch.randn(shape, dtype=F64, requires_grad=True)
    assert gradcheck(lambda x: blur(x, 5, padding), x)
    assert gradcheck(MaxBlurPool(padding=padding), x)


@each_padding
def test_compiles_without_a_break(padding):
    pool = MaxBlurPool(padding=padding)
    compiled = torch.compile(pool, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 3, 8, 9, requires_grad=True)
    torch.testing.assert_close(compiled(x), pool(x))
    ours, theirs = (torch.autograd.grad(f(x).square().sum(), x)[0] for f in (compiled, pool))
    torch.testing.assert_close(ours, theirs)
