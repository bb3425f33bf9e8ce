"""The documents say what is there: flags, operations, files, functions, options, log lines, and links between them."""

import ast
import pathlib
import re
import tomllib

import pytest

from frontend.fuse_abi import Opcode
from virtiofsd import command_line
from virtiofsd._ring.operations import operations

ROOT = pathlib.Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FOLDERS = ("_ring", "virtiofsd", "frontend", "guest", "bench", "tools", "tests")
SUFFIXES = {".py", ".pyi", ".pyx", ".pxd", ".h", ".toml", ".sh"}

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
TABLE_ROW = re.compile(r"^\| *(\d+) *\| *(\w+) *\|", re.MULTILINE)
FILE = re.compile(r"[\w./-]+\.(?:py|pyi|pyx|pxd|h|toml|md|sh|json)|[\w.-]+(?:/[\w.-]*)+")
FUNCTION = re.compile(r"([A-Za-z_]\w*)\(\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
OURS = {"--check", "--verbose"}  # of tools


def text_of(name: str) -> str:
    return (ROOT / name).read_text()


def section(document: str, heading: str) -> str:
    """From a heading to the next of its kind."""
    begin = re.search(rf"^## {re.escape(heading)}$", document, re.MULTILINE)
    assert begin, f"there is no section {heading}"
    return document[begin.end():].split("\n## ")[0]


def anchors(document: str) -> set[str]:
    """What #fragments lead to, by the rule of forges: lower case, no punctuation, dashes for blanks."""
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
            for heading in HEADING.findall(FENCED.sub("", document))}


def sources() -> str:
    return "\n".join(path.read_text() for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*"))
                     if path.suffix in SUFFIXES and not {"build", "__pycache__"} & set(path.parts))


# Form

def test_lines_end_where_they_should() -> None:
    """After 120 characters; what no linter looks at. Rows of tables cannot be wrapped, nor pictures and commands."""
    files = [*DOCUMENTS, *ROOT.glob("_ring/*.h"), *ROOT.glob("frontend/*.h"), *ROOT.glob("guest/*.sh"),
             ROOT / "pyproject.toml", ROOT / "Makefile", ROOT / "tools/setup", ROOT / ".ci/run"]
    assert [f"{path.relative_to(ROOT)}:{number}" for path in files if path.name != "options.md"    # which is generated
            for number, line in enumerate(path.read_text().splitlines(), 1)
            if len(line) > 120 and not line.startswith(("|", "!", "    "))] == []


# Links

@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: pathlib.Path) -> None:
    text = document.read_text()
    dead = []
    for link in LINK.findall(text):
        if re.match(r"https?:", link):
            continue
        name, _, fragment = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (fragment and fragment not in anchors(target.read_text())):
            dead.append(link)
    assert dead == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    pages = {(ROOT / link.partition("#")[0]).resolve() for link in LINK.findall(text_of("README.md"))}
    assert {page for page in DOCUMENTS if page.name != "README.md"} <= pages


# The protocol

def test_every_init_flag_is_told_with_its_number() -> None:
    told = {(int(number), name) for number, name in TABLE_ROW.findall(section(text_of("docs/fuse.md"), "INIT flags"))}
    table = tomllib.loads(text_of("tools/abi/fuse.toml"))["bits"]["init"]
    assert told == {(number, name) for name, number in table.items()}


def test_a_flag_is_told_to_be_taken_just_where_it_is() -> None:
    wanted = re.search(r"^cdef uint64_t wanted_flags.*?^    return flags$", text_of("_ring/session_ops.pyx"),
                       re.MULTILINE | re.DOTALL)
    assert wanted
    taken = set(re.findall(r"\bFUSE_(\w+)", wanted[0]))
    rows = re.findall(r"^\| *\d+ *\| *(\w+) *\| *([^|]*?) *\|", section(text_of("docs/fuse.md"), "INIT flags"),
                      re.MULTILINE)
    assert {name for name, when in rows if when != "never"} == taken


def test_every_operation_is_told_and_who_serves_it() -> None:
    part = section(text_of("docs/fuse.md"), "Operations")
    rows = {name: (int(number), by, how) for number, name, by, how in re.findall(
        r"^\| *(\d+) *\| *(\w+) *\| *([^|]*?) *\| *([^|]*?) *\|$", part, re.MULTILINE)}
    assert {name: number for name, (number, _, _) in rows.items()} == {code.name: code.value for code in Opcode}
    table = {name: flags for _, name, flags in operations()}
    for name, (_, by, how) in rows.items():
        assert by == ("not served" if name not in table else "pool" if "sleeps" in table[name] else "worker"), name
        flags = table.get(name, frozenset())
        assert bool(re.match(r"modifies\b", how)) == ("modifies" in flags), name
        assert (", caller" in how) == ("as-caller" in flags), name


def test_every_ioctl_that_is_passed_on_is_told() -> None:
    code = text_of("_ring/ioctl_ops.pyx")
    body = re.search(r"^cdef int run\(.*?^    return -ENOTTY$", code, re.MULTILINE | re.DOTALL)
    assert body
    told = re.findall(r"^\| (FS_IOC_\w+) \|", section(text_of("docs/fuse.md"), "IOCTL"), re.MULTILINE)
    assert told == re.findall(r"command == (FS_IOC_\w+)", body[0])


