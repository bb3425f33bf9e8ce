#!/usr/bin/env python3
"""Writes the protocol constants and wire structs from tools/abi/*.toml into every language that needs them.

  generate_abi.py            writes the files
  generate_abi.py --check    exits with 1 and names the files that differ from what would be written

Each table gives a C header (defines, packed-free structs, size and offset assertions), a .pxd that declares what the
header has, and a Python module (enums, integers, layouts). Nothing else in the project spells out a protocol number.
"""

import pathlib
import re
import sys
import tomllib
from typing import Any

from generated import ROOT, write_or_check

WIDTH = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "i32": 4, "i64": 8}
C_TYPE = {name: f"{'u' if name[0] == 'u' else ''}int{name[1:]}_t" for name in WIDTH}
STRUCT_CODE = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i32": "i", "i64": "q"}
FIELD = re.compile(r"(\w+) (\w+)(?:\[(\d+)\])?$")

# table: (stem of the C header and .pxd in _ring, Python module)
TARGETS = {
    "fuse": ("_ring/fuse_abi", "frontend/fuse_abi.py"),
    "virtio": ("_ring/virtio_abi", "virtiofsd/virtio_abi.py"),
    "vhost_user": ("_ring/vhost_user_abi", "virtiofsd/vhost_user_abi.py"),
}


class Field:
    def __init__(self, text: str, table: "Table") -> None:
        match = FIELD.fullmatch(text.strip())
        if not match:
            raise SystemExit(f"generate_abi: bad field {text!r}")
        self.type, self.name, count = match.groups()
        self.count = int(count) if count else None
        self.width = WIDTH[self.type] if self.type in WIDTH else table.structs[self.type].size
        self.size = self.width * (self.count or 1)


class Struct:
    def __init__(self, name: str, description: dict[str, Any], table: "Table") -> None:
        self.name, self.size = name, description["size"]
        self.fields = [Field(text, table) for text in description["fields"].split(",")]
        offset = 0
        self.offsets: list[int] = []
        self.alignment: int = 1
        for field in self.fields:
            alignment = field.width if field.type in WIDTH else table.structs[field.type].alignment
            if offset % alignment:
                raise SystemExit(f"generate_abi: {name}.{field.name} would be padded")
            self.offsets.append(offset)
            self.alignment = max(self.alignment, alignment)
            offset += field.size
        if offset != self.size:
            raise SystemExit(f"generate_abi: {name} has {offset} bytes, not {self.size}")


