"""Who can read what."""

import json
import uuid

from cases.badinput import changed, mark, since
from rig.host import Failure, until
from rig.setup import healthy, quote
from rig.world import AGENT_TOKEN, ENVOYS, admin_socket, file_of, instance


def keys_are_readable_by_their_service_only(world):
    """As another user, and as an Envoy: neither files, nor what a process holds, nor another instance's."""
    vm = world.machine
    own = AGENT_TOKEN
    envoy = f"/run/credentials/{instance('gw-b')}/consul-token"
    bootstrap = "/run/causeway-envoy/gw-b/gw-b.json"
    for path in (own, envoy, bootstrap):
        vm.out(f"test -s {quote(path)}")
    kept = [file_of("gw-b", "token")]
    agent, gateway = (vm.out(f"systemctl show -P MainPID {quote(unit)}") for unit in
                      ("causeway.service", instance("gw-b")))
    private = [f"/proc/{agent}/environ", f"/proc/{agent}/mem", f"/proc/{gateway}/environ", f"/proc/{gateway}/mem"]
    for user in ("nobody", "causeway-envoy", "causeway"):
        vm.out(f"{as_user(user, 'head -c 1 /etc/passwd')}")  # else a refusal would prove nothing
    for user, paths in [("nobody", [*kept, own, envoy, bootstrap, *private, "/var/lib/causeway"]),
                        ("causeway-envoy", [*kept, own, *private[:2], "/var/lib/causeway"]),
                        ("causeway", [*kept, envoy, bootstrap, *private[2:]])]:
        for path in paths:
            # Memory is opened only: at its first address there is nothing to read for anybody.
            look = f": <{quote(path)}" if path.endswith("/mem") else f"head -c 1 {quote(path)} || ls {quote(path)}/."
            if vm.sh(as_user(user, look), check=False).returncode == 0:
                raise Failure(f"{user} can read {path}")
    admin = admin_socket("gw-b")
    if vm.out(f"stat -c '%F %U %a' {quote(admin)}") != "socket causeway-envoy 600":
        raise Failure(f"{admin}: {vm.out(f'stat {quote(admin)}')}")
    if '"x-consul-token"' not in world.admin("gw-b", "/config_dump")[1]:
        raise Failure("the admin interface does not show the bootstrap: what keeps others from it proves nothing")
    socket = vm.out("stat -c '%U %G %a' /run/causeway/xds.sock")
    if socket != "causeway causeway-envoy 660":
        raise Failure(f"the xDS socket is {socket}")
    return ""


def as_user(user, script):
    """A script as another user, with that user's own groups."""
    return f"setpriv --reuid={user} --regid=$(id -g {user}) --init-groups sh -c {quote(script)}"


def the_agents_token_is_changed_without_a_restart(world):
    """A new one is installed over the old, which is then deleted: the agent reads on as the same process."""
    vm = world.machine
    agent, cursor = vm.out("systemctl show -P MainPID causeway"), mark(vm, "causeway")
    world.tokens["agent-2"] = str(uuid.uuid4())
    world.grant("agent-2", "causeway-agent", "")
    world.hand_token("agent-2")
    world.stir()
    # At its next request, which may be as far away as Consul holds those that wait.
    until("the agent has read it", lambda: "was read again" in since(vm, "causeway", cursor), 90, 0.2)
    _, old = vm.http("GET", "http://127.0.0.1:8500/v1/acl/token/self", None, {"X-Consul-Token": world.tokens["agent"]})
    world.ask("DELETE", f"/v1/acl/token/{json.loads(old)['AccessorID']}")
    world.stir()
    vm.out(f"systemctl restart {quote(instance('gw-b'))}")
    healthy(world)
    if vm.out("systemctl show -P MainPID causeway") != agent:
        raise Failure("the agent was started again")
    return ""


def a_credential_is_handed_over(world):
    """The other way: a copy that systemd makes, which nobody but the agent sees."""
    vm = world.machine
    copy = "/run/credentials/causeway.service/credentials_consul-token"
    vm.write("/etc/causeway/credentials/consul-token", vm.out(f"cat {AGENT_TOKEN}"), 0o600)
    try:
        with changed(world, "/etc/causeway/agent.toml", f'[consul]\ntoken_file = "{copy}"\n'):
            vm.out("systemctl restart causeway")
            healthy(world)
            for user in ("nobody", "causeway-envoy"):
                if vm.sh(as_user(user, f"head -c 1 {copy}"), check=False).returncode == 0:
                    raise Failure(f"{user} can read {copy}")
    finally:
        vm.out("rm /etc/causeway/credentials/consul-token")
    return ""


