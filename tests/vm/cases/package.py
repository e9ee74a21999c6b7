"""The life of the package: a higher version, removal, purge."""

from cases.calm import main_pids, under_load
from rig import setup
from rig.host import Failure, until
from rig.setup import quote
from rig.world import AGENT_TOKEN, ENVOYS, instance

HIGHER = "0.9.1"


def upgrade(world):
    """Nothing that carries traffic is restarted, nothing that was configured is changed."""
    vm = world.machine
    deb = setup.package(vm, HIGHER)
    before, files = main_pids(world), checksums(vm)
    agent = vm.out("systemctl show -P MainPID causeway")
    detail = under_load(world, lambda _: setup.install(vm, deb))
    if vm.out("dpkg-query -W -f '${Version}' causeway") != HIGHER:
        raise Failure("the package is not the new one")
    if (main_pids(world), checksums(vm)) != (before, files):
        raise Failure("an Envoy was restarted, or a file of the administrator changed")
    if vm.out("systemctl show -P MainPID causeway") != agent:
        raise Failure("the agent was restarted although nobody asked for it")
    return detail


def checksums(vm):
    return vm.out("find /etc/causeway -type f -print0 | sort -z | xargs -0 sha256sum; "
                  "ls /etc/systemd/system/*.wants")


def removal(world):
    """Everything stops, in order; what the administrator wrote stays."""
    vm = world.machine
    vm.sh("DEBIAN_FRONTEND=noninteractive dpkg --remove causeway", seconds=180)
    for unit in ["causeway.service", *map(instance, ENVOYS)]:
        until(f"{unit} has stopped", lambda u=unit: vm.sh(f"systemctl is-active {quote(u)}", check=False)
              .stdout.strip() in ("inactive", "unknown"), 10)
    running = vm.sh("pgrep -u causeway; pgrep -u causeway-envoy", check=False).stdout.split()
    if running:
        raise Failure(f"processes are left: {running}")
    vm.out(f"test -e /etc/causeway/agent.toml -a -e {AGENT_TOKEN}")


def purge(world):
    """The package's own is gone. Tokens stay: they may be the only copies."""
    vm = world.machine
    vm.sh("DEBIAN_FRONTEND=noninteractive dpkg --purge causeway", seconds=60)
    left = vm.out("ls -d /etc/causeway/agent.toml /var/lib/causeway /run/causeway /usr/bin/causeway "
                  "/usr/lib/systemd/system/causeway* 2>/dev/null || true")
    if left:
        raise Failure(f"left behind: {left}")
    failed = vm.out("systemctl daemon-reload; systemctl --failed --no-legend --plain | grep causeway || true")
    if failed:
        raise Failure(f"failed units are left: {failed}")
    vm.out(f"test -e {AGENT_TOKEN}")


CASES = [upgrade, removal, purge]
