"""The job array of chapters/teaching.md, on a Slurm of one node that the test starts itself."""

import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest
from classkit import cell_named, make_class, solution

from course.chapters import ROOT

SLURM = """
ClusterName=course
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=16384
PartitionName=all Nodes={host} Default=YES
"""
SECONDS = 300


def free_ports(count):
    """Return ports that nobody listens to."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture
def slurm(tmp_path):
    """Start munge and Slurm, of this user's own; return the environment of its commands."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    programs = [shutil.which(name, path=path) for name in ("munged", "slurmctld", "slurmd")]
    if not all(programs):
        pytest.skip("needs Slurm (Debian: apt install slurm-wlm munge)")
    place = tmp_path / "slurm"
    for folder in (place, place / "state", place / "spool"):
        folder.mkdir(mode=0o700)
    (place / "munge.key").write_bytes(os.urandom(128))
    (place / "munge.key").chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    text = SLURM.format(host=host, ports=free_ports(2), user=getpass.getuser(), place=place)
    (place / "slurm.conf").write_text(text)
    files = [f"--{name}={place}/munge.{name.partition('-')[0]}"
             for name in ("socket", "key-file", "pid-file", "log-file", "seed-file")]  # fmt: skip
    environment = {**os.environ, "PATH": path, "SLURM_CONF": str(place / "slurm.conf")}
    running = []
    try:
        for command in ([programs[0], "-F", "--force", *files], [programs[1], "-D"],
                        [programs[2], "-D", "-N", host]):  # fmt: skip
            with open(place / "log", "a") as log:
                daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            running.append(daemon)
        end = time.monotonic() + 60
        while "idle" not in subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment,
                                           capture_output=True, text=True).stdout:  # fmt: skip
            assert time.monotonic() < end, (place / "log").read_text()
            time.sleep(0.5)
        yield environment
    finally:
        for daemon in reversed(running):
            daemon.terminate()
            daemon.wait(60)


@pytest.mark.soak
def test_a_job_array_grades_each_student_once(tmp_path, slurm):
    kit = make_class(tmp_path / "class", ["ann", "ben", "cleo"])
    kit.submit("ann", solution())
    kit.submit("ben", "no notebook")
    stopped = solution()
    cell_named(stopped, "sliding_mask").source += "\nimport os\nos._exit(0)"
    kit.submit("cleo", stopped)
    page = (ROOT / "chapters" / "teaching.md").read_text(encoding="utf-8")
    [job] = re.findall(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", page, re.DOTALL)
    (kit.folder / "job.sh").write_text(job)
    command = kit.folder / ".venv" / "bin" / "course"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m course "$@"\n')
    command.chmod(0o755)
    environment = {**slurm, "PYTHONPATH": str(kit.folder / "src")}
    run = subprocess.run(["sbatch", "--wait", "--array=0-3", "job.sh"], cwd=kit.folder,
                         env=environment, capture_output=True, text=True,
                         timeout=SECONDS)  # fmt: skip
    said = "".join(path.read_text() for path in kit.folder.glob("slurm-*.out"))
    assert run.returncode == 1, run.stderr + said  # two submissions failed
    assert sorted(re.findall(r"^1/1 +(\w+) +(\w+)", said, re.MULTILINE)) == [
        ("ann", "graded"), ("ben", "failed"), ("cleo", "failed")]  # fmt: skip
    table, at_once = (kit.course("grade", "4", *more).stdout for more in ([], ["--again"]))
    assert "to grade" not in table and "3 to grade" in at_once
    assert table.strip() == at_once.partition("\n\n")[2].strip()
    assert "1 needs review, 2 failed" in table and "14 of 16" in table