def an_instance_sees_no_other_instance(world):
    """The Envoys share a user; what each holds is out of the others' sight all the same."""
    vm = world.machine
    pid = vm.out(f"systemctl show -P MainPID {quote(instance('gw-a'))}")
    seen = vm.out(f"ls /proc/{pid}/root/run/causeway-envoy /proc/{pid}/root/run/credentials")
    if "gw-a" not in seen or "gw-b" in seen or "causeway.service" in seen:
        raise Failure(f"gw-a's Envoy sees {seen}")
    other = vm.out(f"systemctl show -P MainPID {quote(instance('gw-b'))}")
    look = "setpriv --reuid=causeway-envoy --regid=causeway-envoy --init-groups head -c 1 /proc/{}/environ"
    if vm.sh(look.format(other), check=False).returncode == 0:
        raise Failure("a process of the Envoys' user can read the environment of an instance")
    # What keeps it from that is the instance's user namespace; else this would prove nothing.
    vm.sh("systemd-run --quiet --collect --unit=control -p User=causeway-envoy sleep 20")
    vm.out(look.format(vm.out("systemctl show -P MainPID control")))
    vm.sh("systemctl stop control")
    return ""


def a_ca_kept_here_is_hidden_from_the_agent(world):
    """It starts without the key of a CA and with it. The renewal reads the key; the agent, as the same user, cannot."""
    vm = world.machine
    folder, user = "/etc/causeway/tls", "setpriv --reuid=causeway --regid=causeway --init-groups"
    key = f"{folder}/consul-agent-ca-key.pem"
    if vm.sh(f"test -e {key}", check=False).returncode == 0:
        raise Failure(f"{key} is there already, or this would not show a start without it")
    vm.out(f"{user} causeway tls ca create --dir {folder} && cd {folder} && {user} causeway tls cert create --cli")
    try:
        vm.out("systemctl restart causeway")
        agent = vm.out("systemctl show -P MainPID causeway")
        look = f"nsenter -t {agent} -m {user} head -c 1"
        vm.out(f"{look} {folder}/dc1-cli-consul-0-key.pem")
        if vm.sh(f"{look} {key}", check=False).returncode == 0:
            raise Failure(f"the agent can read {key}")
        vm.out(f"{user} head -c 1 {key}")
        vm.out("systemctl start causeway-tls-renew")
        kept = vm.out("journalctl --no-pager -o cat -u causeway-tls-renew")
        if "kept " not in kept:
            raise Failure(f"the renewal says {kept}")
    finally:
        vm.sh(f"rm -f {folder}/consul-agent-ca* {folder}/dc1-cli-consul-0*")
    healthy(world)
    return ""


def no_secret_is_shown(world):
    """Not in the journal, in what systemd tells of the units, in arguments, or in the environment of any process."""
    vm = world.machine
    units = " ".join(quote(unit) for unit in ["causeway.service", "causeway.target", *map(instance, ENVOYS)])
    places = {
        "the journal": "journalctl --no-pager -o export",
        "systemctl show": f"systemctl show {units}; systemctl status --no-pager -l {units} || true",
        "arguments": "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null; echo; done; true",
        "the environment": "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/environ 2>/dev/null; echo; done; true",
    }
    needles = {**world.tokens, "a private key": "PRIVATE KEY"}
    for place, script in places.items():
        text = vm.out(script)
        if len(text) < 200:
            raise Failure(f"{place}: nothing was read: {text}")
        for owner, secret in needles.items():
            if secret in text:
                line = next(line for line in text.splitlines() if secret in line)
                raise Failure(f"{place} shows the secret of {owner}: {line.replace(secret, '***')[:300]}")
    return f"{len(needles)} secrets in {len(places)} places"


CASES = [keys_are_readable_by_their_service_only, the_agents_token_is_changed_without_a_restart,
         a_credential_is_handed_over, an_instance_sees_no_other_instance,
         a_ca_kept_here_is_hidden_from_the_agent, no_secret_is_shown]
