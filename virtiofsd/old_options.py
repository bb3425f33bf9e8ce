"""The -o dialect of the first virtiofsd: words between commas, as fuse(8) takes them.

libvirt speaks it with daemons whose capabilities do not say that they take separate options.
"""

from collections.abc import Iterator
from typing import Any

from virtiofsd.errors import OptionError, shown
from virtiofsd.options import BY_NAME

# name=WORD: the option, and its words where they are others.
WITH_WORD: dict[str, tuple[str, dict[str, str] | None]] = {
    "source": ("--shared-dir", None),
    "cache": ("--cache", {"none": "never", "auto": "auto", "always": "always", "metadata": "metadata"}),
    "sandbox": ("--sandbox", {"namespace": "namespace", "chroot": "chroot"}),
    "loglevel": ("--log-level", {"err": "error", "warn": "warn", "info": "info", "debug": "debug"}),
    "modcaps": ("--modcaps", None),
    "xattrmap": ("--xattrmap", None),
}
# name, and no_name: the option, and its value for each.
SWITCHES: dict[str, tuple[str, Any, Any]] = {
    "xattr": ("--xattr", True, False),
    "readdirplus": ("--no-readdirplus", False, True),
    "writeback": ("--writeback", True, False),
    "allow_direct_io": ("--allow-direct-io", True, False),
    "announce_submounts": ("--announce-submounts", True, False),
    "killpriv_v2": ("--killpriv-v2", True, False),
    "posix_acl": ("--posix-acl", "always", "never"),
    "security_label": ("--security-label", "always", "never"),
    "posix_lock": ("--posix-lock", True, False),
    "flock": ("--flock", True, False),
}


def split(text: str) -> list[str]:
    r"""The words between commas. A comma inside one is written `,,` (libvirt) or `\,` (fuse)."""
    words = [""]
    rest = iter(range(len(text)))
    for index in rest:
        if text.startswith((",,", "\\,"), index):
            words[-1] += ","
            next(rest)
        elif text[index] == ",":
            words.append("")
        else:
            words[-1] += text[index]
    return words


def parse(text: str) -> Iterator[tuple[str, Any]]:
    """The keys and values that the words stand for, in order. OptionError."""
    for word in split(text):
        name, has_word, value = word.partition("=")
        if has_word and name in WITH_WORD:
            option_name, words = WITH_WORD[name]
            option = BY_NAME[option_name]
            assert option.parse is not None
            try:
                if words is not None and value not in words:
                    raise ValueError(f"it is one of {', '.join(words)}")
                yield option.key, option.parse(words[value] if words else value)
            except ValueError as error:
                raise OptionError(f"-o {name}={shown(value)}: {error}") from None
        elif not has_word and name.removeprefix("no_") in SWITCHES:
            option_name, on, off = SWITCHES[name.removeprefix("no_")]
            yield BY_NAME[option_name].key, off if name.startswith("no_") else on
        else:
            raise OptionError(f"-o {shown(word)}: it is unknown")
