"""The weak augmentation moves everything on a batch together."""

from dataclasses import replace

import torch

from semiseg.draws import Draws
from semiseg.transforms.augment import Augmentation, augment
from semiseg.transforms.intensity import IntensityConfig
from semiseg.transforms.warp import Warp, WarpConfig
from semiseg.types import IGNORE, Batch

MOVES = Augmentation(warp=WarpConfig(rotate_deg=180, shift=0.3), intensity=IntensityConfig())


def batch_of(labelled: int = 3, unlabelled: int = 2) -> Batch:
    """The right half is bright, of class 1 and inside."""
    right = torch.zeros(labelled + unlabelled, 16, 16, dtype=torch.bool)
    right[..., 8:] = True
    image = right[:, None] * 2.0 + 1
    return Batch(image[:labelled], right[:labelled].long(), image[labelled:], right[labelled:], (1.0, 1.0))


def test_labels_and_masks_move_with_their_images():
    batch = augment(batch_of(), MOVES, Draws(0, 0))
    assert (batch.image.shape, batch.unlabelled.shape) == ((3, 1, 16, 16), (2, 1, 16, 16))
    sure = (batch.image - batch.image.round()).abs()[:, 0] < 1e-3  # between the halves linear and nearest differ
    image, label = batch.image[:, 0][sure].round(), batch.label[sure]
    assert (label[image == 3] != 0).all()
    assert (label[image == 1] != 1).all()
    for picture, outside in zip(batch.image[:, 0], batch.label == IGNORE, strict=True):
        assert picture[outside].unique().tolist() in ([1], [3])  # the median of the rim
    assert all((label == value).any() for value in (0, 1, IGNORE))
    alike = Warp.draw((5, 1, 16, 16), MOVES.warp, (1.0, 1.0), Draws(0, 0).of("weak warp"))
    assert torch.equal(batch.inside, alike.mask(torch.cat([batch_of().inside] * 3)[:5])[3:])
    assert not torch.equal(batch.inside[0], batch.inside[1])  # a draw of its own for every sample


def test_the_same_draws_change_alike_and_intensity_leaves_labels_alone():
    both = Augmentation(warp=MOVES.warp, intensity=IntensityConfig(probability=1, brightness=1))
    moved, changed = (augment(batch_of(), settings, Draws(0, 5)) for settings in (MOVES, both))
    assert torch.equal(moved.label, changed.label)
    assert torch.equal(moved.inside, changed.inside)
    assert not torch.equal(moved.image, changed.image)
    assert not torch.equal(moved.unlabelled, changed.unlabelled)
    assert not torch.equal(moved.label, augment(batch_of(), MOVES, Draws(0, 6)).label)


def test_probability_zero_returns_the_batch():
    batch = batch_of()
    batch = replace(batch, image=torch.randn(3, 1, 16, 16), unlabelled=torch.randn(2, 1, 16, 16))
    nothing = Augmentation(warp=WarpConfig(probability=0), intensity=IntensityConfig())
    for name, value in vars(augment(batch, nothing, Draws(0, 0))).items():
        assert name == "spacing_mm" or torch.equal(value, getattr(batch, name))


def test_the_default_is_the_weak_augmentation_that_the_benchmarks_had():
    assert vars(Augmentation().warp) == {
        "probability": 0.8,
        "rotate_deg": 20,
        "scale": (0.8, 1.25),
        "shear_deg": 5,
        "shift": 0.08,
        "elastic": 0.02,
        "smooth": 0.12,
        "flip": (),
        "at_least": 0,
    }
    assert vars(Augmentation().intensity) == {
        "probability": 0.3,
        "contrast": 0.3,
        "brightness": 0.2,
        "gamma": 0.3,
        "noise": 0.15,
        "blur": 0.8,
    }
