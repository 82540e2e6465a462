import pytest
import torch
from test_every_method import batch_of

from semiseg.draws import Draws
from semiseg.methods import build_method


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("logits", [False, True])
def test_an_equivariant_network_has_nothing_to_learn_from_unlabelled_images(dims, logits):
    """A network of single voxels commutes with flips: T(f(u)) is f(T(u)), so the term is zero; u is not symmetric."""
    torch.manual_seed(0)
    network = (torch.nn.Conv2d if dims == 2 else torch.nn.Conv3d)(1, 3, 1)
    flips = {"flip": tuple(range(dims))}
    plain = {"ema": 0.0, "intensity": {}, "cutmix": 0.0, "confidence": 0.0, "warp": flips, "warp_logits": logits}
    batch = batch_of(dims, unlabelled=8)
    term = build_method("equireg", network, plain)(batch, Draws(0, 0), 0.5).terms["consistency"]
    assert float(term.detach()) == pytest.approx(0, abs=1e-5)