class Table:
    def __init__(self, path: pathlib.Path) -> None:
        with path.open("rb") as file:
            data = tomllib.load(file)
        self.prefix, self.about = data["prefix"], data["about"]
        self.source = path.relative_to(ROOT)
        # (group, name in the protocol, name with the prefix, value)
        self.constants: list[tuple[str, str, str, int]] = []
        for section in ("enums", "named_enums", "bits", "named_bits"):
            for group, members in data.get(section, {}).items():
                for name, value in members.items():
                    full = name if section.startswith("named") else f"{self.prefix}_{name}"
                    self.constants.append((group, name, full, 1 << value if section.endswith("bits") else value))
        self.structs: dict[str, Struct] = {}
        for name, description in data["structs"].items():
            self.structs[name] = Struct(name, description, self)

    def struct_name(self, name: str) -> str:
        return f"{self.prefix.lower()}_{name}"

    def header(self) -> str:
        guard = f"{self.prefix}_ABI_H"
        lines = [f"/* {self.about}", f"   Written by tools/generate_abi.py from {self.source}. */",
                 f"#ifndef {guard}", f"#define {guard}", "", "#include <stddef.h>", "#include <stdint.h>", ""]
        group = None
        for this, _, full, value in self.constants:
            if this != group:
                lines += [""] if group else []
                group = this
            suffix = "ULL" if value >= 1 << 32 else "U" if value >= 1 << 31 else ""
            lines.append(f"#define {full} {value:#x}{suffix}" if value > 255 else f"#define {full} {value}{suffix}")
        for struct in self.structs.values():
            name = self.struct_name(struct.name)
            lines += ["", f"struct {name} {{"]
            for field in struct.fields:
                kind = C_TYPE.get(field.type, f"struct {self.struct_name(field.type)}")
                lines.append(f"    {kind} {field.name}{f'[{field.count}]' if field.count else ''};")
            lines += ["};", f'_Static_assert(sizeof(struct {name}) == {struct.size}, "{name}");']
            lines += [f'_Static_assert(offsetof(struct {name}, {field.name}) == {offset}, "{name}.{field.name}");'
                      for field, offset in zip(struct.fields, struct.offsets, strict=True)]
        return "\n".join([*lines, "", "#endif", ""])

    def pxd(self, header: str) -> str:
        lines = [f"# {self.about}", f"# Written by tools/generate_abi.py from {self.source}.", "",
                 "from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t", ""]
        used = {C_TYPE[f.type] for s in self.structs.values() for f in s.fields if f.type in C_TYPE} | {"uint64_t"}
        lines[3] = "from libc.stdint cimport " + ", ".join(
            sorted(used, key=lambda t: (t[0] == "u", int(re.sub(r"\D", "", t)))))
        lines += [f'cdef extern from "{pathlib.Path(header).name}" nogil:']
        group = None
        for this, _, full, value in self.constants:
            wide = value >= 1 << 31
            key = (this, wide)
            if key != group:
                lines.append("    enum:" if not wide else "    # wider than an enum's member")
                group = key
            lines.append(f"    const uint64_t {full}" if wide else f"        {full}")
        for struct in self.structs.values():
            lines += ["", f"    struct {self.struct_name(struct.name)}:"]
            for field in struct.fields:
                kind = C_TYPE.get(field.type, self.struct_name(field.type))
                lines.append(f"        {kind} {field.name}{f'[{field.count}]' if field.count else ''}")
        return "\n".join([*lines, ""])

    def flat(self, struct: Struct, prefix: str = "") -> tuple[str, list[str]]:
        codes = ""
        names: list[str] = []
        for field in struct.fields:
            if field.type not in WIDTH:
                code, inner = self.flat(self.structs[field.type], f"{prefix}{field.name}_")
                codes, names = codes + code, names + inner
            elif field.type == "u8" and field.count:
                codes, names = codes + f"{field.count}s", [*names, prefix + field.name]
            elif field.count:
                codes += f"{field.count * field.width}s"
                names.append(prefix + field.name)
            else:
                codes, names = codes + STRUCT_CODE[field.type], [*names, prefix + field.name]
        return codes, names

    def python(self) -> str:
        lines = [f'"""{self.about}', "", f"Written by tools/generate_abi.py from {self.source}.", '"""', ""]
        enums = {"opcode": "Opcode", "front_request": "FrontRequest", "back_request": "BackRequest"}
        groups = {group for group, *_ in self.constants}
        if groups & set(enums):
            lines += ["from enum import IntEnum", ""]
        lines += ["from virtiofsd.layout import Layout", ""]
        group = None
        for this, name, full, value in self.constants:
            if this != group:
                gap = 0 if group is None else 1 if this not in enums and group not in enums else 2
                lines += [""] * gap + ([f"class {enums[this]}(IntEnum):"] if this in enums else [])
                group = this
            if this in enums:
                lines.append(f"    {name.removeprefix('BACKEND_')} = {value}")
            else:
                lines.append(f"{full} = {value:#x}" if value > 255 else f"{full} = {value}")
        lines.append("")
        for struct in self.structs.values():
            codes, names = self.flat(struct)
            head = f'{struct.name.upper()} = Layout("{struct.name}", "={codes}", "'
            words, line = names, head
            out = []
            for index, word in enumerate(words):
                piece = word + (" " if index < len(words) - 1 else "")
                if len(line) + len(piece) > 114:
                    out.append(line + '"')
                    line = " " * head.index('"') + '"'
                line += piece
            out.append(line + '")')
            lines += out
        return "\n".join([*lines, ""])


def syscalls() -> str:
    """The module with system call numbers."""
    with (ROOT / "tools/abi/syscalls.toml").open("rb") as file:
        numbers = tomllib.load(file)["numbers"]
    lines = ['"""System call numbers of Linux, for the seccomp filters.', "",
             "Written by tools/generate_abi.py from tools/abi/syscalls.toml.", '"""', "",
             "# name: (x86-64, aarch64), -1: it has none of this name", "NUMBERS = {"]
    lines += [f'    "{name}": ({x86}, {arm}),' for name, (x86, arm) in sorted(numbers.items())]
    return "\n".join([*lines, "}", ""])


def main() -> int:
    texts = {"virtiofsd/syscalls_abi.py": syscalls()}
    for table_name, (stem, module) in TARGETS.items():
        table = Table(ROOT / "tools/abi" / f"{table_name}.toml")
        texts |= {f"{stem}.h": table.header(), f"{stem}.pxd": table.pxd(f"{stem}.h"), module: table.python()}
    return write_or_check("generate_abi", "tables", texts)


if __name__ == "__main__":
    sys.exit(main())
