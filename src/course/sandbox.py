"""Run a submission where it can harm nothing: bubblewrap, without network, files or neighbors.

Only what runs a student's code is inside; nbgrader, the gradebook and the marks stay outside. The
sandbox sees the system and the environment read-only, `src/` and `models/` read-only, a private
folder for the kernel's sockets, and an empty scratch folder of limited size in which it starts. It
does not see solutions, tests, exercises, submissions or the gradebook, and has no network at all.

It is never silently off. Where it cannot be had, `require` raises SandboxMissing with the cure;
whoever wants to run submissions without it sets COURSE_UNSANDBOXED to the words below.
"""

import asyncio
import contextlib
import fcntl
import itertools
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import zmq
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from course.chapters import ROOT

OPT_OUT = "submissions-can-read-solutions-and-change-marks"
SCRATCH = "/tmp/work"
PROCESS_LIMITS = {  # of each process in the sandbox, for prlimit
    "as": 4 * 2**30,  # bytes of address space
    "fsize": 64 * 2**20,  # bytes of a file
    "cpu": 600,  # seconds
    "nofile": 128,
    "nproc": 128,  # processes and threads of the sandbox
    "core": 0,
}
MOST_MEMORY = 6 * 2**30  # bytes of all its processes together
MOST_PROCESSES = 16
MOST_FILES, MOST_BYTES = 50, 128 * 2**20  # in the private folder, which lies on the disk
MESSAGE_BYTES = 16 * 2**20
MESSAGES = 20  # that wait to be read; more wait in the sandbox
SCRATCH_BYTES = 256 * 2**20
DEVICE_BYTES = 64 * 2**20  # of /dev/shm
STARTED = itertools.count()  # sandboxes of this process
START_SECONDS = 600  # until a kernel has made its sockets, on a machine that has much else to do
PATIENCE = 30  # times as long as it may work, a submission may take by the wall clock
ASLEEP = 0.05  # of a second: processes that use less of it, and want no more, sleep
INSTALL = (
    "submissions run in a sandbox, and it cannot be had here: {why}.\n"
    "  Debian, Ubuntu: apt install bubblewrap      Fedora: dnf install bubblewrap\n"
    "  Ubuntu 24.04 and later: if bwrap is installed and may not create namespaces, give it an\n"
    "  AppArmor profile that allows `userns`.\n"
    "  macOS, Windows: grade in a Linux virtual machine; bubblewrap is for Linux alone."
)


BUSY = "the machine was too busy: give the same command again when it has less to do"


class TooBusy(RuntimeError):
    """The machine has kept a submission waiting for too long; it says nothing against it."""


class SandboxMissing(RuntimeError):
    """Submissions cannot be run safely here; the message says how that is mended."""


