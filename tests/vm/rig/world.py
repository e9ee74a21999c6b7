"""What runs in the machine: a Consul with ACLs, the package, a client, a service twice, two gateways; and another
datacenter, of which only the other end is needed.

    client sidecar -+-> web-1's sidecar, web-2's sidecar                (HTTP, 127.0.0.1:5001)
                    +-> gw-a or gw-b -> far gateway -> far's sidecar    (TCP, 127.0.0.1:5002)
"""

import json
import urllib.parse
import uuid

from rig.host import ROOT, Failure, binary, until
from rig.network import over_socket

NODE = "vm1"
# An id that systemd must escape; the others need it not.
ODD = "web-2 proxy"
ODD_INSTANCE = r"web-2\x20proxy"
SIDECARS = {"client-sidecar-proxy": ("client", "127.1.0.10"), "web-1-proxy": ("web", "127.1.0.11"),
            ODD: ("web", "127.1.0.12")}
GATEWAYS = {"gw-a": "127.1.0.2", "gw-b": "127.1.0.3"}
ENVOYS = ["client-sidecar-proxy", "web-1-proxy", ODD, "gw-a", "gw-b"]
# One has a port for its admin interface; the others have what the unit gives them, a socket.
ADMIN_PORT = {"client-sidecar-proxy": 19001}
# Else Consul calls everything critical when it starts, until it has checked.
PASSING = {"status": "passing"}
WEB = "http://127.0.0.1:5001/"
FAR = "http://127.0.0.1:5002/"
WEB_DEFAULTS = {"Kind": "service-defaults", "Name": "web", "Protocol": "http"}
AGENT_TOKEN = "/etc/causeway/secrets/consul-token"

CONSUL_UNIT = """\
[Unit]
Description=Consul
After=network-online.target
Wants=network-online.target
[Service]
Type=notify
User=consul
ExecStart=/usr/bin/consul agent -config-dir={folder}
ExecReload=/bin/kill -HUP $MAINPID
KillMode=process
Restart=on-failure
RestartSec=1
SuccessExitStatus=1
StateDirectory={state}
LimitNOFILE=65536
[Install]
WantedBy=multi-user.target
"""

UNIT = """\
[Unit]
Description={about}
StartLimitIntervalSec=0
[Service]
Environment={environment}
ExecStart={command}
Restart=always
RestartSec=1
{more}
[Install]
WantedBy=multi-user.target
"""


def instance(proxy):
    """The name of a proxy's unit."""
    return f"causeway-envoy@{ODD_INSTANCE if proxy == ODD else proxy}.service"


def file_of(proxy, suffix):
    """A proxy's file of settings or its token. systemd takes the former's name for a pattern, without backslashes."""
    name = ODD_INSTANCE if proxy == ODD else proxy
    return f"/etc/causeway/envoy/{name.replace(chr(92), '') if suffix == 'env' else name}.{suffix}"


