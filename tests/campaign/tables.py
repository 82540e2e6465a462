"""Tables of scans: columns, cells and bytes that are not as they should be."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from campaign.case import Case
from campaign.world import words

HEAD = "case,image,label,split,group\n"
IMAGE, LABEL = "D/images/case0.nii.gz", "D/labels/case0.nii.gz"
ROW = f"a,{IMAGE},{LABEL},,\n"
REFUSED: dict[str, str | bytes] = {
    "empty": "",
    "head-alone": HEAD,
    "no-head": ROW,
    "unknown-column": f"{HEAD.strip()},age\n{ROW.strip()},7\n",
    "misspelt-column": HEAD.replace("image", "imgae") + ROW,
    "column-twice": f"case,image,image\na,{IMAGE},{IMAGE}\n",
    "no-image": "case,image\na,\n",
    "no-case": f"case,image\n,{IMAGE}\n",
    "case-twice": HEAD + ROW + ROW,
    "path-for-a-name": f"case,image\n../../evil,{IMAGE}\n",
    "backslash": f"case,image\na\\b,{IMAGE}\n",
    "dot": f"case,image\n.,{IMAGE}\n",
    "unknown-split": HEAD + ROW.replace(",,", ",both,"),
    "too-many-values": f"{HEAD}{ROW.strip()},x,y\n",
    "nul": f"{HEAD}a\0b,{IMAGE},,,\n",
    "nul-in-a-path": f"{HEAD}a,D/images/case\0.nii.gz,,,\n",
    "all-nul": bytes(20000),
    "latin-1": f"{HEAD}caf\xe9,{IMAGE},,,\n".encode("latin-1"),
    "utf-16": (HEAD + ROW).encode("utf-16"),
    "open-quote": f'{HEAD}"{ROW}',
    "long-value": f"{HEAD}{'x' * 200000},{IMAGE},,,\n",
    "long-path": f"{HEAD}a,{'x' * 5000}.nii.gz,,,\n",
    "missing-files": f"{HEAD}a,nowhere.nii.gz,nolabel.nii.gz,,\n",
    "image-is-a-folder": f"{HEAD}a,D/images,,,\n",
    "image-is-its-label": f"{HEAD}a,{LABEL},{LABEL},,\n",
    "semicolons": (HEAD + ROW).replace(",", ";"),
    "binary": bytes(range(256)) * 9,
    "gaps-in-channels": f"case,image,image_3\na,{IMAGE},{IMAGE}\n",
    "label-of-another": f"{HEAD}a,{IMAGE},D/labels/case1.nii.gz,,\n",
}
MAY_PASS: dict[str, str | bytes] = {
    "too-few-values": f"{HEAD}a,{IMAGE}\n",
    "utf-8-with-mark": b"\xef\xbb\xbf" + (HEAD + ROW).encode(),
    "group-parted": f"{HEAD}a,{IMAGE},{LABEL},train,g\nb,{IMAGE.replace('0', '1')},{LABEL.replace('0', '1')},test,g\n",
    "spaces": (HEAD + ROW).replace(",", " , "),
    "formula": f"{HEAD}=1+1,{IMAGE},{LABEL},,@g\n",
}
COMMANDS = {
    "check": "check t.csv --strict",
    "train": "train t.csv --labelled 1 @tiny --out out",
    "predict": "predict RUN t.csv --out out",
}


def cases() -> Iterator[Case]:
    names = ("t.csv", "D/", "nowhere", "case", "group")
    for name, text in {**REFUSED, **MAY_PASS}.items():
        for command, line in COMMANDS.items():
            # predicting needs no labels; of one case, nothing can be trained but itself
            exits = {"check": (3,), "train": (2, 3), "predict": (0, 3, 4)}[command]
            ends = (0, *exits) if name in MAY_PASS else exits
            edit = partial(_write, text=text.encode() if isinstance(text, str) else text)
            yield Case(f"table/{name}/{command}", words(line), ends, names, edit)


def _write(here: Path, text: bytes) -> None:
    (here / "t.csv").write_bytes(text)
