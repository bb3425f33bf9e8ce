"""tools/check_hot_path.py: it passes on what was built, and finds each way in which Python could come in."""

import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

ROOT = pathlib.Path(__file__).parents[2]
GENERATED = "build/cython/virtiofsd/_ring"
HANDLER = "__pyx_f_9virtiofsd_5_ring_8attr_ops_op_getattr"

pytestmark = pytest.mark.skipif(not list((ROOT / GENERATED).glob("*.c")),
                                reason="there is no generated C to look at: nothing was built here")


def check(root: pathlib.Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "tools/check_hot_path.py"), *words]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path: pathlib.Path) -> pathlib.Path:
    """A tree of its own with all that the check reads."""
    for folder, pattern in (("tools", "check_hot_path.py"), ("_ring", "*.p[xy]*"), (GENERATED, "*.c")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for path in (ROOT / folder).glob(pattern):
            shutil.copy(path, tmp_path / folder)
    return tmp_path


def put_first(function: str, line: str) -> Callable[[str], str]:
    """Puts a line of C at the beginning of a function's body."""
    definition = re.compile(rf"(^static (?!const )[^;={{}}]*?\b{function}\([^;{{}}]*\) \{{\n)", re.MULTILINE)

    def change(text: str) -> str:
        changed, count = definition.subn(rf"\g<1>  {line}\n", text)
        assert count == 1, f"{function} was not found"
        return changed

    return change


def edit(tree: pathlib.Path, module: str, change: Callable[[str], str]) -> None:
    path = tree / GENERATED / f"{module}.c"
    path.write_text(change(path.read_text()))


def test_no_request_meets_python() -> None:
    result = check(ROOT)
    assert result.returncode == 0, result.stderr
    assert re.search(r"\d+ functions from \d threads and \d+ handlers, none meets Python", result.stdout)


def test_it_looks_at_every_handler_and_far_below_them() -> None:
    seen = check(ROOT, "--verbose").stdout.split()
    for function in ("op_getattr", "op_read", "op_create", "op_setlkw", "chain_collect", "lock_wait", "inodes_evict"):
        assert [name for name in seen if name.endswith(f"_{function}")], function
    assert len(seen) > 250


OFFENCES = {
    "an exception in a handler": ("attr_ops", "op_getattr", "PyErr_SetString(0, 0);"),
    "an exception in a function that a handler calls": ("entries", "fill_attr_out", "PyErr_SetString(0, 0);"),
    "the GIL in a function far below": ("mutex", "lock_wait", "PyGILState_Ensure();"),
    "a swallowed exception": ("chain", "chain_take", '__Pyx_WriteUnraisable("", 0, 0, "", 0, 0);'),
    "a trace-back": ("inodes", "inode_forget", '__Pyx_AddTraceback("", 0, 0, "");'),
    "a reference": ("request", "next_name", "Py_INCREF(Py_None);"),
    "a name of Python's that is no call": ("handles", "handle_acquire", "(void)PyExc_ValueError;"),
    "a raise": ("virtqueue", "ring_push", "__Pyx_RaiseUnboundLocalError(0);"),
    "a C function that nothing declares": ("file_ops", "op_write", "printf(0);"),
    "a system call past the declared ones": ("file_ops", "op_read", "getenv(0);"),
}


@pytest.mark.parametrize("module, function, line", OFFENCES.values(), ids=OFFENCES)
def test_an_offence_is_found_and_the_way_to_it_told(copy: pathlib.Path, module: str, function: str,
                                                   line: str) -> None:
    edit(copy, module, put_first(rf"__pyx_f_\w+?{module}_{function}", line))
    result = check(copy)
    assert result.returncode == 1, result.stdout
    word = re.match(r"\W*(?:void)?\W*(\w+)", line)
    assert word and word[1] in result.stderr
    assert function.removeprefix("ring_") in result.stderr.splitlines()[0]


def test_an_unchanged_copy_passes(copy: pathlib.Path) -> None:
    assert check(copy).returncode == 0


def test_a_function_that_no_body_was_found_of_is_an_offence(copy: pathlib.Path) -> None:
    edit(copy, "attr_ops", put_first(HANDLER, "__pyx_f_9virtiofsd_5_ring_7nowhere_missing();"))
    result = check(copy)
    assert result.returncode == 1 and "missing" in result.stderr


def test_python_outside_the_path_of_requests_is_none_of_its_business(copy: pathlib.Path) -> None:
    text = (copy / GENERATED / "operations.c").read_text()
    assert "PyList_New" in text or "__Pyx_" in text     # operations() is Python, and stands beside the dispatch
    assert check(copy).returncode == 0


def test_nothing_to_look_at_is_no_success(copy: pathlib.Path) -> None:
    for path in (copy / GENERATED).glob("*.c"):
        path.unlink()
    assert check(copy).returncode == 2


def test_threads_or_handlers_that_it_cannot_find_are_no_success(copy: pathlib.Path) -> None:
    (copy / GENERATED / "operations.c").unlink()
    assert check(copy).returncode != 0
