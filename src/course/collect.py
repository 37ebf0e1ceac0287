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
from datetime import datetime
from pathlib import Path, PurePosixPath

from course.chapters import CHAPTERS
from course.classroom import Student, assignment, class_folder, roster

FILE_BYTES = 20 * 2**20
TOTAL_BYTES = 4 * 2**30
STUDENT_BYTES = 100 * 2**20  # in a zip that a student has handed in
MAX_FILES = 20_000
UNREADABLE = (zipfile.BadZipFile, NotImplementedError, OSError, ValueError)
MOODLE = re.compile(r"^(?P<name>.+?)_(?P<lms>\d+)_assignsubmission_[a-z]+_?(?P<rest>.*)$")
CANVAS = re.compile(r"^(?P<name>[^_]+)(?P<late>_LATE)?_(?P<lms>\d+)_\d+_(?P<rest>.+)$")
VERSION = re.compile(r"(?:-(\d+)|\s*\((\d+)\)|\s+copy(?: \d+)?)$", re.IGNORECASE)
LATE = re.compile(r"^late_", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """A file as it was found: where, when it was changed, and what it holds.

    `inner` is where it stands in the zip at `path` that a student has handed in, or empty.
    """

    path: PurePosixPath
    changed: tuple[int, ...]
    data: bytes
    inner: str = ""

    @property
    def where(self) -> PurePosixPath:
        """Return the path for people."""
        return self.path / self.inner


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
            # a name that is not UTF-8, as some unzip programs write them, could not be printed
            name = os.fsencode(path.relative_to(source)).decode("utf-8", "replace")
            inner = PurePosixPath(name)
            if not_handed_in(inner):
                continue
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
        archive = zipfile.ZipFile(source)
    except UNREADABLE as error:
        why = f"{source} is neither a folder nor a zip archive that can be opened ({error})"
        raise ValueError(why) from None
    with archive:
        yield from members(archive, None, problems)


def not_handed_in(path: PurePosixPath) -> bool:
    """Say whether a file is something that an operating system or Jupyter put there."""
    return any(part.startswith((".", "__MACOSX")) for part in path.parts) or path.name in (
        "Thumbs.db",
        "desktop.ini",
    )


def opened(item: Item, problems: list[str]) -> Iterator[Item]:
    """Yield a file, or the files of the zip that a student has handed in.

    A zip that yields nothing is handed on as it is, so that grading says what is wrong with it.
    """
    if item.path.suffix.lower() != ".zip":
        yield item
        return
    try:
        with zipfile.ZipFile(io.BytesIO(item.data)) as archive:
            files = list(members(archive, item.path, problems))
    except UNREADABLE as error:
        problems.append(f"{item.path}: ends in .zip and cannot be opened ({error})")
        files = []
    yield from files or [item]


def members(
    archive: zipfile.ZipFile, handed_in: PurePosixPath | None, problems: list[str]
) -> Iterator[Item]:
    """Yield the members of an archive that are plain files within the limits.

    `handed_in` is the path of a student's own zip, and None for that of the whole class.
    """
    total, limit = 0, STUDENT_BYTES if handed_in else TOTAL_BYTES
    for number, info in enumerate(archive.infolist()):
        path = PurePosixPath(info.filename.replace("\\", "/"))
        leads_out = path.is_absolute() or ".." in path.parts
        if info.is_dir() or (not_handed_in(path) and not leads_out):
            continue
        where = f"{handed_in}: {path}" if handed_in else str(path)
        total += info.file_size
        if number >= MAX_FILES or total > limit:
            problems.append(f"{where}: the archive is too large; from here on it is left out")
            return
        if leads_out:
            problems.append(f"{where}: leads out of the archive")
        elif info.external_attr >> 28 == 0xA:
            problems.append(f"{where}: a link, which is not followed")
        elif info.file_size > FILE_BYTES:
            problems.append(f"{where}: larger than {FILE_BYTES >> 20} MiB")
        else:
            try:
                with archive.open(info) as file:
                    data = file.read(FILE_BYTES + 1)
            except Exception as error:  # each way of packing has its own
                problems.append(f"{where}: cannot be read ({error})")
                continue
            if handed_in:
                yield Item(handed_in, tuple(info.date_time), data, str(path))
            else:
                yield from opened(Item(path, tuple(info.date_time), data), problems)


def plain(name: str) -> str:
    """Write a name as learning systems do: lower case, letters and digits alone."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in letters if letter.isalnum())


class Register:
    """Finds the students of the roster whom a file name can mean."""

    def __init__(self, students: list[Student]) -> None:
        """Index the students by id, by the learning system's number, and by what is like either."""
        self.by_id = {s.id: [s] for s in students}
        self.by_lms: dict[str, list[Student]] = {}
        self.by_name: dict[str, list[Student]] = {}
        for s in students:
            names = {s.id, s.last_name + s.first_name, s.first_name + s.last_name}
            for key in {plain(name) for name in names} - {""}:
                self.by_name.setdefault(key, []).append(s)
            if s.lms_id:
                self.by_lms.setdefault(s.lms_id, []).append(s)

    def find(self, name: str, lms: str = "") -> list[Student]:
        """Return all who fit: by the number; without one by the exact id; then by the name."""
        exact = self.by_lms.get(lms) if lms else self.by_id.get(name)
        return exact or self.by_name.get(plain(name), [])


@dataclass(frozen=True)
class Owner:
    """Whom a path can mean, the parts of it that may bear a version, and whether it says late."""

    students: list[Student]
    names: list[str]
    late: bool = False


def owner(path: PurePosixPath, register: Register) -> Owner:
    """Read whose file it is off the first part of its path that names a student.

    A part that only a learning system writes decides, even if it names nobody.
    """
    for part in path.parts[:-1]:
        if match := MOODLE.match(part) or CANVAS.match(part):
            late = bool(match.groupdict().get("late"))
            students = register.find(match["name"], match["lms"])
            return Owner(students, [match["rest"], path.name], late)
        if students := register.find(part):
            return Owner(students, [path.name])
    if match := MOODLE.match(path.name) or CANVAS.match(path.name):
        late = bool(match.groupdict().get("late"))
        return Owner(register.find(match["name"], match["lms"]), [match["rest"]], late)
    for cut in [m.start() for m in re.finditer("_", path.stem)][::-1]:
        if students := register.find(path.stem[:cut]):
            rest = path.name[cut + 1 :]
            return Owner(students, [LATE.sub("", rest)], bool(LATE.match(rest)))
    return Owner(register.find(path.stem), [path.name])


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
        whose = owner(item.path, register)
        if len(whose.students) != 1:
            several = " and ".join(student.id for student in whose.students)
            fits = f"it can be {several}; put it into a folder with the id" if several else (
                "nobody on the roster fits")  # fmt: skip
            problems.append(f"{item.where}: whose is it? {fits}")
            continue
        names = [*whose.names, PurePosixPath(item.inner).name] if item.inner else whose.names
        versions = [unversioned(name) for name in names]
        version = max(number for _, number in versions)
        taken = Taken(whose.students[0], versions[-1][0], version, whose.late, item)
        found.setdefault(taken.student.id, []).append(taken)
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
        other = [c.stem for c in CHAPTERS if plain(f"{c.stem[3:]}.ipynb") == plain(chosen.name)]
        if not right and other:
            problems.append(f"{chosen.item.where}: this is the notebook of {other[0]}")
            continue
        what = deposit(chapter, student, target, chosen.item, chosen.late)
        extra = f" ({len(files) - 1} other files left out)" if len(files) > 1 else ""
        late = ", marked late" if chosen.late else ""
        lines.append(f"{student:20} {what}: {chosen.item.where}{late}{extra}")
    return lines, problems


def deposit(chapter: str, student: str, name: str, item: Item, late: bool = False) -> str:
    """Write a submission, unless it is there already; keep the one that it replaces.

    A mark of the learning system that it came late is kept beside it, and told with the result.
    """
    target = class_folder() / "submitted" / student / chapter
    name = re.sub(r"[^\w. -]", "_", name)[-60:].lstrip(".") or "submission"
    old = target / name
    if (
        old.is_file()
        and hashlib.sha256(old.read_bytes()).digest() == hashlib.sha256(item.data).digest()
    ):
        if late and not (target / "late.txt").exists():
            (target / "late.txt").write_text("marked late\n", encoding="utf-8")
        return "as before"
    what = "new"
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=".new-"))
    os.chmod(fresh, 0o755)
    (fresh / name).write_bytes(item.data)
    stamp = f"{datetime_of(item.changed):%Y-%m-%d %H:%M:%S} UTC"
    (fresh / "timestamp.txt").write_text(stamp + "\n", encoding="utf-8")
    if late:
        (fresh / "late.txt").write_text("marked late\n", encoding="utf-8")
    if target.exists():
        before = target / "timestamp.txt"
        older = before.is_file() and stamp < before.read_text(encoding="utf-8").strip()
        what = "handed in again" + older * ", OLDER than what it replaces"
        kept = class_folder() / "superseded" / student / chapter
        kept.mkdir(parents=True, exist_ok=True)
        shutil.move(target, kept / f"{time.strftime('%Y%m%dT%H%M%S')}-{time.time_ns() % 10**9}")
    fresh.rename(target)
    return what


def datetime_of(changed: tuple[int, ...]) -> datetime:
    """Return the time of a file; some programs that write zips leave a date that there is not."""
    try:
        return datetime(*changed)  # type: ignore[arg-type]
    except ValueError:
        return datetime(1980, 1, 1)
