"""Cross pseudo supervision: Chen et al., CVPR 2021, arXiv 2106.01226; code charlesCXK/TorchSemiSeg and SSL4MIS."""

from __future__ import annotations

from reference.voxels import at, cross_entropy, everywhere, guesses, mean_over, one_hot, supervised


def one_way(logits, guessing_logits, inside=None):
    """Cross-entropy of one network against the most probable class of the other, held constant; mean over voxels."""
    inside = everywhere(logits) if inside is None else inside
    label, _ = guesses(guessing_logits)
    target = one_hot(label, logits.shape[1])
    return mean_over(inside, lambda place: cross_entropy(at(target, place), at(logits, place)))


def cross(first_logits, second_logits, inside=None):
    """Both ways. Every voxel counts: there is no threshold."""
    return one_way(first_logits, second_logits, inside) + one_way(second_logits, first_logits, inside)


def terms(first_labelled, second_labelled, label, first_logits, second_logits, weight=1.0, inside=None):
    """Labelled losses of both networks added up, and `weight` times both ways, on the unlabelled images alone."""
    return {
        "supervised": supervised(first_labelled, label) + supervised(second_labelled, label),
        "consistency": weight * cross(first_logits, second_logits, inside),
    }
