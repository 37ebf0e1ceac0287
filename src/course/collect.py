"""Take submissions out of a folder or an archive from a learning system, whatever it calls them.

Known are the names of Canvas (`doejane_LATE_4711_99_attention-1.ipynb`), of Moodle
(`Jane Doe_4711_assignsubmission_file_/attention.ipynb`), and plain ones (`jdoe/attention.ipynb`,
`jdoe_attention.ipynb`). Nothing is unpacked by the archive's own paths, everything has a limit, and
what cannot be told apart is reported and left where it is. A submission that is replaced is kept.
"""

import hashlib
import io
import os
import re
import shutil
import tempfile
import time
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from course.classroom import Student, assignment, class_folder, roster

FILE_BYTES = 20 * 2**20
TOTAL_BYTES = 4 * 2**30
MAX_FILES = 20_000
MOODLE = re.compile(r"^(?P<name>.+?)_(?P<lms>\d+)_assignsubmission_[a-z]+_?(?P<rest>.*)$")
CANVAS = re.compile(r"^(?P<name>[^_]+)(?P<late>_LATE)?_(?P<lms>\d+)_\d+_(?P<rest>.+)$")
VERSION = re.compile(r"(?:-(\d+)|\s*\((\d+)\)|\s+copy(?: \d+)?)$", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """A file as it was found: where, when it was changed, and how to read it."""

    path: PurePosixPath
    changed: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class Taken:
    """A file that belongs to a student: its plain name, and what its mangled one said."""

    student: Student
    name: str
    version: int
    late: bool
    item: Item


def files_of(source: Path, problems: list[str]) -> Iterator[Item]:
    """Yield the files of a folder or a zip, those within the limits."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            inner = PurePosixPath(path.relative_to(source).as_posix())
            if path.is_symlink():
                problems.append(f"{inner}: a link, which is not followed")
            elif path.is_file():
                if path.stat().st_size > FILE_BYTES:
                    problems.append(f"{inner}: larger than {FILE_BYTES >> 20} MiB")
                    continue
                changed = time.gmtime(path.stat().st_mtime)[:6]
                yield from opened(Item(inner, tuple(changed), path.read_bytes()), problems)
        return
    try:
        with zipfile.ZipFile(source) as archive:
            yield from members(archive, PurePosixPath(), problems, nested=True)
    except zipfile.BadZipFile:
        raise ValueError(f"{source} is neither a folder nor a zip archive") from None


def opened(item: Item, problems: list[str]) -> Iterator[Item]:
    """Yield a file, or the files of the zip that a student has handed in."""
    if item.path.suffix != ".zip":
        yield item
        return
    try:
        with zipfile.ZipFile(io.BytesIO(item.data)) as archive:
            yield from members(archive, item.path.with_suffix(""), problems, nested=False)
    except zipfile.BadZipFile:
        problems.append(f"{item.path}: ends in .zip and is none")


def members(
    archive: zipfile.ZipFile, prefix: PurePosixPath, problems: list[str], nested: bool
) -> Iterator[Item]:
    """Yield the members of an archive that are plain files within the limits."""
    total = 0
    for number, info in enumerate(archive.infolist()):
        path = PurePosixPath(info.filename)
        if info.is_dir() or "__MACOSX" in path.parts or path.name.startswith("."):
            continue
        total += info.file_size
        if number > MAX_FILES or total > TOTAL_BYTES:
            problems.append(f"{prefix / path}: the archive is too large; the rest is left out")
            return
        if path.is_absolute() or ".." in path.parts or "\\" in info.filename:
            problems.append(f"{path}: leads out of the archive")
        elif info.external_attr >> 28 == 0xA:
            problems.append(f"{path}: a link, which is not followed")
        elif info.file_size > FILE_BYTES:
            problems.append(f"{path}: larger than {FILE_BYTES >> 20} MiB")
        else:
            try:
                with archive.open(info) as file:
                    data = file.read(FILE_BYTES + 1)
            except (RuntimeError, zipfile.BadZipFile, NotImplementedError, OSError) as error:
                problems.append(f"{path}: cannot be read ({error})")
                continue
            # inside a student's own zip the archive's name says whose it is
            place = prefix.with_name(f"{prefix.name}_{path.name}") if prefix.name else path
            item = Item(place, tuple(info.date_time), data)
            yield from opened(item, problems) if nested else [item]


def plain(name: str) -> str:
    """Write a name as learning systems do: lower case, letters and digits alone."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in letters if letter.isalnum())


class Register:
    """Finds a student of the roster by what a file name says."""

    def __init__(self, students: list[Student]) -> None:
        """Index the students; a name that two of them share finds neither."""
        self.by_id = {plain(s.id): s for s in students}
        self.by_lms = {s.lms_id: s for s in students if s.lms_id}
        names: dict[str, list[Student]] = {}
        for s in students:
            for key in {plain(s.last_name + s.first_name), plain(s.first_name + s.last_name)} - {
                ""
            }:
                names.setdefault(key, []).append(s)
        self.by_name = {key: found[0] for key, found in names.items() if len(found) == 1}

    def find(self, *, name: str = "", lms: str = "") -> Student | None:
        """Return the student, or None if nobody or more than one fits."""
        key = plain(name)
        return self.by_lms.get(lms) or self.by_id.get(key) or self.by_name.get(key)


def owner(item: Item, register: Register) -> tuple[Student, str, bool] | None:
    """Say whose file it is, its name as the student gave it, and whether it is marked late."""
    for number, part in enumerate(item.path.parts, start=1):
        last = number == len(item.path.parts)
        name = item.path.name
        for pattern in (MOODLE, CANVAS):
            if match := pattern.match(part):
                student = register.find(name=match["name"], lms=match["lms"])
                late = bool(match.groupdict().get("late"))
                if student:
                    return student, (match["rest"] if last else name) or name, late
        if not last and (student := register.find(name=part)):
            return student, name, False
        if last:
            stem, suffix = PurePosixPath(part).stem, PurePosixPath(part).suffix
            for cut in [m.start() for m in re.finditer("_", stem)][::-1]:
                if student := register.find(name=stem[:cut]):
                    late = stem[cut:].upper().startswith("_LATE")
                    return student, stem[cut + (6 if late else 1) :] + suffix, late
            if student := register.find(name=stem):
                return student, part, False
    return None


def unversioned(name: str) -> tuple[str, int]:
    """Take `-1`, ` (2)` and ` copy` off the stem of a file name; return it and the number."""
    path, version = PurePosixPath(name.strip()), 0
    stem = path.stem.strip()
    while match := VERSION.search(stem):
        version = max(version, int(match[1] or match[2] or 1))
        stem = stem[: match.start()].strip()
    return f"{stem}{path.suffix.lower()}", version


def sort_out(
    items: Iterator[Item], register: Register, problems: list[str]
) -> dict[str, list[Taken]]:
    """Group files by student; what belongs to nobody is added to the problems."""
    found: dict[str, list[Taken]] = {}
    for item in items:
        whose = owner(item, register)
        if whose is None:
            problems.append(f"{item.path}: whose is it? nobody on the roster fits")
            continue
        student, name, late = whose
        name, version = unversioned(name)
        found.setdefault(student.id, []).append(Taken(student, name, version, late, item))
    return found


def collect(chapter: str, source: Path) -> tuple[list[str], list[str]]:
    """Put a chapter's submissions where grading finds them.

    Returns a line for each student and a line for each problem. Of several files of one student the
    highest version counts, then the newest. Raises FileNotFoundError if there is no such source or
    class, ValueError if the source is no folder and no zip.
    """
    chapter, name = assignment(chapter)
    if not source.exists():
        raise FileNotFoundError(f"there is no {source}: name a folder or a zip archive")
    problems: list[str] = []
    students = sort_out(files_of(source, problems), Register(roster()), problems)
    lines = []
    for student, files in sorted(students.items()):
        notebooks = [f for f in files if f.name.endswith(".ipynb")]
        right = [f for f in notebooks if plain(f.name) == plain(f"{name}.ipynb")]
        chosen = max(right or notebooks or files, key=lambda f: (f.version, f.item.changed))
        target = f"{name}.ipynb" if right else chosen.name
        what = deposit(chapter, student, target, chosen.item)
        extra = f" ({len(files) - 1} other files left out)" if len(files) > 1 else ""
        late = ", marked late" if chosen.late else ""
        lines.append(f"{student:20} {what}: {chosen.item.path}{late}{extra}")
    return lines, problems


def deposit(chapter: str, student: str, name: str, item: Item) -> str:
    """Write a submission, unless it is there already; keep the one that it replaces."""
    target = class_folder() / "submitted" / student / chapter
    name = re.sub(r"[^\w. -]", "_", name).lstrip(".") or "submission"
    old = target / name
    if (
        old.is_file()
        and hashlib.sha256(old.read_bytes()).digest() == hashlib.sha256(item.data).digest()
    ):
        return "as before"
    what = "new"
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=".new-"))
    os.chmod(fresh, 0o755)
    (fresh / name).write_bytes(item.data)
    year, month, day, hour, minute, second = item.changed
    stamp = f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC"
    (fresh / "timestamp.txt").write_text(stamp + "\n", encoding="utf-8")
    if target.exists():
        what = "handed in again"
        kept = class_folder() / "superseded" / student / chapter
        kept.mkdir(parents=True, exist_ok=True)
        shutil.move(target, kept / f"{time.strftime('%Y%m%dT%H%M%S')}-{time.time_ns() % 10**9}")
    fresh.rename(target)
    return what
