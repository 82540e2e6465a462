"""What of a scan is shown: channel and window."""

import numpy as np
import pytest
from support.plans import make_plan

from semiseg.data.plan import Normalisation
from semiseg.errors import UserError
from semiseg.prediction.look import WINDOWS, Look

CT = Normalisation(scheme="window", low=-200, high=300)


def test_a_named_window_is_level_and_width():
    values = np.array([-2000, -1350, -600, 150, 3000], np.float32).reshape(5, 1, 1)
    assert WINDOWS["lung"] == (-600, 1500)
    assert Look(window="lung").grey(values, CT).ravel().tolist() == [0, 0, 128, 255, 255]
    assert Look().grey(values, CT).ravel().tolist() == [0, 0, 0, 178, 255]  # the network's: 350 of 500


def test_a_picture_of_eight_bits_was_windowed_by_who_made_it():
    values = np.linspace(0, 255, 256, dtype=np.float32).reshape(256, 1, 1)
    rule = CT.model_copy(update={"eight_bit": True})
    assert np.array_equal(Look(window="lung").grey(values, rule), Look().grey(values, rule))


def test_a_channel_by_name():
    plan = make_plan(channels=("t1", "ct"), normalisation=[{"scheme": "zscore"}, CT.model_dump()])
    assert Look().channel_of(plan) == 0
    assert Look(channel="ct", window="bone").channel_of(plan) == 1
    with pytest.raises(UserError, match="--overlay-channel: got 't2', expected one of: t1, ct"):
        Look(channel="t2").channel_of(plan)
    with pytest.raises(UserError, match="--overlay-window: got 'ear', expected one of: abdomen, bone"):
        Look(channel="ct", window="ear").channel_of(plan)
    with pytest.raises(UserError, match="--overlay-window: got 'lung' for channel t1, expected a channel of CT"):
        Look(window="lung").channel_of(plan)
