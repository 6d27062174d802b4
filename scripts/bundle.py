"""Builds the bundle that hosts of the MCPB format install with a click: the program's source, and what starts it.

    python scripts/bundle.py [--to FOLDER]

Nothing is fetched and nothing needs to be installed: the host brings Python and the dependencies with uv, by the
`pyproject.toml` in the bundle. Built twice from the same files, the bundle has the same bytes.
Source: the MCPB manifest specification, version 0.4, "UV Runtime".
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dualmem_mcp"
_ROOT_FILES = ("pyproject.toml", "README.md", "LICENSE")
_DEVELOPERS = re.compile(rb"^\[dependency-groups\]\n.*?(?=^\[)", re.MULTILINE | re.DOTALL)
"""What only developers need: uv would install it for whoever runs the bundle."""
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can state


def main() -> int:
    """Build the bundle; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--to", type=Path, default=ROOT / "dist", help="the folder to put it in")
    bundle = build(parser.parse_args().to)
    digest = hashlib.sha256(bundle.read_bytes()).hexdigest()
    print(f"{bundle}: {bundle.stat().st_size:,} bytes, SHA-256 {digest}")
    return 0


def build(folder: Path) -> Path:
    """The bundle, written into that folder."""
    manifest = json.loads((ROOT / "mcpb" / "manifest.json").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    bundle = folder / f"{manifest['name']}-{manifest['version']}.mcpb"
    with zipfile.ZipFile(bundle, "w") as archive:
        for name, path in sorted(contents().items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            data = path.read_bytes()
            archive.writestr(entry, _DEVELOPERS.sub(b"", data) if name == "pyproject.toml" else data)
    return bundle


def contents() -> dict[str, Path]:
    """The files of the bundle, by their names in it."""
    found = {path.name: path for path in (ROOT / "mcpb").iterdir() if path.is_file()}
    found |= {name: ROOT / name for name in _ROOT_FILES}
    for path in PACKAGE.rglob("*"):
        name = path.relative_to(ROOT)
        # What tools leave beside the source is none of it.
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in name.parts):
            found[name.as_posix()] = path
    return found


if __name__ == "__main__":
    sys.exit(main())
