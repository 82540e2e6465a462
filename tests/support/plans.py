"""Small plans, affines of every kind, and labels that survive resampling."""

import numpy as np

from semiseg.data.plan import Plan


def make_plan(**changes):
    values = {
        "dims": 3,
        "channels": ["MRI"],
        "classes": {"background": 0, "a": 1, "b": 2},
        "spacing_mm": (None, None, None),
        "normalisation": [{}],
        "patch": (8, 8, 8),
        "batch": 2,
        "unlabelled_batch": 2,
        "network": {"strides": [(2, 2, 2), (2, 2, 2), (2, 2, 2)]},
    }
    return Plan.parse(values | changes, where="plan")


def rotation(degrees):
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])


def affine_of(order=(0, 1, 2), signs=(1, 1, 1), spacing=(1.0, 1.0, 1.0), degrees=0.0):
    affine = np.eye(4)
    directions = np.eye(3)[:, order] * signs
    affine[:3, :3] = rotation(degrees) @ directions * spacing
    affine[:3, 3] = (-20, 30, 7)
    return affine


AFFINES = {
    "RAS": affine_of(),
    "LPS": affine_of(signs=(-1, -1, 1)),
    "permuted": affine_of(order=(2, 0, 1), signs=(1, -1, -1), spacing=(3, 1, 1)),
    "oblique": affine_of(order=(1, 2, 0), signs=(-1, 1, 1), degrees=20),
    "anisotropic": affine_of(spacing=(0.7, 0.8, 5.0)),
}


def blocks(shape=(18, 20, 16)):
    """Two boxes with labels 1 and 2: survives resampling to a finer grid and back exactly."""
    label = np.zeros(shape, np.int16)
    label[3:9, 4:12, 2:10] = 1
    label[10:15, 6:16, 5:13] = 2
    return label
