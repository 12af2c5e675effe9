#!/usr/bin/env python3
"""Removes every sync of the log, the file sink and the disk in turn, and sees that a power-loss test notices.

The list is generated from the source: each call of something named `sync_...`, and SQLite's `synchronous` and
`wal_checkpoint`. All are patched at once into a copy of the tree, each behind a number in the
environment, so that everything is built once. A mutant is caught when the unit tests on the fake disk fail, or else the
record-and-crash test. Exit code 1 when one is missed, or when a sync is written in a way that this script cannot remove.

    tests/power_loss/mutants.py [--list] [--only N[,N...]] [--unit-only]
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TREE = ROOT / "target/mutants/tree"
TARGET = ROOT / "target/mutants/target"
FOLDERS = ["crates/dt-log/src", "crates/dt-server/src/sink/file"]
# Unit tests that know of power loss: whatever is near the code.
UNIT_TESTS = {"dt_log": [], "dt_server": ["sink::file::"]}
POWER = {
    "DT_RECEIVER_TEST_POWER_POINTS": "200",
    "DT_RECEIVER_TEST_POWER_PER_PHASE": "10",
    "DT_RECEIVER_TEST_SEED": "1",
}
UNIT_SECONDS, POWER_SECONDS = 600, 1800

# Arguments in parentheses, nested to some depth; a receiver: names, paths, fields, calls, `?`, indexes.
ARGUMENTS = r"\((?:[^()]|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))*\)"
CALL = rf"(?:{ARGUMENTS}|\?|\[[^\]]*\])*"
RECEIVER = rf"(?:&\s*)?[A-Za-z_]\w*(?:::\w+)*{CALL}(?:\s*\.\s*\w+{CALL})*?"
SYNC = re.compile(rf"(?P<call>(?<!fn )(?<![\w.:])(?:{RECEIVER}\s*\.\s*|(?:\w+::)*)(?!sync_channel)sync_\w+{ARGUMENTS})")
PRAGMA = re.compile(r'(?:"synchronous",|set_journal_mode\([^)]*?,\s*"\w+",)\s*(?P<value>"\w+"|\d)')
# The value comes from the callers, which are in the list.
PASSED_ON = '"synchronous", synchronous)'
LITERAL = re.compile(r'"[^"\n]*(?:synchronous|wal_checkpoint)[^"\n]*"')
ANY = re.compile(r'(?<!fn )\b(?!sync_channel)sync_\w+\(|"synchronous"|synchronous\s*=|wal_checkpoint')

SWITCH = '''
/// Which sync is left out: patched in by tests/power_loss/mutants.py.
pub mod mutant {
    /// Returns whether it is this one.
    pub fn on(number: u32) -> bool {
        static ON: std::sync::LazyLock<Option<u32>> =
            std::sync::LazyLock::new(|| std::env::var("DT_RECEIVER_MUTANT").ok()?.parse().ok());
        *ON == Some(number)
    }
}
'''


def production(text):
    """The part of a file before its tests, with comments blanked out so that offsets stay."""
    end = re.search(r"^#\[cfg\(test\)\]\s*mod \w+ \{", text, re.M)
    text = text[: end.start()] if end else text
    return re.sub(r"//[^\n]*", lambda found: " " * len(found.group()), text)


def replacement(number, name, found):
    """What a match becomes."""
    switch = f"{'crate' if name.startswith('crates/dt-log/') else 'dt_log'}::mutant::on({number})"
    if found.re is SYNC:
        return found.start("call"), found.end("call"), f"(if {switch} {{ Ok(()) }} else {{ {found['call']} }})"
    if found.re is PRAGMA:
        value = found["value"]
        off = '"OFF"' if value.startswith('"') else "0"
        return found.start("value"), found.end("value"), f"if {switch} {{ {off} }} else {{ {value} }}"
    value = found.group()
    off = re.sub(r"synchronous\s*=\s*\w+", "synchronous=OFF", value)
    # A pragma that returns three columns as well, and writes nothing.
    off = re.sub(r"PRAGMA wal_checkpoint(\(\w+\))?", "SELECT 0, 0, 0", off)
    return found.start(), found.end(), f"(if {switch} {{ {off} }} else {{ {value} }})"


def mutants():
    """All sites: file, line, what is there; and the patched text of each file."""
    sites, patched, problems = [], {}, []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.rs")):
            name = path.relative_to(ROOT).as_posix()
            if "/fake" in name or "/tests" in name or name.endswith("tests.rs"):
                continue
            text = path.read_text()
            code = production(text)
            found = [match for pattern in (SYNC, PRAGMA, LITERAL) for match in pattern.finditer(code)]
            found = [match for match in found if match.re is not LITERAL or match.group() != '"synchronous"']
            found.sort(key=lambda match: match.start())
            for match in ANY.finditer(code):
                inside = any(one.start() <= match.start() < one.end() for one in found)
                if not inside and not code.startswith(PASSED_ON, match.start()):
                    line = code.count("\n", 0, match.start()) + 1
                    problems.append(f"{name}:{line}: cannot be removed by this script")
            edits = []
            for match in found:
                number = len(sites) + 1
                start, end, new = replacement(number, name, match)
                line = text.count("\n", 0, end) + 1
                sites.append((number, f"{name}:{line}", " ".join(text[start:end].split())))
                edits.append((start, end, new))
            for start, end, new in reversed(edits):
                text = text[:start] + new + text[end:]
            if edits:
                patched[name] = text
    return sites, patched, problems


def prepare(patched):
    """Copies the tree and patches it."""
    TREE.mkdir(parents=True, exist_ok=True)
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True)
    wanted = set(files.stdout.split("\n")) - {""}
    for name in wanted:
        source, copy = ROOT / name, TREE / name
        if not source.is_file():
            continue
        text = patched[name].encode() if name in patched else source.read_bytes()
        if name == "crates/dt-log/src/lib.rs":
            text += SWITCH.encode()
        # Files that are as before keep their time, so that cargo does not build them again.
        if not copy.is_file() or copy.read_bytes() != text:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(text)
            shutil.copymode(source, copy)
    for copy in TREE.rglob("*.rs"):
        if copy.relative_to(TREE).as_posix() not in wanted:
            copy.unlink()


def build():
    """Builds the unit tests and the power-loss test; returns a command for the former, one a crate, and for the latter."""
    packages = [part for crate in ("dt-receiver", "dt-log", "dt-server") for part in ("--package", crate)]
    command = ["cargo", "test", "--locked", "--no-run", *packages, "--lib", "--test", "power_loss", "--message-format", "json-render-diagnostics"]
    built = subprocess.run(command, cwd=TREE, env=environment(), capture_output=True, text=True)
    if built.returncode != 0:
        sys.exit(f"{built.stderr}\nthe patched tree does not build")
    paths = {}
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message.get("profile", {}).get("test"):
            paths[message["target"]["name"]] = message["executable"]
    return [[paths[crate], *names] for crate, names in UNIT_TESTS.items()], [paths["power_loss"], "lane::"]


def environment(number=None, more=None):
    changed = dict(os.environ, CARGO_TARGET_DIR=str(TARGET), RUST_BACKTRACE="0")
    changed.update(more or {})
    if number is not None:
        changed["DT_RECEIVER_MUTANT"] = str(number)
    return changed


def fails(command, seconds, env):
    """Whether a test fails; one that hangs does."""
    try:
        run = subprocess.run(command, cwd=TREE, env=env, timeout=seconds, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return True
    return run.returncode != 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="only list the syncs")
    parser.add_argument("--only", help="only these numbers")
    parser.add_argument("--unit-only", action="store_true", help="without the record-and-crash test")
    arguments = parser.parse_args()
    sites, patched, problems = mutants()
    for problem in problems:
        print(problem)
    if arguments.list:
        for number, place, call in sites:
            print(f"{number:3} {place:40} {call}")
        return bool(problems)
    if arguments.only:
        wanted = {int(number) for number in arguments.only.split(",")}
        sites = [site for site in sites if site[0] in wanted]
    prepare(patched)
    unit_commands, power_command = build()
    without = [*((command, UNIT_SECONDS, None) for command in unit_commands), (power_command, POWER_SECONDS, POWER)]
    for command, seconds, more in without:
        if command == power_command and arguments.unit_only:
            continue
        if fails(command, seconds, environment(0, more)):
            sys.exit(f"{command} fails without a mutant")
    missed = 0
    for number, place, call in sites:
        if any(fails(command, UNIT_SECONDS, environment(number)) for command in unit_commands):
            verdict = "unit tests"
        elif not arguments.unit_only and fails(power_command, POWER_SECONDS, environment(number, POWER)):
            verdict = "record and crash"
        else:
            verdict = "MISSED"
            missed += 1
        print(f"{number:3} {verdict:17} {place:40} {call}", flush=True)
    print(f"{len(sites)} syncs removed in turn, {missed} missed")
    return missed > 0 or bool(problems)


if __name__ == "__main__":
    sys.exit(main())
