import numpy as np
import pytest
import torch
from scipy import stats

from pipeline.degrade.counter_random import philox, pixel_words
from pipeline.degrade.operations.noise import _poisson_count, gaussian_noise, poisson_noise

SEED = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
COLOUR, GRAY = torch.tensor([False, False]), torch.tensor([True, True])


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_equals_the_published_vectors(counter: str, key: str, expected: str) -> None:
    c0, c1, c2, c3, k0, k1 = (torch.tensor([int(word, 16)]) for word in f"{counter} {key}".split())
    assert [f"{word.item():08x}" for word in philox((c0, c1, c2, c3), (k0, k1))] == expected.split()


def test_pixel_words_of_a_larger_image_begin_with_those_of_a_smaller() -> None:
    for small, large in zip(pixel_words(SEED, 4, 9), pixel_words(SEED, 4, 20), strict=True):
        assert torch.equal(small, large[..., :9, :9])
    assert not torch.equal(pixel_words(SEED, 4, 9)[0], pixel_words(SEED, 8, 9)[0])


def test_gaussian_noise_is_normal_with_its_strength() -> None:
    image = torch.full((2, 3, 64, 64), 0.5, dtype=torch.float64)
    noise = gaussian_noise(image, torch.tensor([2.0, 10.0]), COLOUR, SEED, 4) - image
    for sample, sigma_255 in enumerate((2.0, 10.0)):
        values = (noise[sample] * 255 / sigma_255).flatten().numpy()
        assert stats.kstest(values, "norm").pvalue > 1e-3
        correlation = np.corrcoef(noise[sample].flatten(1).numpy()) - np.eye(3)
        assert np.abs(correlation).max() < 0.05


def test_gray_noise_is_one_field_for_all_channels() -> None:
    image = torch.full((2, 3, 16, 16), 0.5, dtype=torch.float64)
    for noise in (
        gaussian_noise(image, torch.tensor([5.0, 5.0]), GRAY, SEED, 4) - image,
        poisson_noise(image, torch.tensor([1.0, 1.0]), GRAY, SEED, 4, torch.tensor([16, 16])) - image,
    ):
        assert noise.abs().max() > 0
        assert torch.equal(noise[:, 0], noise[:, 1])
        assert torch.equal(noise[:, 0], noise[:, 2])


@pytest.mark.parametrize(("exponent", "level"), [(0, 0), (0, 255), (3, 20), (8, 1), (8, 128), (8, 255)])
def test_poisson_count_equals_the_inverse_distribution_function(exponent: int, level: int) -> None:
    word = torch.linspace(0, 2**32 - 1, 1001, dtype=torch.float64).long()
    count = _poisson_count(word, torch.full_like(word, exponent * 256 + level))
    mean = level / 255 * 2**exponent
    quantile = (word.numpy() + 0.5) / 2**32
    expected = stats.poisson(mean).ppf(quantile) if mean else np.zeros(len(word))
    np.testing.assert_array_equal(count[1:-1].numpy(), expected[1:-1])


def test_poisson_noise_has_the_variance_of_the_law() -> None:
    # Four distinct values: counts of mean 4 * value, so noise of variance value / 4.
    values = torch.tensor([0.2, 0.4, 0.6, 0.8], dtype=torch.float64)
    image = (values * 255).round()[torch.arange(64) % 4].div(255).expand(2, 3, 64, 64)
    noise = poisson_noise(image, torch.tensor([0.05, 0.1]), COLOUR, SEED, 4, torch.tensor([64, 64])) - image
    for sample, scale in enumerate((0.05, 0.1)):
        for k, value in enumerate(values.tolist()):
            drawn = noise[sample, :, :, k::4]
            assert drawn.mean().item() == pytest.approx(0, abs=0.04 * scale)
            assert drawn.var().item() == pytest.approx(scale**2 * value / 4, rel=0.1)


def test_poisson_noise_counts_only_the_values_of_the_sample_itself() -> None:
    image = torch.rand(2, 3, 24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    image[:, :, :12, :12] = 0.5
    strength, size_px = torch.tensor([1.0, 1.0]), torch.tensor([12, 24])
    own = poisson_noise(image, strength, COLOUR, SEED, 4, size_px)
    alone = poisson_noise(image[:1, :, :12, :12], strength[:1], COLOUR[:1], SEED[:1], 4, size_px[:1])
    assert torch.equal(own[:1, :, :12, :12], alone)
