"""What was measured on scans of hippocampi and of brains."""

import torch

from semiseg.data.fingerprint import Fingerprint
from semiseg.data.plan import Normalisation


def facts(shape, spacing=(1.0, 1.0, 1.0), channels=("MRI",), box=None, zero=0.0, classes=3, scans=5, window=False):
    rule = Normalisation(scheme="window", low=-100, high=200, mean=50, deviation=60) if window else Normalisation()
    return Fingerprint(
        channels=tuple(channels),
        classes={"background" if value == 0 else f"c{value}": value for value in range(classes)},
        shapes=(shape,) * scans,
        boxes=(box or shape,) * scans,
        spacings_mm=(spacing,) * scans,
        zero_shares=(zero,) * scans,
        normalisation=(rule,) * len(channels),
    )


HIPPOCAMPUS = facts((35, 50, 36))


BRAIN = facts((240, 240, 155), channels=("t1", "t1c", "t2", "flair"), box=(138, 172, 140), zero=0.8, classes=4)


def kept_by_training(network, patch):
    """Bytes that autograd keeps for two images of three classes, and the parameters five times."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = network(torch.randn(2, 1, *patch))
        probability = logits.softmax(1)
        (torch.nn.functional.cross_entropy(logits, torch.zeros(2, *patch, dtype=torch.long)) + probability.sum())
    parameters = {parameter.data_ptr(): parameter for parameter in network.parameters()}
    measured = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in parameters)
    return measured + 5 * sum(p.untyped_storage().nbytes() for p in parameters.values())