class Scratch:
    """A temporary folder that goes when its user does: after a kill, the next one removes it.

    Its lock is held by the process that made it and by the workers that this has forked.
    """

    def __init__(self) -> None:
        """Sweep what was left behind, and make a folder."""
        sweep()
        self.path = Path(tempfile.mkdtemp(prefix="course-"))
        self.lock = (self.path / "lock").open("w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        os.rename(self.path / "lock", self.path / ".lock")  # nobody sees it unlocked

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.lock.close()

    def __enter__(self) -> Path:
        """Return the folder."""
        return self.path

    def __exit__(self, *error: object) -> None:
        """Remove the folder."""
        self.remove()


def sweep() -> None:
    """Remove the temporary folders whose makers are dead."""
    for old in Path(tempfile.gettempdir()).glob("course-*"):
        with contextlib.suppress(OSError):  # locked, without a lock, or gone
            if old.lstat().st_uid == os.getuid():
                with (old / ".lock").open() as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(old, ignore_errors=True)


def opted_out() -> bool:
    """Say whether the instructor has asked, in so many words, for no sandbox."""
    return os.environ.get("COURSE_UNSANDBOXED") == OPT_OUT


def require() -> None:
    """Raise SandboxMissing with the line that installs it, unless the sandbox works here."""
    if opted_out():
        return
    if not shutil.which("bwrap") or not shutil.which("prlimit"):
        raise SandboxMissing(INSTALL.format(why="bwrap (bubblewrap) or prlimit is not installed"))
    with Scratch() as place:
        (private := place / "in").mkdir()
        trial = subprocess.run(
            command([sys.executable, "-c", "print('inside')"], private),
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
    if trial.stdout.strip() != "inside":
        why = trial.stderr.strip().splitlines()
        raise SandboxMissing(INSTALL.format(why=why[-1] if why else "bwrap prints nothing"))


def readable() -> list[Path]:
    """List what the sandbox may read: the system, this Python and its packages, the course."""
    system = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/etc/ld.so.cache", "/etc/fonts"]
    places = [Path(place) for place in (*system, sys.base_prefix, sys.prefix)]
    return [place for place in [*places, ROOT / "src", ROOT / "models"] if place.exists()]


def hidden() -> list[Path]:
    """List what must not be seen although it may lie in a readable place, such as /usr/src."""
    return [Path(place).resolve() for place in (ROOT, os.environ.get("COURSE_SOLUTIONS")) if place]


def environment() -> dict[str, str]:
    """Return the only variables that a submission sees."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": SCRATCH,
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONSAFEPATH": "1",  # a torch.py beside the notebook is not torch
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "131072",  # see `hold_free_pieces` in `course.cost`
        "MPLBACKEND": "agg",
        "JUPYTER_PLATFORM_DIRS": "1",
        "NBGRADER_EXECUTION": "autograde",
    }


def command(inner: list[str], private: Path) -> list[str]:
    """Wrap a command line so that it runs in the sandbox; `private` is the one folder it may write.

    As root there is no need for a user namespace, and no use: the limit on processes does not hold
    for root. So the command gets a user of its own there, with a number that no other sandbox has.
    """
    # Inside, where only the sandbox's own processes count, and not all that the user runs.
    limits = [f"--{name}={value}" for name, value in PROCESS_LIMITS.items()]
    inner = ["prlimit", *limits, "--", *inner]
    # Its first process shows the environment that bwrap had: so bwrap gets none. If the machine
    # runs out of memory, choom makes the sandbox what has to go.
    outer = ["env", "-i", f"PATH={os.environ.get('PATH', os.defpath)}", "choom", "-n", "1000", "--"]
    bwrap = ["bwrap", "--die-with-parent", "--new-session", "--clearenv"]
    if os.getuid() == 0:
        user = str(2_000_000 + 256 * os.getpid() + next(STARTED) % 256)
        os.chown(private, int(user), int(user))
        bwrap += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
        bwrap += ["--unshare-cgroup-try", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        drop = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--"]
        inner = ["setpriv", "--reuid", user, "--regid", user, *drop, *inner]
    else:
        bwrap += ["--unshare-all"]
    bwrap += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    bwrap += ["--perms", "1777", "--size", str(DEVICE_BYTES), "--tmpfs", "/dev/shm"]
    bwrap += ["--perms", "1777", "--size", str(SCRATCH_BYTES), "--tmpfs", "/tmp"]
    bwrap += ["--perms", "1777", "--dir", SCRATCH]
    covered: list[str] = []
    for how, place in [*(("--ro-bind", place) for place in readable()), ("--bind", private)]:
        for parent in reversed(place.parents[:-1]):  # bwrap would make them for root alone
            bwrap += ["--perms", "0755", "--dir", str(parent)]
        bwrap += [how, str(place), str(place)]
        for secret in hidden():
            if secret.is_relative_to(place):
                bwrap += ["--perms", "0755", "--tmpfs", str(secret)]
                covered += ["--remount-ro", str(secret)]
    bwrap += [*covered, "--remount-ro", "/", "--chdir", SCRATCH]
    for name, value in environment().items():
        bwrap += ["--setenv", name, value]
    return [*outer, *bwrap, "--", *inner]


def oversteps(pid: int, private: Path) -> str:
    """Say in what a sandbox does more than it may, all its processes together; or nothing.

    `pid` is that of its first process. The limits of `prlimit` hold for each process alone.
    """
    memory = count = written = 0
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                memory, count = memory + process.memory_info().rss, count + 1
    files = []
    with contextlib.suppress(OSError):
        for path in islice(private.rglob("*"), MOST_FILES + 1):
            files.append(path)
            written += path.lstat().st_size
    if count > MOST_PROCESSES:
        return f"starts more than {MOST_PROCESSES} processes"
    if memory > MOST_MEMORY:
        return f"takes more than {MOST_MEMORY >> 30} GiB of memory"
    return "fills the disk" if len(files) > MOST_FILES or written > MOST_BYTES else ""


class Clock:
    """What processes have had of the processor's time, with their children, since it was made.

    The seconds in which all of them sleep count too, as if they had worked; those in which the
    machine keeps them waiting do not. So a busy machine takes no time from anybody. Of a `grader`
    sleep counts only while it has sandboxes: without one it waits for the gradebook.
    """

    def __init__(self, pids: Sequence[int], grader: bool = False) -> None:
        """Take the processes."""
        self.pids, self.grader, self.begin = pids, grader, time.monotonic()
        self.had, self.looked = 0.0, self.begin
        self.used = self.look()[0]

    def look(self) -> tuple[float, bool]:
        """Return the seconds of work of all processes up to now, and whether one wants to work."""
        used, waiting = 0.0, False
        for pid in self.pids:
            with contextlib.suppress(psutil.Error):
                first = psutil.Process(pid)
                children = first.children(recursive=True)
                waiting |= self.grader and not children
                for process in (first, *children):
                    with contextlib.suppress(psutil.Error):
                        used += sum(process.cpu_times()[:4])  # with those of children that ended
                        state = process.status()
                        waiting |= state == psutil.STATUS_RUNNING
                        # For the disk; but a parent can be kept so by a child (vfork).
                        waiting |= state == psutil.STATUS_DISK_SLEEP and not process.children()
        return used, waiting

    def spent(self) -> float:
        """Return the seconds that they have worked or slept."""
        now, (used, waiting) = time.monotonic(), self.look()
        worked, passed = max(0.0, used - self.used), now - self.looked  # an orphan's can be lost
        self.had += passed if not waiting and worked < ASLEEP * passed else worked
        self.used, self.looked = used, now
        return self.had

    def over(self, seconds: float) -> bool:
        """Say whether they have had so many seconds.

        Raises TooBusy if they have not, in PATIENCE times as many by the wall clock.
        """
        if self.spent() > seconds:
            return True
        if time.monotonic() - self.begin > PATIENCE * seconds:
            raise TooBusy(BUSY)
        return False


class SandboxedKernelManager(AsyncKernelManager):
    """Start an IPython kernel in the sandbox and talk to it through sockets in a private folder.

    The sandbox can put anything in the place of a socket, such as a link to one of this machine's.
    So the grader connects to hard links, made before any code of a student runs, in a folder that
    the sandbox does not see. `overstepped` tells why the last one was killed, if it was.
    """

    overstepped = ""
    files: tuple[int, ...] = ()  # that it gets open, by their numbers: its ends of pipes

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make the private folder, and the one for the grader's links."""
        self.scratch = Scratch()
        self.private, self.outside = self.scratch.path / "in", self.scratch.path / "out"
        self.private.mkdir()
        self.outside.mkdir()
        super().__init__(*args, **kwargs)
        self.context.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES)  # a larger one is not even read
        self.context.setsockopt(zmq.RCVHWM, MESSAGES)
        SandboxedKernelManager.overstepped = ""
        self.transport = "ipc"
        self.connection_file = str(self.private / "k.json")

    @property
    def kernel_spec(self) -> KernelSpec:
        """Describe the kernel; an interrupt is a message, since a signal would kill the sandbox."""
        kernel = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        quiet = ["--HistoryManager.hist_file=:memory:"]
        return KernelSpec(argv=[*kernel, *quiet], language="python", interrupt_mode="message")

    def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
        """Return the command line that starts the kernel inside."""
        inner = super().format_kernel_cmd([])
        if opted_out():
            return list(inner)
        os.chmod(self.connection_file, 0o644)  # readable to the sandbox; its folder is private
        return command(inner, self.private)

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        await super()._async_launch_kernel(kernel_cmd, **kw, **quiet, pass_fds=self.files)
        await self.take_sockets()

    _launch_kernel = _async_launch_kernel

    async def take_sockets(self) -> None:
        """Wait until the kernel has made its sockets, and connect to links of the grader's own.

        Raises RuntimeError if it makes none, or something else in their place.
        """
        end = time.monotonic() + START_SECONDS
        names = [f"{Path(self.ip).name}-{port}" for port in self.ports]
        while not all((self.private / name).exists() for name in names):
            if time.monotonic() > end or not await self._async_is_alive():
                await self._async_kill_kernel()
                raise RuntimeError("the kernel did not start")
            await asyncio.sleep(0.02)
        for name in names:
            os.link(self.private / name, self.outside / name, follow_symlinks=False)
            if not stat.S_ISSOCK((self.outside / name).lstat().st_mode):
                raise RuntimeError(f"{name} is no socket")
        self.ip = str(self.outside / Path(self.ip).name)

    async def _async_is_alive(self) -> bool:
        """Say whether it runs, and kill it if it oversteps; nbclient asks every second."""
        alive = await super()._async_is_alive()
        if alive and self.provisioner and not opted_out():
            why = oversteps(getattr(self.provisioner, "pid", 0), self.private)
            if why:
                SandboxedKernelManager.overstepped = why
                await self.provisioner.kill()
                return False
        return bool(alive)

    is_alive = _async_is_alive

    async def _async_cleanup_resources(self, restart: bool = False) -> None:
        await super()._async_cleanup_resources(restart)
        if not restart:
            self.scratch.remove()

    cleanup_resources = _async_cleanup_resources
