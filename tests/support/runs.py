"""Settings of a tiny run on balls."""

from semiseg.experiments.run_settings import RunSettings

PLAN = {
    "patch": [8, 8],
    "batch": 2,
    "unlabelled_batch": 2,
    "network": {"widths": [4, 8], "strides": [[2, 2]]},
}


def settings_of(root, method="equireg", steps=6, plan=None, **more) -> RunSettings:
    values = {
        "data": {"path": str(root), "labelled": "2", **more.pop("data", {})},
        "method": {"name": method, "ema": 0.9, **more.pop("method_settings", {})},
        "training": {
            "steps": steps, "precision": "32", "log_every": 1, "checkpoint_every": 2, "validate_every": 3,
            "tensorboard": False, **more.pop("training", {}),
        },
        "plan": {**PLAN, **(plan or {})},
        "dims": "2",
        **more,
    }  # fmt: skip
    return RunSettings.parse(values, where="")
