"""Both forms of the correlation are one linear map, with the right adjoints; the fast one keeps its memory layout."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from attnembed.structured import convolution
from attnembed.structured.convolution import Bands, Windows, correlation, image_last

SHAPES = [  # H, W, channels in, size, channels out, pad
    (4, 3, 1, 3, 2, 1),
    (6, 5, 2, 5, 3, 2),
    (7, 9, 3, 5, 1, 0),
    (2, 2, 2, 5, 2, 2),  # smaller than the kernel
    (3, 4, 2, 1, 2, 0),
]


@pytest.fixture(params=SHAPES, ids=str)
def case(request):
    height, width, n_in, size, n_out, pad = request.param
    rng = np.random.default_rng(0)
    kernel, x = rng.normal(size=(n_in, size, size, n_out)), rng.normal(size=(3, height, width, n_in))
    return Bands(kernel, pad, width), Windows(kernel, pad), x


def test_both_forms_agree(case):
    bands, windows, x = case
    y = windows.apply(x)
    assert_allclose(bands.apply(x), y, rtol=0, atol=1e-13)
    upstream = np.random.default_rng(1).normal(size=y.shape)
    assert_allclose(
        bands.apply_adjoint(upstream, x.shape), windows.apply_adjoint(upstream, x.shape), rtol=0, atol=1e-13
    )
    assert_allclose(bands.kernel_gradient(x, upstream), windows.kernel_gradient(x, upstream), rtol=0, atol=1e-13)


def test_kept_windows_are_those_of_the_images(case, monkeypatch):
    """Kept from the forward pass, formed again all at once, or image by image: one gradient."""
    _, windows, x = case
    y = windows.apply(x)
    upstream = np.random.default_rng(1).normal(size=y.shape)
    kept = windows.kernel_gradient(x, upstream)
    fresh = Windows(windows.kernel, windows.pad)
    assert_allclose(fresh.kernel_gradient(x, upstream), kept, rtol=0, atol=1e-13)
    other = x[::-1].copy()  # not the images that were kept
    assert_allclose(windows.kernel_gradient(other, upstream[::-1]), kept, rtol=0, atol=1e-13)
    monkeypatch.setattr(convolution, "_KEPT", 0)
    monkeypatch.setattr(convolution, "_CACHED", 1)
    assert_allclose(fresh.apply(x), y, rtol=0, atol=1e-13)
    assert_allclose(fresh.kernel_gradient(x, upstream), kept, rtol=0, atol=1e-13)


def test_adjoints(case):
    """<A x, z> = <x, A^T z> = <K, dK>, since y is linear in x and in K."""
    for linear in case[:2]:
        x = case[2]
        y = linear.apply(x)
        z = np.random.default_rng(1).normal(size=y.shape)
        inner = np.vdot(y, z)
        assert np.isclose(np.vdot(x, linear.apply_adjoint(z, x.shape)), inner, rtol=1e-12)
        assert np.isclose(np.vdot(linear.kernel, linear.kernel_gradient(x, z)), inner, rtol=1e-12)
        assert not np.isclose(np.vdot(linear.kernel, linear.kernel_gradient(x, z[::-1])), inner, rtol=1e-6)


def test_narrow_images_stay_image_last():
    """What one layer gives, the next one takes without a copy."""
    kernel, x = np.ones((2, 3, 3, 4)), np.ones((5, 6, 8, 2))
    linear = correlation(kernel, 1, 8)
    y = linear.apply(x)
    assert isinstance(linear, Bands)
    assert np.shares_memory(image_last(y), y)
    assert not np.shares_memory(image_last(x), x)
    gradient = linear.apply_adjoint(y, x.shape)
    assert np.shares_memory(image_last(gradient), gradient)
    assert isinstance(correlation(kernel, 1, 17), Windows)
    assert isinstance(correlation(kernel, 1, 8, 5), Windows)  # few images
