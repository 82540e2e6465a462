"""The distributions that semiseg needs when it runs, with all its extras.

python tools/distributions.py lowest        requirements for pip: the lowest versions that pyproject.toml admits
python tools/distributions.py sbom FILE     write what is installed, and what lies in the package, as CycloneDX JSON
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
VENDOR = ROOT / "src" / "semiseg" / "report" / "vendor"
EXTRAS = ("dask", "demo", "hdf5", "tensorboard")
"""Those of users; the others are for work on semiseg."""
TIED = ("dask", "pydantic-core")
"""Those whose version another one, distributed or pydantic, decides."""
TEST_TOOLS = ("beartype", "hypothesis", "pytest", "pytest-timeout", "pytest-xdist")


def required() -> list[Requirement]:
    """What pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *(text for extra in EXTRAS for text in project["optional-dependencies"][extra])]
    return [Requirement(text) for text in named]


def lowest_versions() -> tuple[dict[str, str], dict[str, str]]:
    """Name to version: of what pyproject.toml names, its lower bound, and the tools of the tests; and of everything
    else, as it was tested."""
    tested = constraints()
    wanted = dict(map(lowest, required())) | {name: tested[name] for name in TEST_TOOLS}
    return wanted, {name: version for name, version in tested.items() if name not in {*wanted, *TIED}}


def lowest(requirement: Requirement) -> tuple[str, str]:
    """Canonical name and lower bound."""
    bounds = [one.version for one in requirement.specifier if one.operator == ">="]
    if len(bounds) != 1:
        raise ValueError(f"pyproject.toml: got {requirement}, expected one lower bound; give it one that was tested")
    return canonicalize_name(requirement.name), bounds[0]


def constraints() -> dict[str, str]:
    """Of constraints.txt: the version of each distribution, by its canonical name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def installed_closure() -> dict[str, Distribution]:
    """semiseg and everything that it needs, as it is installed here, by canonical name."""
    found: dict[str, Distribution] = {}
    done: set[tuple[str, str]] = set()
    waiting = [("semiseg", extra) for extra in ("", *EXTRAS)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in done:
            continue
        done.add((name, extra))
        found[name] = distribution(name)
        for text in found[name].requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), inner) for inner in ("", *needed.extras)]
    return found


def bill_of_materials() -> dict[str, Any]:
    """CycloneDX 1.6: what `installed_closure` names, how it hangs together, and what others wrote in the package."""
    words = [
        sys.executable,
        "-m",
        "cyclonedx_py",
        "environment",
        "--output-reproducible",
        "--no-validate",
        "--sv",
        "1.6",
    ]
    words += ["--mc-type", "library", "--pyproject", str(ROOT / "pyproject.toml"), sys.executable]
    bill: dict[str, Any] = json.loads(subprocess.run(words, check=True, capture_output=True).stdout)
    needed, direct = installed_closure(), {canonicalize_name(one.name) for one in required()}
    names = {part["bom-ref"]: canonicalize_name(part["name"]) for part in bill["components"]}
    parts = [part for part in bill["components"] if names[part["bom-ref"]] in needed.keys() - {"semiseg"}]
    known, root = {part["bom-ref"] for part in parts}, bill["metadata"]["component"]["bom-ref"]
    uses = {one["ref"]: [ref for ref in one.get("dependsOn", ()) if ref in known] for one in bill["dependencies"]}
    own = vendored()
    uses[root] = [ref for ref in uses[root] if names[ref] in direct] + [part["bom-ref"] for part in own]
    hangs = [{"ref": ref, "dependsOn": others} for ref, others in uses.items() if ref in known | {root}]
    return bill | {"components": parts + own, "dependencies": hangs}


def vendored() -> list[dict[str, Any]]:
    """Components of what others wrote and lies in the package, with what is in them, from the licences beside it."""
    text = (VENDOR / "LICENSE.txt").read_text(encoding="utf-8")
    head = re.match(r"(\S+) is .* of the npm package @(\S+)/(\S+) (\S+), unchanged\.\nSHA-256: ([0-9a-f]{64})\n", text)
    kind = re.search(r"^Its licence:\n\n(BSD 2-Clause) License$", text, re.M)
    if head is None or kind is None:
        raise ValueError(
            f"{VENDOR / 'LICENSE.txt'}: expected file, package, version and SHA-256 first, then its licence"
        )
    file, group, name, version, digest = head.groups()
    inside = re.findall(r"^---- (\S+) \((\S+)\) ----$", text, re.M)
    return [
        {
            "bom-ref": f"{file}=={version}",
            "type": "library",
            "group": f"@{group}",
            "name": name,
            "version": version,
            "hashes": [{"alg": "SHA-256", "content": digest}],
            "licenses": _licensed(kind[1].replace(" ", "-")),
            "purl": f"pkg:npm/%40{group}/{name}@{version}",
            "components": [{"type": "library", "name": part, "licenses": _licensed(spdx)} for part, spdx in inside],
        }
    ]


def _licensed(spdx: str) -> list[dict[str, dict[str, str]]]:
    return [{"license": {"id": spdx}}]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["lowest", folder]:
            for name, versions in zip(("requirements", "constraints"), lowest_versions(), strict=True):
                lines = (f"{one}=={version}\n" for one, version in versions.items())
                (Path(folder) / f"{name}.txt").write_text("".join(lines))
        case ["sbom", file]:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps(bill_of_materials(), indent=2, sort_keys=True)
            Path(file).write_text(text + "\n", encoding="utf-8")
        case _:
            sys.exit(__doc__)
