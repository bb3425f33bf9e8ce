"""Builds the extension modules and installs share/ as it is; the rest about the package stands in pyproject.toml.

The modules keep to the limited API of CPython 3.11, so that one wheel does for all that came later. It costs nothing:
what a request meets is no Python at all (tools/check_hot_path.py). Free-threaded CPython has no such API yet.

Switches, in the environment:

  VIRTIOFSD_BUILD=debug      -O0 with debug symbols, and the data plane's own invariants (_ring/invariants.h)
  VIRTIOFSD_BUILD=sanitize   AddressSanitizer and UndefinedBehaviorSanitizer, and the invariants
  VIRTIOFSD_ANNOTATE=1       Cython's annotated source, build/cython/**/*.html
  VIRTIOFSD_FRONTEND=1       also the front-end of tests and benchmarks (frontend/, bench/), which is never installed
"""

import os
import pathlib
import shutil
import sysconfig

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

# A performance hint is how Cython says that a nogil function would take the GIL; see tools/check_hot_path.py too.
DIRECTIVES = {
    "language_level": 3,
    "cdivision": True,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "auto_pickle": False,
    "show_performance_hints": True,
}
FLAGS = {
    "release": (["-O2", "-g", "-fno-plt", "-fvisibility=hidden"], []),
    "debug": (["-O0", "-g3", "-DVIRTIOFSD_DEBUG"], []),
    "sanitize": (["-O1", "-g", "-DVIRTIOFSD_DEBUG", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined",
                  "-fno-omit-frame-pointer"], ["-fsanitize=address,undefined"]),
}
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")
WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-function", "-Wno-cast-function-type",
            "-Wno-missing-field-initializers"]


def extensions() -> list[Extension]:
    build = os.environ.get("VIRTIOFSD_BUILD", "release")
    if build not in FLAGS:
        raise SystemExit(f"VIRTIOFSD_BUILD={build}: it is one of {', '.join(FLAGS)}")
    compile_flags, link_flags = FLAGS[build]
    folders = [("virtiofsd/_ring", "virtiofsd._ring")]
    if os.environ.get("VIRTIOFSD_FRONTEND") == "1":
        folders += [("frontend", "frontend"), ("bench", "bench")]
    found: list[Extension] = []
    for folder, package in folders:
        headers = [str(path) for path in sorted(pathlib.Path(folder).glob("*.h"))]
        found += [
            Extension(
                f"{package}.{source.stem}", [str(source)], depends=headers, include_dirs=["virtiofsd/_ring"],
                extra_compile_args=[*compile_flags, *WARNINGS], extra_link_args=link_flags,
                define_macros=[("_GNU_SOURCE", "1"), *([("Py_LIMITED_API", "0x030B0000")] if LIMITED_API else [])],
                py_limited_api=LIMITED_API)
            for source in sorted(pathlib.Path(folder).glob("*.pyx"))]
    return found


def data_files() -> list[tuple[str, list[str]]]:
    """What lies in share/, each file at the same place below the prefix."""
    found: dict[str, list[str]] = {}
    for path in sorted(pathlib.Path("share").rglob("*")):
        if path.is_file():
            found.setdefault(str(path.parent), []).append(str(path))
    return list(found.items())


class Build(build):
    """What is installed."""

    def run(self) -> None:
        # What in-place builds and older checkouts left there would be installed, too.
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class BuildExtensions(build_ext):
    def run(self) -> None:
        super().run()
        if self.inplace:
            # A module that an older checkout or another Python left would be found before the one just built.
            for extension in self.extensions:
                built = pathlib.Path(self.get_ext_fullpath(extension.name))
                for other in built.parent.glob(f"{extension.name.rpartition('.')[2]}.cpython-*.so"):
                    if other != built:
                        other.unlink()


setup(
    ext_modules=cythonize(
        extensions(), build_dir="build/cython", compiler_directives=DIRECTIVES, nthreads=os.cpu_count() or 1,
        annotate=os.environ.get("VIRTIOFSD_ANNOTATE") == "1"),
    data_files=data_files(),
    cmdclass={"build": Build, "build_ext": BuildExtensions},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {})
