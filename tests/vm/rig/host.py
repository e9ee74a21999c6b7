"""What this machine must have, and the Debian tree that is booted."""

import hashlib
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HOME = ROOT / "target" / "vm"

RELEASE = "bookworm"
# What the units need of a Debian machine, and what an administrator looks with.
PACKAGES = ["systemd", "systemd-sysv", "dbus", "iproute2", "procps", "init-system-helpers", "adduser"]

NEEDED = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container", "nsenter": "util-linux",
          "unshare": "util-linux", "setpriv": "util-linux", "openssl": "openssl",
          "dpkg-buildpackage": "dpkg-dev", "dh": "debhelper"}


class Failure(Exception):
    """What went wrong, with the remedy."""


def run(command, seconds=60, **kwargs):
    """Runs a command to its end; its output only where it fails."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", timeout=seconds, **kwargs)
    if done.returncode != 0:
        last = "\n".join(done.stdout.strip().splitlines()[-15:])
        raise Failure(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{last}")
    return done.stdout


def until(what, look, seconds=30.0, pause=0.1):
    """Looks until there is an answer; `look` may say why there is none yet by raising a Failure."""
    deadline = time.monotonic() + seconds
    reason = None
    while True:
        try:
            answer = look()
        except Failure as failure:
            answer, reason = None, failure
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise Failure(f"not within {seconds:.0f} s: {what}" + (f": {reason}" if reason else ""))
        time.sleep(pause)


def missing():
    """Everything that keeps the test from running here, each with its remedy."""
    found = []
    if os.geteuid() != 0:
        return ["it needs root, to boot a container"]
    packages = sorted({package for tool, package in NEEDED.items() if not shutil.which(tool)})
    if packages:
        found.append(f"as root: apt-get install {' '.join(packages)}")
    if not packages:
        found += confined()
    return found


def confined():
    """What a container or a kernel without these keeps root from doing."""
    if cgroup2() is None:
        return ["no cgroup2 hierarchy is mounted for writing; on a machine of its own: mount -t cgroup2 none DIR"]
    try:
        run(["unshare", "-m", "-C", "-p", "-f", "--mount-proc", "true"])
        run(["unshare", "-m", "sh", "-c", "mkdir -p /run/systemd && mount -t tmpfs none /run/systemd"])
    except Failure as failure:
        return [f"root may not mount or make namespaces here, as in a container without privileges: {failure}"]
    if "overlay" not in Path("/proc/filesystems").read_text():
        return ["the kernel knows no overlay file systems; load the module: modprobe overlay"]
    return []


def cgroup2():
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, options = line.split()[:4]
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(point)
    return None


def mirror():
    """The archive that this machine's own apt configuration names."""
    if not shutil.which("apt-get"):
        return None
    form = "$(REPO_URI)|$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(SUITE)"
    listed = run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"])
    for line in listed.splitlines():
        address, origin, label, component, suite = line.split("|")
        if (origin, label, component) == ("Debian", "Debian", "main") and re.match(r"https?:", address):
            return address
    # Lists that were never fetched have no origin: the configured address alone then tells.
    for line in listed.splitlines():
        address, _, _, component, _ = line.split("|")
        if component == "main" and re.search(r"^https?:.*/debian/?$", address):
            return address
    return None


def base_tree():
    """A minimal Debian, made once and only read afterwards."""
    recipe = hashlib.sha256(" ".join([RELEASE, *PACKAGES]).encode()).hexdigest()[:12]
    base = HOME / "base"
    stamp = base / "etc/causeway-vm-recipe"
    if stamp.exists() and stamp.read_text() == recipe:
        return base
    HOME.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(base, ignore_errors=True)
    fresh = HOME / f"base.{os.getpid()}"
    shutil.rmtree(fresh, ignore_errors=True)
    address = mirror()
    if address is None:
        raise Failure("apt's configuration names no Debian mirror to fetch a Debian tree from")
    print(f"  a Debian tree ({RELEASE}) by debootstrap, as apt's configuration says", flush=True)
    try:
        run(["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", RELEASE, fresh, address], 600)
        for cache in [*fresh.glob("var/cache/apt/archives/*.deb"), *fresh.glob("var/lib/apt/lists/*_*")]:
            cache.unlink()
        (fresh / "etc/causeway-vm-recipe").write_text(recipe)
        if not base.exists():  # another run may have been quicker
            fresh.rename(base)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return base


def binary(name):
    found = {"causeway": Path(os.environ.get("CAUSEWAY_BINARY", ROOT / "target/debug/causeway")),
             "consul": ROOT / ".tools/consul/consul", "envoy": ROOT / ".tools/envoy/envoy"}[name]
    if not found.exists():
        raise Failure(f"{found} is not there: `make tools` brings Consul and Envoy, `cargo build` Causeway")
    return found.resolve()


def say(text):
    print(text, flush=True)

