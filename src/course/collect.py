"""Take submissions out of a folder or an archive from a learning system, whatever it calls them.

Known are the names of Canvas (`doejane_LATE_4711_99_attention-1.ipynb`), of Moodle
(`Jane Doe_4711_assignsubmission_file_/attention.ipynb`), of Blackboard
(`Week 4_jdoe_attempt_2026-01-31-10-12-00_attention.ipynb`), of Brightspace
(`4711-99 - Jane Doe - Jan 31, 2026 1012 AM/attention.ipynb`), and plain ones
(`jdoe/attention.ipynb`, `jdoe_attention.ipynb`). A file belongs to its owner or to nobody: what a
learning system wrote, or else the outermost folder, decides, even if it names nobody. Nothing is
unpacked by the archive's own paths, everything has a limit, and what cannot be told apart is
reported and left where it is. A submission that is replaced is kept.
"""

import io
import os
import re
import shutil
import tempfile
import time
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath

from course.chapters import CHAPTERS
from course.classroom import (
    Student,
    assignment,
    class_folder,
    desk,
    held,
    refuse,
    roster,
    settle,
    settle_all,
    shown,
)
from gpt2.tokenizer import atomic_file

FILE_BYTES = 20 * 2**20
TOTAL_BYTES = 4 * 2**30
STUDENT_BYTES = 100 * 2**20  # in a zip that a student has handed in
MAX_FILES = 20_000
TOO_LARGE = f"larger than {FILE_BYTES >> 20} MiB: clear its outputs"
LINK = "a link, which is not followed"
UNREADABLE = (zipfile.BadZipFile, NotImplementedError, OSError, ValueError)
MOODLE = re.compile(r"^(?P<name>.+?)_(?P<lms>\d+)_assignsubmission_[a-z]+_?(?P<rest>.*)$")
CANVAS = re.compile(r"^(?P<name>.+?)(?P<late>_LATE)?_(?P<lms>\d+)_\d+_(?P<rest>.+)$")
BLACKBOARD = re.compile(r"^(?P<id>.+?)_attempt_\d{4}(?:-\d\d){5}(?:_(?P<rest>.*)|\.txt)$")
BRIGHTSPACE = re.compile(
    r"^(?P<lms>\d+)-\d+ - (?P<name>.+?) - [^-]*\d{4}[^-]*(?: - (?P<rest>.+))?$"
)
KNOWN = (MOODLE, CANVAS, BRIGHTSPACE, BLACKBOARD)
# Folders that are nobody's: an archive's own, and those in which instructors keep things.
SHARED = re.compile(r"submi(?:ssions?|tted)|assignments?|week ?\d+|downloads?", re.IGNORECASE)
VERSION = re.compile(r"(?:-(\d+)|\s*\((\d+)\)|\s+copy(?: \d+)?)$", re.IGNORECASE)
LATE = re.compile(r"^late_", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """A file as it was found: where, when it was changed, and what it holds.

    `inner` is where it stands in the zip at `path` that a student has handed in, or empty.
    `refused` says why it cannot be taken.
    """

    path: PurePosixPath
    changed: tuple[int, ...]
    data: bytes = b""
    inner: str = ""
    refused: str = ""

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


def files_of(source: Path) -> Iterator[Item]:
    """Yield the files of a folder or a zip; those that cannot be taken say why."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            # a name that is not UTF-8, as some unzip programs write them, could not be printed
            name = os.fsencode(path.relative_to(source)).decode("utf-8", "replace")
            inner = PurePosixPath(name)
            if not_handed_in(inner):
                continue
            about = path.lstat()
            item = Item(inner, tuple(time.gmtime(about.st_mtime)[:6]))
            if path.is_symlink():
                yield replace(item, refused=LINK)
            elif path.is_file() and about.st_size > FILE_BYTES:
                yield replace(item, refused=TOO_LARGE)
            elif path.is_file():
                try:
                    item = replace(item, data=path.read_bytes())
                except OSError as error:
                    yield replace(item, refused=f"cannot be read ({error.strerror})")
                else:
                    yield from opened(item)
        return
    try:
        archive = zipfile.ZipFile(source)
    except UNREADABLE as error:
        why = f"{source} is neither a folder nor a zip archive that can be opened ({error})"
        raise ValueError(why) from None
    with archive:
        yield from members(archive, None)


def not_handed_in(path: PurePosixPath) -> bool:
    """Say whether a file is something that an operating system or Jupyter put there."""
    return any(part.startswith((".", "__MACOSX")) for part in path.parts) or path.name in (
        "Thumbs.db",
        "desktop.ini",
    )


def opened(item: Item) -> Iterator[Item]:
    """Yield a file, or the files of the zip that a student has handed in.

    A zip that holds none is handed on as it is, so that grading says what is wrong with it.
    """
    if item.path.suffix.lower() != ".zip":
        yield item
        return
    try:
        with zipfile.ZipFile(io.BytesIO(item.data)) as archive:
            files = list(members(archive, item))
    except UNREADABLE as error:
        files = [replace(item, refused=f"ends in .zip and cannot be opened ({error})")]
    yield from files or [item]


def members(archive: zipfile.ZipFile, handed_in: Item | None) -> Iterator[Item]:
    """Yield the members of an archive, those that are not plain files within the limits as refused.

    `handed_in` is a student's own zip, and None for that of the whole class.
    """
    total, limit = 0, STUDENT_BYTES if handed_in else TOTAL_BYTES
    for number, info in enumerate(archive.infolist()):
        path = PurePosixPath(info.filename.replace("\\", "/"))
        leads_out = path.is_absolute() or ".." in path.parts
        if info.is_dir() or (not_handed_in(path) and not leads_out):
            continue
        when = tuple(info.date_time)
        item = Item(handed_in.path, when, b"", str(path)) if handed_in else Item(path, when)
        total += info.file_size
        if number >= MAX_FILES or total > limit:
            yield replace(item, refused="the archive is too large; from here on it is left out")
            return
        if leads_out:
            yield replace(item, refused="leads out of the archive")
        elif info.external_attr >> 28 == 0xA:
            yield replace(item, refused=LINK)
        elif info.file_size > FILE_BYTES:
            yield replace(item, refused=TOO_LARGE)
        else:
            try:
                with archive.open(info) as file:
                    item = replace(item, data=file.read(FILE_BYTES + 1))
            except Exception as error:  # each way of packing has its own
                yield replace(item, refused=f"cannot be read ({error})")
                continue
            yield from [item] if handed_in else opened(item)


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
        """Return all who fit: by the exact id or the learning system's number; then by the name.

        By the name nobody fits who is known to have another number.
        """
        exact = self.by_lms.get(lms) if lms else self.by_id.get(name)
        alike = self.by_name.get(plain(name), [])
        return exact or [s for s in alike if not (lms and s.lms_id)]


@dataclass(frozen=True)
class Owner:
    """Whom a path can mean, the parts of it that may bear a version, and whether it says late.

    `why` says why it is nobody.
    """

    students: list[Student]
    names: list[str]
    late: bool = False
    why: str = "nobody on the roster fits"


def owner(path: PurePosixPath, register: Register, shared: str = "") -> Owner:
    """Read whose file it is off the outermost part of its path that is not `shared` by all."""
    parts = list(path.parts)
    while parts[1:] and (parts[0] == shared or SHARED.fullmatch(parts[0])):
        if register.find(parts[0]):
            break
        del parts[0]
    first = parts[0]
    inside = [path.name] if parts[1:] else []
    matches = filter(None, (pattern.match(first) for pattern in KNOWN))
    if found := [by_system(match.groupdict(), register, inside) for match in matches]:
        # a student's own name, or that of a file, can be made to look like another system's
        if len({str(o.students) for o in found}) > 1 or first.count("_assignsubmission_") > 1:
            return Owner([], inside, why="its name can be read in two ways")
        return found[0]
    if parts[1:]:
        why = f"the folder {first} is nobody's on the roster; if it holds those of a class, "
        why += "unpack it and collect from it"
        return Owner(register.find(first), [path.name], why=why)
    for cut in [m.start() for m in re.finditer("_", path.stem)][::-1]:
        if students := register.find(path.stem[:cut]):
            rest = path.name[cut + 1 :]
            return Owner(students, [LATE.sub("", rest)], bool(LATE.match(rest)))
    return Owner(register.find(path.stem), [path.name])


def by_system(said: dict[str, str | None], register: Register, inside: list[str]) -> Owner:
    """Read whose file it is off what a learning system wrote: a number, a name, or a login."""
    names = [said.get("rest") or "", *inside]
    if said.get("id"):  # `Week_4_ann_lee`: how much of it is the login?
        words = str(said["id"]).split("_")
        logins = ["_".join(words[n:]) for n in range(1, len(words))]
        return Owner([s for login in logins for s in register.by_id.get(login, [])], names)
    name, lms = said["name"] or "", said["lms"] or ""
    students = register.find(name, lms)
    others = [s for s in register.find(name) if s.lms_id not in ("", lms)]
    why = "nobody on the roster fits"
    if others and not students:
        why = f"{others[0].id} has the number {others[0].lms_id}, and this is of {lms}"
    return Owner(students, names, bool(said.get("late")), why)


def unversioned(name: str) -> tuple[str, int]:
    """Take `-1`, ` (2)` and ` copy` off the stem of a file name; return it and the number."""
    path, version = PurePosixPath(name.strip()), 0
    stem = path.stem.strip()
    while match := VERSION.search(stem):
        version = max(version, int(match[1] or match[2] or 1))
        stem = stem[: match.start()].strip()
    return f"{stem}{path.suffix.lower()}", version


def sort_out(
    items: Iterator[Item], register: Register, problems: list[str], shared: str = ""
) -> dict[str, list[Taken]]:
    """Group files by student; what belongs to nobody is added to the problems."""
    found: dict[str, list[Taken]] = {}
    for item in items:
        if item.path.is_absolute() or ".." in item.path.parts:
            problems.append(f"{item.where}: {item.refused}")
            continue
        if item.path.name == "index.html" and len(item.path.parts) == 1:
            continue  # Brightspace's list of what it has packed
        whose = owner(item.path, register, shared)
        if len(whose.students) != 1:
            several = " and ".join(student.id for student in whose.students)
            fits = (
                f"it can be {several}; put it into a folder with the id" if several else whose.why
            )
            problems.append(f"{item.where}: whose is it? {fits}")
            continue
        names = [*whose.names, PurePosixPath(item.inner).name] if item.inner else whose.names
        versions = [unversioned(name) for name in names if name]
        version = max((number for _, number in versions), default=0)
        name = versions[-1][0] if versions else item.path.name
        taken = Taken(whose.students[0], name, version, whose.late, item)
        found.setdefault(taken.student.id, []).append(taken)
    return found


def collect(chapter: str, source: Path) -> tuple[list[str], list[str]]:
    """Put a chapter's submissions where grading finds them.

    Returns a line for each student and a line for each problem. Of several files of one student the
    highest version counts, then the newest; if it cannot be taken, why is told to the end. Raises
    FileNotFoundError if there is no such source or class, ValueError if the source is no folder and
    no zip, or if somebody else collects.
    """
    chapter, name = assignment(chapter)
    if not source.exists():
        raise FileNotFoundError(f"there is no {source}: name a folder or a zip archive")
    problems, people = list[str](), roster()
    with held(desk()) as ours:
        if not ours:
            raise ValueError("another `course collect` is at work in this class")
        settle_all(chapter)
        students = sort_out(files_of(source), Register(people), problems, source.stem)
        lines = []
        for student, files in sorted(students.items()):
            chosen, last = chosen_of(files, name), max(files, key=rank)
            why = ""
            problems += [f"{f.item.where}: {f.item.refused}" for f in files if f.item.refused]
            if chosen is None or (last.item.refused and rank(last) > rank(chosen)):
                why = max((rank(f), why_not(f, name)) for f in files if why_not(f, name))[1]
            if chosen is None and not last.item.refused:
                problems.append(f"{last.item.where}: {why}")
            if chosen:
                right = plain(chosen.name) == plain(f"{name}.ipynb")
                target = f"{name}.ipynb" if right else chosen.name
                what = deposit(chapter, student, target, chosen.item, chosen.late)
                extra = f" ({len(files) - 1} other files left out)" if len(files) > 1 else ""
                late = ", marked late" if chosen.late else ""
                lines.append(f"{student:20} {what}: {shown(chosen.item.where)}{late}{extra}")
            refuse(chapter, student, why)
    return lines, list(map(shown, problems))


def rank(file: Taken) -> tuple[int, tuple[int, ...]]:
    """Say how new a file is among those of its student."""
    return file.version, file.item.changed


def why_not(file: Taken, name: str) -> str:
    """Say why a file is not one to grade, or nothing."""
    other = [c.stem for c in CHAPTERS if plain(f"{c.stem[3:]}.ipynb") == plain(file.name)]
    wrong = other and plain(file.name) != plain(f"{name}.ipynb")
    return file.item.refused or (f"this is the notebook of {other[0]}" if wrong else "")


def chosen_of(files: list[Taken], name: str) -> Taken | None:
    """Return the file to grade: the notebook by its name, else any notebook, else any file."""
    good = [file for file in files if not why_not(file, name)]
    notebooks = [file for file in good if file.name.endswith(".ipynb")]
    right = [file for file in notebooks if plain(file.name) == plain(f"{name}.ipynb")]
    if len(good) < len(files) and not notebooks:
        return None  # what else was handed in is no reason to overlook a notebook
    return max(right or notebooks or good, key=rank, default=None)


def deposit(chapter: str, student: str, name: str, item: Item, late: bool = False) -> str:
    """Write a submission, unless it is there already; keep the one that it replaces.

    A mark of the learning system that it came late is kept beside it, and told with the result.
    """
    target = class_folder() / "submitted" / student / chapter
    name = re.sub(r"[^\w. -]", "_", name)[-60:].lstrip(".") or "submission"
    name = f"submitted {name}" if name in ("late.txt", "timestamp.txt") else name
    old = target / name
    if old.is_file() and not old.is_symlink() and old.read_bytes() == item.data:
        mark_late(target, late)
        return "as before"
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(".part-*"):
        shutil.rmtree(left)  # of a run that was killed
    stamp = f"{datetime_of(item.changed):%Y-%m-%d %H:%M:%S} UTC"
    before = target / "timestamp.txt"
    older = before.is_file() and stamp < before.read_text(encoding="utf-8").strip()
    what = "handed in again" + older * ", OLDER than what it replaces" if target.exists() else "new"
    fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=".part-"))
    try:
        os.chmod(fresh, 0o755)
        with atomic_file(fresh / name) as file:
            file.write(item.data)
        (fresh / "timestamp.txt").write_text(stamp + "\n", encoding="utf-8")
        mark_late(fresh, late)
        waiting = target.with_name(f".new-{chapter}")  # whole from here on
        fresh.rename(waiting)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    settle(waiting)
    return what


def mark_late(folder: Path, late: bool) -> None:
    """Keep beside a submission whether the learning system calls it late now."""
    if late:
        (folder / "late.txt").write_text("marked late\n", encoding="utf-8")
    else:
        (folder / "late.txt").unlink(missing_ok=True)


def datetime_of(changed: tuple[int, ...]) -> datetime:
    """Return the time of a file; some programs that write zips leave a date that there is not."""
    try:
        return datetime(*changed)  # type: ignore[arg-type]
    except ValueError:
        return datetime(1980, 1, 1)
