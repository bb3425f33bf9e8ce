"""A little Debian mirror, a folder: what debootstrap needs to install the machine's own release without a network.

    python -m guest.mirror        makes it (as root; 45 MB, half a minute) and prints where it is

`debootstrap --no-check-gpg --variant=minbase RELEASE TARGET file:///this/folder` installs from it, and so does
`deb [trusted=yes] file:///this/folder RELEASE main` in a sources.list.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from guest import fetch, root


def mirror() -> Path:
    return fetch.item("mirror", _make)


def _make(folder: Path) -> None:
    release = fetch.debian_release()
    scratch = folder / "scratch"
    fetch.say(f"downloading the packages of a minimal Debian {release}: 45 MB")
    root.debootstrap("--download-only", "--variant=minbase", release, scratch, fetch.debian_mirror())
    (folder / "pool").mkdir()
    for deb in (scratch / "var/cache/apt/archives").glob("*.deb"):
        deb.rename(folder / "pool" / deb.name.replace("%3a", "."))
    shutil.rmtree(scratch)
    index(folder, release)


def index(folder: Path, release: str) -> None:
    """Writes the index of the packages in `pool`, and the release file that vouches for it."""
    stanzas = []
    for deb in sorted((folder / "pool").glob("*.deb")):
        control = subprocess.run(["dpkg-deb", "--field", deb], capture_output=True, text=True, check=True).stdout
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        stanzas.append(f"{control}Filename: pool/{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n\n")
    name = "main/binary-amd64/Packages"
    packages = folder / "dists" / release / name
    packages.parent.mkdir(parents=True, exist_ok=True)
    packages.write_text("".join(stanzas))  # an empty line ends each, or debootstrap loses the last
    digest, size = hashlib.sha256(packages.read_bytes()).hexdigest(), packages.stat().st_size
    (folder / "dists" / release / "Release").write_text(
        f"Suite: {release}\nCodename: {release}\nArchitectures: amd64\nComponents: main\n"
        f"SHA256:\n {digest} {size} {name}\n"
    )


if __name__ == "__main__":
    try:
        print(mirror())
    except fetch.FetchError as error:
        sys.exit(f"mirror: {error}")