class World:
    def __init__(self, machine):
        self.machine = machine
        names = ["agent", *ENVOYS]
        self.tokens = {name: str(uuid.uuid4()) for name in names}
        self.management = str(uuid.uuid4())

    # -- files, written before the boot

    def lay_out(self):
        vm = self.machine
        for name in ("consul", "envoy"):
            vm.copy(binary(name), f"/usr/bin/{name}")
        vm.write("/etc/hostname", f"{NODE}\n")
        vm.write("/usr/lib/sysusers.d/consul.conf", "u consul - Consul /var/lib/consul\n")
        vm.write("/etc/systemd/system/consul.service", CONSUL_UNIT.format(folder="/etc/consul.d", state="consul"))
        vm.write("/etc/systemd/system/far-consul.service",
                 CONSUL_UNIT.format(folder="/etc/far/consul.d", state="far-consul"))
        self.consul("dc1", "127.1.0.1", "127.0.0.1", "127.2.0.1", "/etc/consul.d/consul.json", "consul")
        self.consul("dc2", "127.2.0.1", "127.2.0.1", "127.1.0.1", "/etc/far/consul.d/consul.json", "far-consul")
        vm.write("/etc/consul.d/services.json", json.dumps({"services": self.services()}, indent=1))
        vm.write("/etc/far/consul.d/services.json", json.dumps({"services": self.far_services()}, indent=1))
        for number in (1, 2):
            self.unit(f"web-{number}", f"/usr/bin/causeway demo counting --listen 127.1.0.1{number}:9001 "
                                       f"--name web-{number} --datacenter dc1")
        self.far_units()

    def consul(self, datacenter, address, client, other, path, state):
        config = {
            "datacenter": datacenter, "primary_datacenter": "dc1", "node_name": NODE if datacenter == "dc1" else "far1",
            "server": True, "bootstrap_expect": 1, "data_dir": f"/var/lib/{state}", "bind_addr": address,
            "client_addr": client, "retry_join": [address], "retry_join_wan": [other], "retry_interval_wan": "1s",
            "connect": {"enabled": True}, "ports": {"dns": -1, "grpc": -1}, "performance": {"raft_multiplier": 1},
            "leave_on_terminate": False, "disable_update_check": True,
            "acl": {"enabled": True, "default_policy": "deny", "down_policy": "extend-cache",
                    "enable_token_replication": True,
                    "tokens": {"agent": self.management, "replication": self.management}},
        }
        if datacenter == "dc1":
            config["acl"]["tokens"]["master"] = self.management
        self.machine.write(path, json.dumps(config, indent=1), 0o644)

    def services(self):
        found = []
        for proxy, (service, address) in SIDECARS.items():
            body = {"kind": "connect-proxy", "id": proxy, "name": f"{service}-sidecar-proxy", "address": address,
                    "port": 21000, "token": self.management,
                    "checks": [{"name": "listens", "tcp": f"{address}:21000", "interval": "2s", **PASSING}],
                    "proxy": {"destination_service_name": service, "local_service_address": address,
                              "local_service_port": 9001}}
            if service == "client":
                found.append({"name": "client", "id": "client", "token": self.management})
                body["proxy"]["destination_service_id"] = "client"
                body["proxy"]["upstreams"] = [
                    {"destination_name": "web", "local_bind_port": 5001},
                    {"destination_name": "far", "datacenter": "dc2", "local_bind_port": 5002,
                     "mesh_gateway": {"mode": "local"}}]
            else:
                number = address[-1]
                found.append({"name": "web", "id": f"web-{number}", "address": address, "port": 9001,
                              "token": self.management})
                body["proxy"]["destination_service_id"] = f"web-{number}"
            found.append(body)
        found.append(gateway("gw-b", GATEWAYS["gw-b"], self.management))
        return found

    def far_services(self):
        proxy = {"kind": "connect-proxy", "id": "far-proxy", "name": "far-sidecar-proxy", "address": "127.2.0.10",
                 "port": 21000, "token": self.management,
                 "proxy": {"destination_service_name": "far", "destination_service_id": "far",
                           "local_service_address": "127.2.0.10", "local_service_port": 9001}}
        service = {"name": "far", "id": "far", "address": "127.2.0.10", "port": 9001, "token": self.management}
        return [service, proxy, gateway("far-gw", "127.2.0.2", self.management)]

    def unit(self, name, command, environment="A=b", more=""):
        text = UNIT.format(about=name, command=command, environment=environment, more=more)
        self.machine.write(f"/etc/systemd/system/{name}.service", text)

    def far_units(self):
        """The other datacenter: as root and by hand, since nothing of it is looked at."""
        config = ('[consul]\naddress = "http://127.2.0.1:8500"\n'
                  f'token = "{self.management}"\n'
                  '[xds]\nsocket = "/run/far/xds.sock"\nsocket_group = ""\n[http]\nlisten = "127.2.0.1:18500"\n')
        self.machine.write("/etc/far/agent.toml", config)
        self.unit("far", "/usr/bin/causeway demo counting --listen 127.2.0.10:9001 --name far --datacenter dc2")
        self.unit("far-agent", "/usr/bin/causeway agent --config /etc/far/agent.toml", more="RuntimeDirectory=far")
        for proxy, port in (("far-gw", 19001), ("far-proxy", 19002)):
            self.unit(proxy, f"/usr/bin/causeway envoy --proxy-id {proxy} --admin-bind 127.2.0.1:{port} "
                             f"--xds unix:/run/far/xds.sock --retry-for 60s --bootstrap-dir /run/{proxy}",
                      f"CONSUL_HTTP_ADDR=127.2.0.1:8500 CONSUL_HTTP_TOKEN={self.management}",
                      f"RuntimeDirectory={proxy}")

    # -- after the boot

    def settle_consul(self):
        """Brings up both Consuls, with the tokens and settings that the services need."""
        self.machine.sh("systemctl daemon-reload; systemd-sysusers; "
                        "systemctl enable --now --no-block consul far-consul")
        until("Consul has a leader", lambda: self.ask("GET", "/v1/status/leader") not in ("", None), 40)
        until("Consul knows its management token", self.has_management, 40)
        self.ask("PUT", "/v1/config", WEB_DEFAULTS)
        self.ask("POST", "/v1/connect/intentions",
                 {"SourceName": "*", "DestinationName": "*", "Action": "allow"})
        self.grant("agent", "causeway-agent", "")
        for proxy, (service, _) in SIDECARS.items():
            self.grant(proxy, "sidecar", service)
        for proxy in GATEWAYS:
            self.grant(proxy, "mesh-gateway", "mesh-gateway")
        self.machine.sh("systemctl enable --now --no-block web-1 web-2 far far-agent far-gw far-proxy")

    def has_management(self):
        return self.ask("GET", "/v1/acl/token/self")

    def grant(self, name, policy, service):
        """A token with one of the policies that come with Causeway."""
        rules = (ROOT / f"policies/{policy}.hcl").read_text()
        rules = rules.replace("{{node}}", NODE).replace("{{service}}", service)
        title = "".join(c if c.isalnum() else "-" for c in name)
        self.ask("PUT", "/v1/acl/policy", {"Name": title, "Rules": rules})
        self.ask("PUT", "/v1/acl/token", {"SecretID": self.tokens[name], "Policies": [{"Name": title}]})

    def hand_out(self):
        """What an administrator writes: the agent's configuration and token, each Envoy's settings and token."""
        vm = self.machine
        self.hand_token("agent")
        vm.write("/etc/causeway/agent.toml", f'[consul]\ntoken_file = "{AGENT_TOKEN}"\n')
        for proxy in ENVOYS:
            settings = "ENVOY_ARGS=--concurrency 1\nDRAIN_WAIT=15s\n"
            if proxy in ADMIN_PORT:
                settings += f"ENVOY_ADMIN=127.0.0.1:{ADMIN_PORT[proxy]}\n"
            if proxy == "gw-a":
                address = GATEWAYS[proxy]
                settings += f"CAUSEWAY_FLAGS=--gateway mesh --register --address {address}:8443 --check-interval 2s " \
                            f"--wan-address {address}:8443\n"
            vm.write(file_of(proxy, "env"), settings, 0o644)
            vm.write(file_of(proxy, "token"), self.tokens[proxy] + "\n", 0o600)

    def hand_token(self, name):
        """Gives the agent a token as the documentation says; it need not run, and may."""
        vm = self.machine
        vm.write("/root/token", self.tokens[name] + "\n", 0o600)
        vm.out(f"install -m 0640 -g causeway /root/token {AGENT_TOKEN} && rm /root/token")

    def stir(self):
        """Writes what is there already: whoever watches it asks again."""
        self.ask("PUT", "/v1/config", WEB_DEFAULTS)

    # -- questions

    def ask(self, method, path, body=None, address="127.0.0.1:8500"):
        """Asks Consul in the machine, with the token that may do everything."""
        headers = {"X-Consul-Token": self.management}
        status, text = self.machine.http(method, f"http://{address}{path}", body, headers)
        if status != 200:
            raise Failure(f"Consul answers {method} {path} with {status}: {text.strip()[:200]}")
        return json.loads(text) if text.strip() else None

    def admin(self, proxy, path):
        if proxy in ADMIN_PORT:
            return self.machine.http("GET", f"http://127.0.0.1:{ADMIN_PORT[proxy]}{path}")
        return over_socket(f"/proc/{self.machine.init()}/root{admin_socket(proxy)}", path)

    def stat(self, proxy, pattern):
        """The sum of an Envoy's statistics whose names match."""
        _, text = self.admin(proxy, f"/stats?format=json&filter={urllib.parse.quote(pattern)}")
        return sum(stat.get("value", 0) for stat in json.loads(text)["stats"])


def admin_socket(proxy):
    return f"/run/causeway-envoy/{ODD_INSTANCE if proxy == ODD else proxy}/admin.sock"


def gateway(name, address, token):
    return {"kind": "mesh-gateway", "id": name, "name": "mesh-gateway", "address": address, "port": 8443,
            "token": token, "checks": [{"name": "listens", "tcp": f"{address}:8443", "interval": "2s", **PASSING}],
            "tagged_addresses": {"lan": {"address": address, "port": 8443}, "wan": {"address": address, "port": 8443}}}

