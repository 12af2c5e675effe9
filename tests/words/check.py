#!/usr/bin/env python3
"""Reports words that this project does not use (`words.py`), as `file:line: word -> what to use instead`.

    tests/words/check.py                 the pages: README.md, CHANGELOG.md, SECURITY.md, docs; exit code 1 if it finds any
    tests/words/check.py --code          counts them in the Rust sources of src and crates; exit code 1 if it finds any
    tests/words/check.py --code --list   lists them as well
    tests/words/check.py FILE...         only these files; exit code 1 if it finds any

Needs Python's standard library only.
"""

import argparse
import collections
import pathlib
import re
import sys

from words import ALLOWED, ENTRIES, GIVES

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = ["README.md", "CHANGELOG.md", "SECURITY.md", "docs/*.md"]
SOURCES = ["src/**/*.rs", "crates/**/*.rs"]

RUST = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)
    |(?P<string>b?r(?P<hashes>\#*)".*?"(?P=hashes)|b?"(?:\\.|[^"\\])*")
    |(?P<char>b?'(?:\\.[^']*|[^'\\])')
    |(?P<name>[A-Za-z_]\w*)""",
    re.VERBOSE | re.DOTALL,
)
# The words of an identifier: `SinkSwap`, `sink_swap` and `SINK_SWAP` have two each.
WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# Parts of a page that are no prose: queries, and code within a line.
NO_PROSE = re.compile(r"```sql\n.*?```|(?<!`)(?P<ticks>`{1,2})(?!`)[^\n]*?(?<!`)(?P=ticks)(?!`)", re.DOTALL)


def whole_words(pattern):
    """Compiles a pattern of `words.py` for prose."""
    return re.compile(rf"(?<![\w-])(?:{pattern})(?![\w-])".replace(" ", r"\s+"), re.IGNORECASE)


PROSE = [(entry, whole_words(entry.prose)) for entry in ENTRIES if entry.prose and entry is not GIVES]
GIVES_FIRST = re.compile(rf"/// (?:{GIVES.prose})\b", re.IGNORECASE)
NAMES = [(entry, re.compile(entry.name)) for entry in ENTRIES if entry.name]
TYPES = {name: entry for entry in ENTRIES if entry.type for name in entry.type.split("|")}


def blank(match, by="·"):
    """Returns a text of the same length and lines that no pattern matches."""
    return re.sub(r"[^\n]", by, match.group())


def in_prose(text):
    """Yields (offset, words, entry) for each finding in a text."""
    for entry, pattern in PROSE:
        for match in pattern.finditer(text):
            if not any(match.groupdict().values()):
                yield match.start(), " ".join(match.group().split()), entry


def in_name(name):
    """Yields each entry that forbids an identifier."""
    if name in TYPES:
        yield TYPES[name]
    words = [word.lower() for word in WORDS.findall(name)]
    for before, word in zip(["", *words], words):
        if before == "dead" and word.startswith("letter"):
            continue
        yield from (entry for entry, pattern in NAMES if pattern.fullmatch(word))


def in_page(text):
    """Yields (offset, words, entry) for each finding in Markdown."""
    yield from in_prose(NO_PROSE.sub(blank, text))


def in_rust(text):
    """Yields (offset, words, entry) for each finding in comments, strings and names of Rust source."""
    # All comments are one text, since a sentence may span lines.
    comments = list(re.sub(r"[^\n]", " ", text))
    for token in RUST.finditer(text):
        start = token.start()
        if token["comment"]:
            if GIVES_FIRST.match(token["comment"]):
                yield start, "gives", GIVES
            comment = re.sub(r"^/(?:/[/!]?|\*)", lambda mark: blank(mark, " "), token["comment"])
            comments[start : token.end()] = re.sub(r"`[^`\n]*`", blank, comment)
        elif token["string"]:
            yield from ((start + offset, words, entry) for offset, words, entry in in_prose(token["string"]))
        elif token["name"]:
            yield from ((start, token["name"], entry) for entry in in_name(token["name"]))
    yield from in_prose("".join(comments))


def findings(name, text):
    """Returns a sorted list of (line, words, what to use instead) for a file with this name and content."""
    is_rust = name.endswith(".rs")
    found = {(text.count("\n", 0, at) + 1, words, entry.instead) for at, words, entry in (in_rust if is_rust else in_page)(text)}
    if is_rust:
        stem = pathlib.PurePath(name).stem
        found |= {(1, f"file name {stem}", entry.instead) for entry in in_name(stem)}
    lines = text.split("\n")
    allowed = [pattern for file, pattern, _ in ALLOWED if file == name]
    return sorted(one for one in found if not any(re.search(pattern, lines[one[0] - 1]) for pattern in allowed))


def main():
    """Runs the command line and returns the exit code."""
    parser = argparse.ArgumentParser(description="Reports words that this project does not use.")
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    parser.add_argument("--code", action="store_true", help="count in the Rust sources of src and crates")
    parser.add_argument("--list", action="store_true", help="with --code: list them as well")
    options = parser.parse_args()
    patterns = SOURCES if options.code else PAGES
    files = [file.resolve() for file in options.files] or sorted(file for pattern in patterns for file in ROOT.glob(pattern))
    counts = collections.Counter()
    for file in files:
        name = file.relative_to(ROOT).as_posix() if file.is_relative_to(ROOT) else str(file)
        for line, words, instead in findings(name, file.read_text()):
            counts[instead] += 1
            if options.list or not options.code:
                print(f"{name}:{line}: {words} -> {instead}")
    if options.code:
        for instead, count in counts.most_common():
            print(f"{count:6}  -> {instead}")
    print(f"{counts.total()} in {len(files)} files")
    return int(counts.total() > 0)


if __name__ == "__main__":
    sys.exit(main())
