"""Builds the extension modules; everything else about the package stands in pyproject.toml.

Switches, in the environment:

  VIRTIOFSD_BUILD=debug      -O0 with debug symbols, and the data plane's own assertions
  VIRTIOFSD_BUILD=sanitize   AddressSanitizer and UndefinedBehaviorSanitizer, and the assertions
  VIRTIOFSD_ANNOTATE=1       Cython's annotated source, build/cython/**/*.html
  VIRTIOFSD_FRONTEND=1       also the front-end of tests and benchmarks (frontend/, bench/), which is never installed
"""

import os
import pathlib

from Cython.Build import cythonize
from setuptools import Extension, setup

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
                define_macros=[("_GNU_SOURCE", "1")])
            for source in sorted(pathlib.Path(folder).glob("*.pyx"))]
    return found


setup(ext_modules=cythonize(
    extensions(), build_dir="build/cython", compiler_directives=DIRECTIVES, nthreads=os.cpu_count() or 1,
    annotate=os.environ.get("VIRTIOFSD_ANNOTATE") == "1"))
