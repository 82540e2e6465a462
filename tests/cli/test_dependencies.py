"""What semiseg needs: versions that are tested, licences that everybody can live with, a bill of materials."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from distributions import (
    TIED,
    VENDOR,
    bill_of_materials,
    constraints,
    installed_closure,
    lowest,
    lowest_versions,
    required,
    vendored,
)
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]

PERMISSIVE = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "MIT", "MIT-CMU", "PSF-2.0"),
    *("LLVM-exception", "Zlib"),
    "MPL-2.0",  # of certifi and a part of tqdm: asks for the source of its own files, which are used as they are
    # in words, as older metadata has them
    *("Apache", "Apache 2.0", "Apache License 2.0", "Apache Software License"),
    *("BSD", "BSD License", "3-Clause BSD License"),
    *(
        "ISC License (ISCL)",
        "MIT License",
        "Mozilla Public License 2.0 (MPL 2.0)",
        "Python Software Foundation License",
    ),
}


def licences_of(found: Distribution) -> set[str]:
    """Of the newest kind of metadata that it has: an expression, else classifiers, else the first line of a text."""
    known = found.metadata
    classified = [line.split(" :: ")[-1] for line in known.get_all("Classifier", []) if line.startswith("License :: ")]
    if not known.get("License-Expression") and classified:
        return set(classified)
    text = known.get("License-Expression") or known.get("License") or "none is named"
    return set(re.split(r" (?:AND|OR|WITH) ", re.sub(r"[()]", "", text.strip().splitlines()[0])))


def test_every_requirement_has_one_lower_bound_and_a_version_that_was_tested():
    tested = constraints()
    named = required()
    assert len(named) > 20
    for one in named:
        name, bound = lowest(one)
        assert one.specifier.contains(tested[name]), one
        assert Version(bound) <= Version(tested[name])
    with pytest.raises(ValueError, match=r"pyproject.toml: got numpy<3, expected one lower bound"):
        lowest(Requirement("numpy<3"))
    assert lowest(Requirement("PyYAML>=6.0,!=6.1")) == ("pyyaml", "6.0")


def test_the_tested_versions_name_everything_that_is_needed():
    assert installed_closure().keys() - {"semiseg"} <= constraints().keys()


def test_the_lowest_versions_and_all_others():
    wanted, others = lowest_versions()
    assert wanted["pytest"] == constraints()["pytest"]
    assert wanted["pillow"] == dict(map(lowest, required()))["pillow"]
    assert not wanted.keys() & others.keys()
    assert {*wanted, *others, *TIED} == {*constraints()}


def test_licences_are_permissive():
    found = {name: licences_of(one) - PERMISSIVE for name, one in installed_closure().items()}
    assert len(found) > 60
    assert not {name: unknown for name, unknown in found.items() if unknown}


def test_an_unknown_licence_is_told(tmp_path):
    def told(text: str) -> set[str]:
        (tmp_path / "METADATA").write_text(f"Metadata-Version: 2.4\nName: a\nVersion: 1\n{text}\n")
        return licences_of(Distribution.at(tmp_path)) - PERMISSIVE

    assert told("License-Expression: (MIT OR GPL-3.0-only) AND Zlib") == {"GPL-3.0-only"}
    assert told("Classifier: License :: OSI Approved :: GNU Affero General Public License v3") == {
        "GNU Affero General Public License v3"
    }
    assert told("License: Proprietary") == {"Proprietary"}
    assert told("Summary: nothing said") == {"none is named"}
    assert told("License: MIT") == set()


def test_what_others_wrote_in_the_package_is_what_its_licence_says():
    (viewer,) = vendored()
    files = {path.name for path in VENDOR.iterdir()} - {"LICENSE.txt"}
    assert files == {"niivue.umd.js"}
    content = (VENDOR / "niivue.umd.js").read_bytes()
    assert viewer["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}]
    assert len(viewer["components"]) == 8
    licences = {one["licenses"][0]["license"]["id"] for one in (viewer, *viewer["components"])}
    assert licences == {"BSD-2-Clause", "ISC", "MIT"}
    assert licences <= PERMISSIVE


@pytest.mark.slow
def test_the_bill_of_materials_keeps_to_its_schema_and_names_everything():
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    bill = bill_of_materials()
    schema = JsonStrictValidator(SchemaVersion.V1_6)
    assert schema.validate_str(json.dumps(bill)) is None
    assert (
        schema.validate_str(json.dumps({**bill, "components": [{"name": "no type"}], "dependencies": []})) is not None
    )
    names = {canonicalize_name(part["name"]) for part in bill["components"]}
    assert names == {*installed_closure(), "niivue"} - {"semiseg"}
    assert not names & {"pytest", "mypy", "cyclonedx-bom"}
    refs = {part["bom-ref"] for part in bill["components"]}
    hangs = {one["ref"]: one["dependsOn"] for one in bill["dependencies"]}
    assert {ref for others in hangs.values() for ref in others} == refs
    direct = {canonicalize_name(one.name) for one in required()}
    assert {canonicalize_name(ref.split("==")[0]) for ref in hangs["root-component"]} == {*direct, "niivue-umd-js"}


@pytest.mark.slow
def test_the_same_commit_gives_the_same_wheel_and_sdist(tmp_path):
    """From two copies whose files are of different dates, with different permissions, hours apart."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    files = [name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]
    made = []
    for index, mode in enumerate((0o644, 0o600)):
        copy = tmp_path / f"copy{index}"
        for name in files:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
            (copy / name).chmod(mode | (0o111 if os.access(ROOT / name, os.X_OK) else 0))
            os.utime(copy / name, (1e9 + index * 1e8, 1e9 + index * 1e8))
        words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path / f"dist{index}"), str(copy)]
        there = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "TZ": ("UTC", "Asia/Tokyo")[index]}
        subprocess.run(words, check=True, capture_output=True, env=there, timeout=600)
        made.append(
            {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / f"dist{index}").iterdir()}
        )
    assert sorted(name.rpartition(".")[2] for name in made[0]) == ["gz", "whl"]
    assert made[0] == made[1]
