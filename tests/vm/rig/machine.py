"""One booted Debian tree: starting it, running commands in it, and its end with all that belongs to it."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from rig.host import HOME, Failure, cgroup2, until
from rig.network import inside, request

ENVIRONMENT = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "SYSTEMD_COLORS=0"]


class Machine:
    """A container with a network of its own, made of a read-only tree and a layer that goes with it."""

    def __init__(self, base):
        self.name = f"causeway-vm-{os.getpid()}"
        self.home = HOME / f"run.{os.getpid()}"
        self.cgroup = cgroup2() / self.name
        self.base, self.upper, self.merged = base, self.home / "upper", self.home / "merged"
        self.process = None
        self.log = self.home / "console.log"

    def prepare(self):
        clear_leftovers()
        for folder in (self.upper, self.home / "work", self.merged):
            folder.mkdir(parents=True)
        self.cgroup.mkdir()

    # -- the tree before it is booted

    def write(self, path, text, mode=0o644):
        """Writes a file: into the layer before the boot, into the running tree afterwards."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def copy(self, source, path, mode=0o755):
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(mode)

    def path(self, path):
        root = Path(f"/proc/{self.init()}/root") if self.process else self.upper
        return root / path.lstrip("/")

    # -- its life

    def boot(self):
        script = Path(__file__).with_name("boot.sh")
        enter = ("echo $$ >\"$1\"/cgroup.procs; shift; "
                 "exec setpriv --pdeathsig KILL unshare -m -C -p -f --kill-child --mount-proc \"$@\"")
        words = [script, self.base, self.upper, self.home / "work", self.merged, self.name]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(["sh", "-c", enter, "sh", self.cgroup, *map(str, words)],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until("the machine's init runs", lambda: self.init(), 20)
        self.wait_for_boot()

    def wait_for_boot(self):
        until("the machine has booted", lambda: self.state() in ("running", "degraded"), 60)

    def state(self):
        return self.sh("systemctl is-system-running", check=False).stdout.strip()

    def init(self):
        """The pid, on this machine, of the init in there; it changes when the machine reboots."""
        if self.process.poll() is not None:
            raise Failure(f"the machine has ended:\n{self.console()}")
        for child in children(self.process.pid):
            status = status_of(child)
            inside = status.get("NSpid", "").split()
            if len(inside) > 2 and inside[-1] == "1" and status.get("Name") == "systemd":
                return child
        raise Failure(f"no init runs in the machine:\n{self.console()}")

    def console(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def enter(self):
        """The words in front of a command that is to run in the machine."""
        return ["nsenter", "-t", str(self.init()), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", *ENVIRONMENT]

    def sh(self, script, check=True, seconds=60):
        """Runs a shell script as root in the machine."""
        done = subprocess.run([*self.enter(), "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", timeout=seconds)
        if check and done.returncode != 0:
            raise Failure(f"in the machine: {script}: exit code {done.returncode}\n{done.stdout.strip()}")
        return done

    def out(self, script, seconds=60):
        return self.sh(script, seconds=seconds).stdout.strip()

    def http(self, method, url, body=None, headers=None):
        """Status and body of a request from inside the machine."""
        return inside(self.init(), lambda: request(method, url, body, headers))

    def reboot(self):
        before = self.init()
        self.sh("systemctl reboot --no-block", check=False)
        until("the machine has gone down", lambda: not Path(f"/proc/{before}").exists(), 90)
        until("the machine's init runs again", lambda: self.init() != before, 30)
        self.wait_for_boot()

    # -- its end

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        remove_cgroup(self.cgroup)
        shutil.rmtree(self.home, ignore_errors=True)


def children(pid):
    """All descendants of a process."""
    found, left = [], [pid]
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            parent = status_of(entry.name).get("PPid")
            if parent:
                parents.setdefault(int(parent), []).append(int(entry.name))
    while left:
        more = parents.get(left.pop(), [])
        found += more
        left += more
    return found


def status_of(pid):
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def remove_cgroup(path):
    """Removes a cgroup with all below it; the processes in it are gone or going."""
    deadline = time.monotonic() + 10
    while path.exists():
        for folder, _, _ in os.walk(path, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                pass
        if path.exists():
            if time.monotonic() > deadline:
                raise Failure(f"{path} cannot be removed: processes are still in it")
            time.sleep(0.05)


def clear_leftovers():
    """Removes what a run left behind that was itself killed; its processes ended with it."""
    for path in cgroup2().glob("causeway-vm-*"):
        if not Path(f"/proc/{path.name.rsplit('-', 1)[1]}").exists():
            remove_cgroup(path)
    for path in HOME.glob("run.*"):
        if not Path(f"/proc/{path.name.rsplit('.', 1)[1]}").exists():
            shutil.rmtree(path, ignore_errors=True)
