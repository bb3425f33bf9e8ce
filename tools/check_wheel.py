#!/usr/bin/env python3
"""Looks into wheels: what must be in them is, what must not is not, and they are small.

  check_wheel.py WHEEL...     0: they are in order; 1: what is wrong, a line each
"""

import pathlib
import re
import sys
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZE_MAX = 2 << 20
TAGS = re.compile(r"-cp311-abi3-(manylinux|musllinux)_\d+_\d+_(x86_64|aarch64)\b.*\.whl")
SOURCES = (".pyx", ".pxd", ".c", ".h", ".o", ".pyc")


def wanted() -> set[str]:
    """What the checkout says must be there."""
    package = ROOT / "virtiofsd"
    modules = {str(path.relative_to(ROOT)) for path in package.glob("*.py")} | {"virtiofsd/py.typed"}
    data_plane = {f"virtiofsd/_ring/{path.name}" for pattern in ("*.py", "*.pyi")
                  for path in (package / "_ring").glob(pattern)}
    compiled = {f"virtiofsd/_ring/{path.stem}.abi3.so" for path in (package / "_ring").glob("*.pyx")}
    return modules | data_plane | compiled


def shared() -> set[str]:
    return {str(path.relative_to(ROOT)) for path in (ROOT / "share").rglob("*") if path.is_file()}


def complaints(wheel: pathlib.Path) -> list[str]:
    found = []
    if not TAGS.search(wheel.name):
        found.append("its name says neither manylinux nor musllinux, or another ABI than abi3")
    size = wheel.stat().st_size
    with zipfile.ZipFile(wheel) as archive:
        names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        unpacked = sum(entry.file_size for entry in archive.infolist())
        found += [f"{name} has symbols for debuggers" for name in names
                  if name.endswith(".so") and b".debug_info" in archive.read(name)]
    if max(size, unpacked) > SIZE_MAX:
        found.append(f"{size} bytes, {unpacked} unpacked: more than {SIZE_MAX}")
    modules = {name for name in names if ".dist-info/" not in name and ".data/" not in name}
    data = {name.partition(".data/data/")[2] for name in names if ".data/" in name}
    found += [f"{name} is missing" for name in sorted((wanted() - modules) | (shared() - data))]
    found += [f"{name} does not belong there" for name in sorted((modules - wanted()) | (data - shared()))]
    found += [f"{name} is a source" for name in names if name.endswith(SOURCES)]
    found += [f"no {name}" for name in ("entry_points.txt", "licenses/LICENSE")
              if not any(entry.endswith(f".dist-info/{name}") for entry in names)]
    return found


def main() -> int:
    wrong = [f"{path}: {complaint}" for path in sys.argv[1:] for complaint in complaints(pathlib.Path(path))]
    print("\n".join(wrong), end="\n" if wrong else "", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
