import math
from dataclasses import FrozenInstanceError

import pytest
import torch

from semiseg.transforms.intensity import Intensity, IntensityConfig, clipped_noise

EVERYTHING = IntensityConfig(probability=1, contrast=0.4, brightness=0.3, gamma=0.4, noise=0.2, blur=1.0)


def draw(config, shape, seed=0):
    return Intensity.draw(shape, config, torch.Generator().manual_seed(seed))


def test_nothing_asked_nothing_changed():
    x = torch.randn(3, 2, 8, 9)
    torch.testing.assert_close(draw(IntensityConfig(), x.shape)(x), x)
    never = EVERYTHING.model_copy(update={"probability": 0.0})
    torch.testing.assert_close(draw(never, x.shape)(x), x)


def test_the_same_draw_changes_alike_and_each_setting_does_something():
    for dims in (2, 3):
        x = torch.randn(4, 1, *[8] * dims)
        change = draw(EVERYTHING, x.shape)
        assert torch.equal(change(x), change(x))
        for name in ("contrast", "brightness", "gamma", "noise", "blur"):
            alone = IntensityConfig(probability=1, **{name: getattr(EVERYTHING, name)})
            assert not torch.allclose(draw(alone, x.shape)(x), x, atol=1e-3), name


def only(batch=1, **values):
    """Nothing changes but what is given."""
    neutral = {"contrast": 1.0, "brightness": 0.0, "gamma": 1.0, "noise": 0.0, "blur": 0.0}
    given = {name: torch.tensor(values.get(name, [value] * batch)) for name, value in neutral.items()}
    return Intensity(**given, noise_seed=0)


def test_contrast_brightness_and_gamma_by_hand():
    x = torch.tensor([[2.0, 3.0], [4.0, 7.0]])[None, None]  # mean 4, extremes 2 and 7
    by_hand = {
        "contrast": ([1.5], [[1.0, 2.5], [4.0, 8.5]]),
        "brightness": ([-0.5], [[1.5, 2.5], [3.5, 6.5]]),
        "gamma": ([2.0], [[2.0, 2.2], [2.8, 7.0]]),  # 2 + 5 (1/5)^2, 2 + 5 (2/5)^2
    }
    for name, (value, expected) in by_hand.items():
        torch.testing.assert_close(only(**{name: value})(x)[0, 0], torch.tensor(expected), atol=1e-4, rtol=0)


def test_every_sample_has_a_change_of_its_own():
    x = torch.tensor([0.0, 1.0, 4.0, 4.0]).reshape(1, 1, 2, 2).repeat(3, 2, 1, 1)
    changed = only(3, gamma=[1.0, 0.5, 2.0])(x)
    for sample, value in zip(changed, (1.0, 2.0, 0.25), strict=True):  # 4 (1/4)^gamma
        torch.testing.assert_close(sample[:, 0, 1], torch.full((2,), value), atol=1e-4, rtol=0)
    blurred = only(2, blur=[0.0, 1.0])(x[:2])
    torch.testing.assert_close(blurred[0], x[0])
    assert not torch.allclose(blurred[1], x[1], atol=0.1)


def test_blur_is_a_gaussian_that_keeps_the_border():
    for dims in (2, 3):
        x = torch.zeros(1, 1, *[15] * dims)
        centre = (0, 0, *[7] * (dims - 1))
        x[*centre, 7] = 1
        row = only(blur=[1.5])(x)[centre]
        for step in (1, 2, 5):
            for side in (-1, 1):
                assert math.isclose(row[7 + side * step] / row[7], math.exp(-0.5 * (step / 1.5) ** 2), rel_tol=1e-4)
        assert float(row[1]) == 0  # three deviations are 4.5 voxels, rounded up
        even = torch.full((1, 1, *[6] * dims), 3.0)
        torch.testing.assert_close(only(blur=[1.5])(even), even)


def test_noise_is_drawn_from_its_seed_for_every_channel():
    x = torch.zeros(2, 2, 40, 40)
    noise = only(2, noise=[0.5, 0.0])(x)
    assert 0.45 < float(noise[0].std()) < 0.55
    assert float(noise[1].abs().max()) == 0
    assert not torch.equal(noise[0, 0], noise[0, 1])
    assert torch.equal(noise, only(2, noise=[0.5, 0.0])(x))


def test_an_intensity_depends_on_its_generator_alone():
    half = EVERYTHING.model_copy(update={"probability": 0.5})
    one, same, other = (vars(draw(half, (30, 1, 8, 8), seed)) for seed in (0, 0, 1))
    for name, value in one.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(same[name])), name
        assert not torch.equal(torch.as_tensor(value), torch.as_tensor(other[name])), name


def test_an_intensity_is_a_value():
    drawn = draw(EVERYTHING, (2, 1, 8, 8))
    with pytest.raises(FrozenInstanceError):
        drawn.noise_seed = 1
    assert drawn != Intensity(**vars(drawn))


def test_sizes():
    x = torch.randn(500, 1, 16, 16)
    noise = draw(IntensityConfig(probability=1, noise=0.2), x.shape)(x) - x
    assert float(noise.flatten(1).std(1).max()) < 0.25
    assert 0.05 < float(noise.flatten(1).std(1).mean()) < 0.15
    shift = (draw(IntensityConfig(probability=1, brightness=0.3), x.shape)(x) - x).mean((1, 2, 3))
    assert 0.25 < float(shift.abs().max()) <= 0.3001
    gamma = draw(IntensityConfig(probability=1, gamma=0.5), x.shape)(x)
    torch.testing.assert_close(gamma.amax((2, 3)), x.amax((2, 3)), atol=1e-3, rtol=0)  # extremes stay
    blurred = draw(IntensityConfig(probability=1, blur=1.0), x.shape)(x)
    torch.testing.assert_close(blurred.mean((2, 3)), x.mean((2, 3)), atol=0.15, rtol=0)
    assert float(blurred.std()) < 0.75


def correlation(first, second):
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


def test_every_draw_has_noise_of_its_own():
    x = torch.zeros(4, 1, 32, 32)
    alone = IntensityConfig(probability=1, noise=0.2)
    first, second = (draw(alone, x.shape, seed)(x) for seed in (0, 1))
    assert float(first.abs().mean()) > 0.01
    assert abs(correlation(first, second)) < 0.1
    assert abs(correlation(first[0], first[1])) < 0.15  # and every sample


def test_clipped_noise_is_drawn_anew_and_cut_at_twice_its_deviation():
    x = torch.randn(4, 1, 32, 32)
    first, again, second = (clipped_noise(x, 0.1, torch.Generator().manual_seed(k)) - x for k in (0, 0, 1))
    assert torch.equal(first, again)
    assert abs(correlation(first, second)) < 0.1
    assert 0.19 < float(first.abs().max()) < 0.2001
    assert abs(float(first.std()) - 0.1) < 0.01
    assert torch.equal(clipped_noise(x, 0.0, torch.Generator()), x)
