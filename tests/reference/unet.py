"""ROAM's U-Net (Bdair et al., arXiv 2003.09439) in 2-D, pixel by pixel, and how many parameters it has.

Weights are numpy arrays under the names of a `roam-unet`; features are (rows, channels, height, width).
"""

from __future__ import annotations

import numpy as np


def parameters(widths, channels, classes):
    """Layer by layer: every convolution has a bias, every normalisation a scale and an offset a feature."""

    def convolution(inputs, outputs, side):
        return outputs * (inputs * side * side + 1)

    def block(inputs, outputs):
        return convolution(inputs, outputs, 3) + convolution(outputs, outputs, 3) + 2 * 2 * outputs

    total, inputs = 0, channels
    for width in widths:
        total += block(inputs, width)
        inputs = width
    for width in widths[-2::-1]:
        total += convolution(inputs, width, 2) + 2 * width  # up-sampling has a normalisation as well
        total += block(2 * width, width)
        inputs = width
    return total + convolution(inputs, classes, 1)


def convolved(x, weight, bias):
    """A convolution with zeros around the picture; weight (outputs, inputs, side, side), side odd."""
    around = weight.shape[-1] // 2
    rows, _, height, width = x.shape
    found = np.zeros((rows, len(weight), height, width))
    for row, output, i, j in np.ndindex(*found.shape):
        total = float(bias[output])
        for source, di, dj in np.ndindex(*weight.shape[1:]):
            y, z = i + di - around, j + dj - around
            if 0 <= y < height and 0 <= z < width:
                total += float(weight[output, source, di, dj]) * float(x[row, source, y, z])
        found[row, output, i, j] = total
    return found


def up_sampled(x, weight, bias):
    """A transposed convolution of side 2 and step 2: every pixel becomes four; weight (inputs, outputs, 2, 2)."""
    rows, inputs, height, width = x.shape
    found = np.zeros((rows, weight.shape[1], 2 * height, 2 * width))
    for row, output, i, j in np.ndindex(*found.shape):
        part = (float(weight[k, output, i % 2, j % 2]) * float(x[row, k, i // 2, j // 2]) for k in range(inputs))
        found[row, output, i, j] = float(bias[output]) + sum(part)
    return found


def batch_norm(x, scale, offset, epsilon=1e-5):
    """Of every feature, over rows and pixels: mean 0 and variance 1, then scale and offset. Also mean and variance.

    The variance that divides is that of the batch itself; the one returned, for running statistics, is divided by one
    less than the number of values.
    """
    found, means, variances = np.zeros(x.shape), [], []
    for k in range(x.shape[1]):
        values = [float(value) for value in x[:, k].reshape(-1)]
        mean = sum(values) / len(values)
        squares = sum((value - mean) ** 2 for value in values)
        found[:, k] = (x[:, k] - mean) / np.sqrt(squares / len(values) + epsilon) * scale[k] + offset[k]
        means.append(mean)
        variances.append(squares / (len(values) - 1))
    return found, np.array(means), np.array(variances)


def running(before, batch, momentum=0.99):
    """A running statistic after one more batch, with the momentum as Keras says it."""
    return momentum * before + (1 - momentum) * batch


def pooled(x):
    """The largest of every two by two pixels."""
    rows, channels, height, width = x.shape
    found = np.zeros((rows, channels, height // 2, width // 2))
    for row, k, i, j in np.ndindex(*found.shape):
        found[row, k, i, j] = x[row, k, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max()
    return found


def logits(weights, x, epsilon=1e-5):
    """What the network makes of a batch in training."""

    def normalised(features, name):
        features, _, _ = batch_norm(features, weights[f"{name}.weight"], weights[f"{name}.bias"], epsilon)
        return np.maximum(features, 0)

    def block(features, name, first):
        for k in (first, first + 3):  # convolution, normalisation, ReLU; and once more
            features = convolved(features, weights[f"{name}.{k}.weight"], weights[f"{name}.{k}.bias"])
            features = normalised(features, f"{name}.{k + 1}")
        return features

    levels = len({name.split(".")[2] for name in weights if name.startswith("encoder.stages.")})
    skips = [block(x, "encoder.stages.0", 0)]
    for level in range(1, levels):
        skips.append(block(pooled(skips[-1]), f"encoder.stages.{level}", 1))
    features = skips.pop()
    for step in range(levels - 1):
        name = f"decoder.up.{step}"
        features = up_sampled(features, weights[f"{name}.0.weight"], weights[f"{name}.0.bias"])
        features = normalised(features, f"{name}.1")
        features = block(np.concatenate([features, skips.pop()], axis=1), f"decoder.stages.{step}", 0)
    return convolved(features, weights["head.weight"], weights["head.bias"])
