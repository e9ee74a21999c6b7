"""What is wrong is told once and clearly, with the right exit code, and starts no storm."""

import contextlib
import time

from rig import expired
from rig.host import Failure, until
from rig.setup import healthy, quote
from rig.world import AGENT_TOKEN, file_of, instance

CONFIG = "/etc/causeway/agent.toml"
# More starts than this in the time that a case looks are a storm.
STORM = 4


@contextlib.contextmanager
def changed(world, path, text, mode=0o644):
    """A file with another content, and the agent with its own again afterwards."""
    vm = world.machine
    kept = vm.path(path).read_text() if vm.path(path).exists() else None
    vm.write(path, text, mode)
    try:
        yield
    finally:
        if kept is None:
            vm.path(path).unlink()
        else:
            vm.write(path, kept, mode)
        vm.sh("systemctl reset-failed causeway; systemctl restart causeway")
        healthy(world)


def fails_once(world, code, *words):
    """The agent ends with this code and these words, is not started again, and Envoys go on."""
    vm = world.machine
    cursor = mark(vm)
    vm.sh("systemctl restart causeway", check=False)
    until("the agent has failed", lambda: show(world, "causeway", "ActiveState") == "failed", 20)
    time.sleep(2.5)
    ended = show(world, "causeway", "ExecMainStatus")
    said = since(vm, "causeway", cursor)
    if ended != str(code) or show(world, "causeway", "ActiveState") != "failed":
        raise Failure(f"exit code {ended}, {show(world, 'causeway', 'ActiveState')}:\n{said}")
    if show(world, "causeway", "NRestarts") != "0":
        raise Failure(f"started again:\n{said}")
    missing = [word for word in words if word not in said]
    if missing:
        raise Failure(f"the journal does not say {missing}:\n{said}")


def bad_configuration(world):
    with changed(world, CONFIG, "[consul]\nadress = 1\n"):
        fails_once(world, 64, "agent.toml:2:", "adress")


def no_configuration(world):
    vm = world.machine
    with changed(world, CONFIG, vm.path(CONFIG).read_text()):
        vm.path(CONFIG).unlink()
        fails_once(world, 66, "agent.toml", "check the path")


def bad_configuration_at_reload(world):
    """Whoever reloads is told, and the agent goes on."""
    vm = world.machine
    with changed(world, CONFIG, "[consul]\nadress = 1\n"):
        said = vm.sh("systemctl reload causeway", check=False)
        if said.returncode == 0 or show(world, "causeway", "ActiveState") != "active":
            raise Failure(f"the reload ended with {said.returncode}: {said.stdout}")


def missing_credential(world):
    text = '[consul]\ntoken_file = "/run/credentials/causeway.service/credentials_absent"\n'
    with changed(world, CONFIG, text):
        fails_once(world, 66, "credentials_absent", "check the path")


def unreadable_token(world):
    """As `install` without a group leaves it: root alone may read."""
    vm = world.machine
    vm.out(f"chmod 0600 {AGENT_TOKEN}")
    try:
        fails_once(world, 66, AGENT_TOKEN, "this user may read it")
    finally:
        vm.out(f"chmod 0640 {AGENT_TOKEN}; systemctl reset-failed causeway; systemctl restart causeway")
    healthy(world)


def no_credentials_at_all(world):
    """Nothing names one, and an empty folder is no reason to fail."""
    vm = world.machine
    if vm.out("ls -A /etc/causeway/credentials"):
        raise Failure("the folder of credentials is not empty, or this would not show a start with it")
    with changed(world, CONFIG, "[log]\nlevel = \"info\"\n"):
        vm.sh("systemctl restart causeway")
        if show(world, "causeway", "ActiveState") != "active":
            raise Failure(f"the agent is {show(world, 'causeway', 'ActiveState')}")


def unreadable_certificate(world):
    """One that root alone may read; and one that is none."""
    vm = world.machine
    vm.write("/etc/causeway/secret.pem", "", 0o600)
    text = '[consul]\naddress = "https://127.0.0.1:8501"\nca_file = "/etc/causeway/secret.pem"\n'
    try:
        with changed(world, CONFIG, text):
            fails_once(world, 66, "/etc/causeway/secret.pem", "this user may read it")
            vm.write("/etc/causeway/secret.pem", "none\n", 0o644)
            fails_once(world, 66, "/etc/causeway/secret.pem", "PEM")
    finally:
        vm.path("/etc/causeway/secret.pem").unlink()


