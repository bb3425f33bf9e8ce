"""The protocol's numbers and structs are what the tables say, in every language."""

import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def check(root: pathlib.Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(root / "tools/generate_abi.py"), "--check"], capture_output=True,
                          text=True)


def test_generated_files_are_what_the_tables_say() -> None:
    result = check(ROOT)
    assert result.returncode == 0, result.stderr


def test_a_file_that_was_changed_by_hand_is_named(tmp_path: pathlib.Path) -> None:
    for folder in ("tools", "_ring", "frontend", "virtiofsd"):
        (tmp_path / folder).mkdir()
    shutil.copytree(ROOT / "tools", tmp_path / "tools", dirs_exist_ok=True)
    for pattern in ("_ring/*_abi.h", "_ring/*_abi.pxd", "frontend/*_abi.py", "virtiofsd/*_abi.py"):
        for path in ROOT.glob(pattern):
            shutil.copy(path, tmp_path / path.relative_to(ROOT))
    assert check(tmp_path).returncode == 0
    header = tmp_path / "_ring/fuse_abi.h"
    header.write_text(header.read_text().replace("#define FUSE_LOOKUP 1\n", "#define FUSE_LOOKUP 2\n"))
    (tmp_path / "frontend/fuse_abi.py").unlink()
    result = check(tmp_path)
    assert result.returncode == 1
    assert "_ring/fuse_abi.h" in result.stderr and "frontend/fuse_abi.py" in result.stderr
    assert "_ring/fuse_abi.pxd" not in result.stderr
