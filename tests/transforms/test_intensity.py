import torch

from semiseg.transforms.intensity import Intensity, IntensityConfig

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
