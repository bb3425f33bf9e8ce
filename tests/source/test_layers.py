"""The layers of the data plane: what a module knows lies below it, and nothing in it knows the control plane."""

import pathlib
import re

RING = pathlib.Path(__file__).parents[2] / "_ring"

# From the bottom to the top. A module may use those of the layers below its own, and of its own in one direction.
LAYERS = {
    "foreign declarations": "atomics fuse_abi invariants linux ticks vhost_user_abi virtio_abi",
    "locks, guest memory and plain values": "descriptors failures ids memory mutex names watched xattr_names",
    "rings": "virtqueue",
    "chains": "chain",
    "tables": "freshness handles inode_cache inode_eviction inode_identity inode_index inode_lifetime inode_places "
              "inode_slots inode_table inodes kept lock_owners lock_ranges slowness",
    "requests": "request",
    "the share": "share share_settings",
    "callers and entries": "caller entries extensions opened override",
    "operations": "attr_ops dir_ops file_ops ioctl_ops lock_ops name_ops session_ops xattr_ops",
    "dispatch": "operations",
    "the engine": "engine",
    "threads": "helping polling pool threads waits watchdog worker",
    "the boundary": "device process",
}
LEVEL = {module: level for level, modules in enumerate(LAYERS.values()) for module in modules.split()}

CIMPORT = re.compile(r"^\s*from\s+\.(\w+)\s+cimport\b", re.MULTILINE)
IMPORT = re.compile(r"^\s*(?:from|import|cimport)\s+([.\w]*)", re.MULTILINE)


def sources() -> list[pathlib.Path]:
    return sorted([*RING.glob("*.pyx"), *RING.glob("*.pxd")])


def uses() -> dict[str, set[str]]:
    """Which modules each module cimports from, in its declarations or its body."""
    found: dict[str, set[str]] = {}
    for path in sources():
        found.setdefault(path.stem, set()).update(set(CIMPORT.findall(path.read_text())) - {path.stem})
    return found


def upward(used: dict[str, set[str]], level: dict[str, int]) -> list[str]:
    return [f"{module} uses {other}, which lies above it" for module, others in sorted(used.items())
            for other in sorted(others) if level[other] > level[module]]


def circles(used: dict[str, set[str]]) -> list[str]:
    """What is left when again and again those that use nothing that is left are taken away."""
    left = {module: set(others) for module, others in used.items()}
    while free := {module for module, others in left.items() if not others & set(left)}:
        for module in free:
            del left[module]
    return sorted(left)


def test_every_module_has_its_layer() -> None:
    assert {path.stem for path in sources()} == set(LEVEL)


def test_no_module_uses_one_above_it() -> None:
    assert upward(uses(), LEVEL) == []


def test_modules_of_one_layer_use_each_other_in_one_direction() -> None:
    assert circles(uses()) == []


def test_an_upward_use_and_a_circle_would_be_found() -> None:
    used = uses()
    used["chain"] = used["chain"] | {"request"}
    assert upward(used, LEVEL) == ["chain uses request, which lies above it"]
    assert "chain" in circles(used)


def test_no_module_knows_the_control_plane() -> None:
    """But for its own name in the package, virtiofsd._ring."""
    for path in [*sources(), *RING.glob("*.py"), *RING.glob("*.pyi")]:
        modules = IMPORT.findall(path.read_text())
        foreign = [module for module in modules if module.split(".")[0] in ("virtiofsd", "frontend", "tests", "guest")]
        assert [module for module in foreign if not module.startswith("virtiofsd._ring.")] == [], path.name
        assert [module for module in modules if module.startswith("..")] == [], path.name


def test_foreign_declarations_only_declare() -> None:
    """Their code is C."""
    for name in LAYERS["foreign declarations"].split():
        assert not (RING / f"{name}.pyx").exists()
