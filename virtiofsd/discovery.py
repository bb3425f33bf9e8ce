"""What management software such as libvirt wants to know of this back-end (QEMU's docs/interop/vhost-user.json).

  python -m virtiofsd.discovery [BINARY]     prints the file by which it is found, 50-virtiofsd.json
"""

import json
import pathlib
import sys
import sysconfig

# What a caller may rely on; separate-options: words such as --cache auto instead of -o cache=auto.
FEATURES = ("posix-acl-negotiation-mode", "security-label-negotiation-mode", "separate-options")


def capabilities() -> str:
    return json.dumps({"type": "fs", "features": FEATURES}, indent=2) + "\n"


def description(binary: str) -> str:
    """The discovery file of the program that is installed there."""
    return json.dumps({"description": "virtiofsd: a directory of the host, shared by virtio-fs", "type": "fs",
                       "binary": binary, "features": FEATURES}, indent=2) + "\n"


def main() -> int:
    wants_help = sys.argv[1:] in (["-h"], ["--help"])
    if wants_help or len(sys.argv) > 2:
        print("usage: python -m virtiofsd.discovery [BINARY]", file=sys.stdout if wants_help else sys.stderr)
        return 0 if wants_help else 2
    binary = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else f"{sysconfig.get_path('scripts')}/virtiofsd").absolute()
    if not binary.is_file():
        print(f"virtiofsd.discovery: {binary}: there is no such program", file=sys.stderr)
        return 1
    sys.stdout.write(description(str(binary)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
