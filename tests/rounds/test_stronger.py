"""The students' augmentation."""

import pytest

from semiseg.rounds.stronger import stronger
from semiseg.transforms.augment import Augmentation


def test_every_range_grows_by_the_factor_and_nothing_else_changes():
    plain = Augmentation()
    strong = stronger(plain, 1.5)
    assert (strong.warp.rotate_deg, strong.warp.shear_deg) == (30, 7.5)
    assert strong.warp.scale == pytest.approx((0.8**1.5, 1.25**1.5))
    assert strong.warp.shift == pytest.approx(0.12)
    assert strong.warp.elastic == pytest.approx(0.03)
    for name in ("contrast", "brightness", "gamma", "noise", "blur"):
        assert getattr(strong.intensity, name) == pytest.approx(1.5 * getattr(plain.intensity, name))
    for group in ("warp", "intensity"):
        before, after = getattr(plain, group), getattr(strong, group)
        assert before.probability == after.probability
    assert (strong.warp.smooth, strong.warp.flip, strong.warp.at_least) == (plain.warp.smooth, (), 0)


def test_once_is_as_it_was_and_never_is_none():
    assert stronger(Augmentation(), 1.0) == Augmentation()
    none = stronger(Augmentation(), 0.0)
    assert none.warp.scale == (1, 1)
    assert none.warp.rotate_deg == none.intensity.noise == 0


def test_the_largest_factor_gives_settings_that_can_be_read():
    for plain in (Augmentation(), Augmentation.parse({"warp": {"shear_deg": 80}}, where="it")):
        Augmentation.parse(stronger(plain, 10.0).model_dump(mode="json"), where="it")