def expired_certificate(world):
    """Consul's has expired: told, waited out, no restart; Envoys keep what they have."""
    vm = world.machine
    text = '[consul]\naddress = "https://127.0.0.1:8501"\nca_file = "/etc/causeway/consul-ca.pem"\n'
    try:
        with expired.server(vm.init(), 8501) as certificate, changed(world, CONFIG, text):
            vm.write("/etc/causeway/consul-ca.pem", certificate)
            cursor = mark(vm)
            vm.sh("systemctl restart causeway")
            said = until("the journal tells of it", lambda: next(
                (line for line in since(vm, "causeway", cursor).splitlines() if "expired" in line), None), 15)
            state = [show(world, "causeway", name) for name in ("ActiveState", "NRestarts")]
            if state != ["active", "0"]:
                raise Failure(f"{state}: {since(vm, 'causeway', cursor)}")
            if "waiting for the local Consul agent" not in show(world, "causeway", "StatusText"):
                raise Failure(f"systemctl status says {show(world, 'causeway', 'StatusText')}")
    finally:
        vm.sh("rm -f /etc/causeway/consul-ca.pem")
    return said.strip()[:160]


def unknown_proxy(world):
    """Told at once and again at the end of each patience, not more; it heals when the proxy is registered."""
    vm = world.machine
    unit = instance("nobody-knows-it")
    vm.write(file_of("nobody-knows-it", "env"), "ENVOY_ADMIN=127.0.0.1:19009\nRETRY_FOR=4s\n")
    vm.write(file_of("nobody-knows-it", "token"), world.tokens["web-1-proxy"], 0o600)
    cursor = mark(vm)
    try:
        vm.sh(f"systemctl start --no-block {unit}")
        until("it has ended once", lambda: int(show(world, unit, "NRestarts")) >= 1, 20)
        said = since(vm, unit, cursor)
        for word in ("no proxy with service id `nobody-knows-it`", "asking Consul again", "seconds=10", "status=69"):
            if word not in said:
                raise Failure(f"the journal does not say `{word}`:\n{said}")

        def starts():
            return since(vm, unit, cursor).count(f"Starting {unit}")

        until("it starts again", lambda: starts() > 1, 15)
        time.sleep(6)
        if starts() > STORM:
            raise Failure(f"{starts()} starts:\n{since(vm, unit, cursor)}")
        return f"{starts()} starts"
    finally:
        vm.sh(f"systemctl stop {unit}; systemctl reset-failed; rm {file_of('nobody-knows-it', '*')}")


def wrong_flags_of_an_instance(world):
    vm = world.machine
    unit = instance("wrong")
    vm.write(file_of("wrong", "env"), "ENVOY_ADMIN=nowhere\n")
    try:
        vm.sh(f"systemctl start {unit}", check=False)
        until("it has failed", lambda: show(world, unit, "ActiveState") == "failed", 20)
        time.sleep(2.5)
        state = [show(world, unit, name) for name in ("ActiveState", "ExecMainStatus", "NRestarts")]
        if state != ["failed", "2", "0"]:
            raise Failure(f"{state}: {since(vm, unit, '')}")
    finally:
        vm.sh(f"systemctl reset-failed {unit}; rm {file_of('wrong', 'env')}")


def a_token_without_rights(world):
    """Another's token: told, and nothing is served by it."""
    vm = world.machine
    unit, kept = instance("web-1-proxy"), world.tokens["web-1-proxy"]
    vm.write(file_of("web-1-proxy", "token"), world.tokens["gw-a"], 0o600)
    cursor = mark(vm)
    try:
        vm.sh(f"systemctl restart --no-block {quote(unit)}")
        until("the reason is told", lambda: "web-1-proxy" in since(vm, unit, cursor)
              and "stream refused" in since(vm, "causeway", cursor)
              or "no proxy with service id" in since(vm, unit, cursor), 40)
    finally:
        vm.write(file_of("web-1-proxy", "token"), kept + "\n", 0o600)
        vm.sh(f"systemctl restart {quote(unit)}", seconds=90)
    healthy(world)


def show(world, unit, name):
    return world.machine.out(f"systemctl show -P {name} {quote(unit)}")


def mark(vm, unit=""):
    """Where the journal ends now, or what a unit has written: behind another's entry journalctl leaves out a unit's first."""
    of_unit = f"-u {quote(unit)} -n 1" if unit else "-n 0"
    return vm.out(f"journalctl {of_unit} --show-cursor --no-pager | sed -n 's/^-- cursor: //p'")


def since(vm, unit, cursor):
    after = f"--after-cursor {quote(cursor)}" if cursor else "-n 20"
    return vm.out(f"journalctl -u {quote(unit)} --no-pager -o cat {after}")


CASES = [bad_configuration, no_configuration, bad_configuration_at_reload, missing_credential, unreadable_token,
         no_credentials_at_all, unreadable_certificate, expired_certificate, unknown_proxy, wrong_flags_of_an_instance,
         a_token_without_rights]
