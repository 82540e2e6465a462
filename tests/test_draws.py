import torch

from semiseg.draws import Draws, seed_of


def test_a_draw_depends_on_every_part_and_on_nothing_else():
    def numbers(*parts, purpose="a"):
        torch.rand(3)  # the global generator has no say
        return torch.rand(4, generator=Draws(*parts).of(purpose)).tolist()

    assert numbers(1, 2, 3) == numbers(1, 2, 3)
    variants = [
        numbers(1, 2, 3),
        numbers(0, 2, 3),
        numbers(1, 0, 3),
        numbers(1, 2, 0),
        numbers(1, 2, 3, purpose="b"),
    ]
    assert len({tuple(v) for v in variants}) == len(variants)
    assert seed_of(1, 23) != seed_of(12, 3)
    assert seed_of("x") == 2697552496229297191  # the same on every machine and in every version