# Names of the code

def words_of(name: str) -> list[str]:
    return CODE.findall(FENCED.sub("", text_of(name)))


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "docs/fuse.md"])
def test_files_that_are_named_exist(name: str) -> None:
    lost = []
    for word in words_of(name):
        if not FILE.fullmatch(word) or word.startswith("/"):
            continue
        places = [ROOT / word, *(ROOT / folder / word for folder in FOLDERS)]
        if not any(place.exists() for place in places) and not word.startswith("build/"):
            lost.append(word)
    assert lost == []


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "docs/fuse.md"])
def test_functions_that_are_named_exist(name: str) -> None:
    code = sources()
    called = {function for text in [*words_of(name), *FENCED.findall(text_of(name))]
              for function in FUNCTION.findall(text)}
    assert called
    defined = r"(?:^ *(?:async )?def|^ *c?p?def [\w *]*?|^static [\w *]*?)\b{}\("
    assert {function for function in called
            if not re.search(defined.format(function), code, re.MULTILINE)} == set()


def test_other_names_of_the_architecture_stand_in_the_code() -> None:
    code = sources() + text_of("setup.py") + text_of("Makefile") + text_of("pyproject.toml")
    known = set(re.findall(r"[A-Za-z_]\w*", code))
    names = {part for word in words_of("ARCHITECTURE.md") if re.fullmatch(r"[A-Za-z_][\w.]*", word)
             and not FILE.fullmatch(word) for part in word.split(".") if part}
    assert names - known == set()


def test_fields_and_methods_that_are_named_exist() -> None:
    code = sources()
    members = re.findall(r"`([A-Z]\w+)\.(\w+)`", text_of("ARCHITECTURE.md"))
    assert len(members) > 8
    lost = []
    for owner, member in members:
        bodies = re.findall(rf"^(?:cdef (?:class|struct)|class) {owner}\b.*\n((?:[ \t]+.*\n|\n)*)", code, re.MULTILINE)
        if not any(re.search(rf"\b{member}\b", body) for body in bodies):
            lost.append(f"{owner}.{member}")
    assert lost == []


def test_sections_that_the_code_refers_to_exist() -> None:
    referred = {heading for pattern in (r'"([\w ]+)" in ARCHITECTURE', r'see "([\w ]+)" in ARCHITECTURE',
                                        r'See "([\w ]+)" in ARCHITECTURE')
                for heading in re.findall(pattern, sources())}
    assert {"Inodes", "Freshness", "Credentials", "Request scheduling"} <= referred
    assert referred <= set(HEADING.findall(text_of("ARCHITECTURE.md")))


def test_every_module_of_the_data_plane_has_its_place_in_the_architecture() -> None:
    architecture = text_of("ARCHITECTURE.md")
    modules = {path.stem for path in (ROOT / "_ring").glob("*.pyx")}
    assert {module for module in modules if not re.search(rf"\b{module}\b", architecture)} == set()
    control = {path.stem for path in (ROOT / "virtiofsd").glob("*.py") if not path.stem.startswith("__")}
    assert {module for module in control if not re.search(rf"\b{module}\b", architecture)} == set()


# Options and log lines

def known_options() -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", command_line.make_parser().format_help()))


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/fuse.md",
                                  "docs/consistency.md"])
def test_options_that_are_named_exist(name: str) -> None:
    text = "\n".join(line for line in text_of(name).splitlines() if "qemu-system" not in line)
    assert set(OPTION.findall(text)) - OURS - known_options() == set()


def test_options_of_the_daemon_in_command_lines_exist() -> None:
    joined = text_of("docs/running.md").replace("\\\n", " ")
    lines = re.findall(r"(?:^    |`)(virtiofsd [^\n`]*)", joined, re.MULTILINE)
    assert len(lines) > 8
    for line in lines:
        assert set(OPTION.findall(line)) <= known_options(), line


def strings() -> str:
    """All texts of the control plane, with those that stand in pieces over several lines put together."""
    found = [text_of("_ring/device.pyx")]
    for path in sorted((ROOT / "virtiofsd").glob("*.py")):
        found += [node.value for node in ast.walk(ast.parse(path.read_text()))
                  if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return "\n".join(found)


def test_log_lines_and_messages_that_are_explained_are_said() -> None:
    part = section(text_of("docs/running.md"), "When something is wrong").split("### What the guest says")[0]
    said = strings()
    rows = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", part, re.MULTILINE)
    assert len(rows) > 20
    messages = [message for row in rows for message in CODE.findall(row)]
    messages += [word for line in part.splitlines() if "The reasons: " in line
                 for word in CODE.findall(line.split("The reasons: ")[1])]
    pieces = {piece for message in messages for piece in re.split("…", message) if len(piece.strip(" :,;")) > 2}
    assert {piece for piece in pieces if piece not in said} == set()
