use std::{cell::RefCell, collections::BTreeMap};

use clap::Parser;
use serde_json::{Value, json};

use super::{
    choose::{ChooseError, LocalService, Wanted, choose},
    consul::{ConsulAgent, LocalAgent},
    request::Request,
    *,
};
use crate::{envoy::bootstrap::AdminAddress, model::settings::Settings};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: EnvoyArgs,
}

fn args(line: &str) -> EnvoyArgs {
    Line::try_parse_from(std::iter::once("envoy").chain(line.split_whitespace())).unwrap().args
}

fn request(line: &str) -> Request {
    Request::read(&args(line)).unwrap()
}

fn problems(line: &str) -> Vec<String> {
    Request::read(&args(line)).unwrap_err()
}

/// An agent in memory; it keeps what is registered.
struct MemoryAgent {
    services: Vec<LocalService>,
    registered: RefCell<Vec<Value>>,
    defaults: Settings,
}

impl MemoryAgent {
    fn new(services: Value) -> Self {
        let services: BTreeMap<String, LocalService> = serde_json::from_value(services).unwrap();
        Self {
            services: services.into_values().collect(),
            registered: RefCell::default(),
            defaults: Settings::default(),
        }
    }
}

impl ConsulAgent for MemoryAgent {
    async fn facts(&self) -> anyhow::Result<LocalAgent> {
        let (datacenter, node_name, address) = ("dc1".into(), "node-1".into(), "127.0.0.1".into());
        std::future::ready(Ok(LocalAgent { datacenter, node_name, address })).await
    }
    async fn services(&self) -> anyhow::Result<Vec<LocalService>> {
        std::future::ready(Ok(self.services.clone())).await
    }
    async fn proxy_defaults(&self) -> anyhow::Result<Settings> {
        std::future::ready(Ok(self.defaults.clone())).await
    }
    async fn register(&self, body: Value) -> anyhow::Result<()> {
        self.registered.borrow_mut().push(body);
        std::future::ready(Ok(())).await
    }
}

fn sidecar(id: &str, service: &str, service_id: &str) -> Value {
    json!({"Kind": "connect-proxy", "ID": id, "Service": format!("{service}-sidecar-proxy"),
           "Proxy": {"DestinationServiceName": service, "DestinationServiceID": service_id}})
}

fn catalog() -> Value {
    json!({
        "web-1": {"ID": "web-1", "Service": "web", "Port": 80},
        "web-1-sidecar-proxy": sidecar("web-1-sidecar-proxy", "web", "web-1"),
        "api-a": sidecar("api-a", "api", "api-1"),
        "api-b": sidecar("api-b", "api", "api-1"),
        "gw": {"Kind": "mesh-gateway", "ID": "gw", "Service": "mesh-gateway",
               "Tags": ["kept"], "Meta": {"consul-wan-federation": "1", "team": "net"},
               "Proxy": {"Config": {"envoy_mesh_gateway_no_default_bind": true, "connect_timeout_ms": 900}}},
        "in": {"Kind": "ingress-gateway", "ID": "in", "Service": "ingress"},
    })
}

fn chosen(wanted: Wanted) -> Result<String, String> {
    let services = MemoryAgent::new(catalog()).services;
    choose(&services, &wanted)
        .map(|service| service.id.clone())
        .map_err(|error: ChooseError| error.to_string())
}

#[test]
fn a_sidecar_is_found_by_the_id_of_its_service() {
    assert_eq!(chosen(Wanted::SidecarFor("web-1".into())).unwrap(), "web-1-sidecar-proxy");
    assert_eq!(chosen(Wanted::SidecarFor("WEB-1".into())).unwrap(), "web-1-sidecar-proxy");
    assert_eq!(chosen(Wanted::Proxy("api-b".into())).unwrap(), "api-b");
    assert_eq!(chosen(Wanted::Gateway(None)).unwrap(), "gw");
    assert_eq!(chosen(Wanted::Gateway(Some("mesh-gateway".into()))).unwrap(), "gw");
    assert_eq!(chosen(Wanted::GatewayId("gw".into())).unwrap(), "gw");
}

#[test]
fn what_cannot_be_chosen_is_told_with_its_remedy() {
    let told: Vec<String> = [
        Wanted::SidecarFor("api-1".into()),
        Wanted::SidecarFor("wbe-1".into()),
        Wanted::SidecarFor("web".into()),
        Wanted::SidecarFor("api-a".into()),
        Wanted::Proxy("api-c".into()),
        Wanted::Proxy("web-1".into()),
        Wanted::Proxy("in".into()),
        Wanted::GatewayId("web-1".into()),
        Wanted::Gateway(Some("edge".into())),
    ]
    .into_iter()
    .map(|wanted| chosen(wanted).unwrap_err())
    .collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    2 sidecars are registered for service id `api-1`: api-a, api-b; choose one with `--proxy-id ID`
    no sidecar is registered for service id `wbe-1` on this Consul agent; add `connect { sidecar_service {} }` to its registration and run `consul services register`, or `consul reload`; service ids that have a sidecar here: web-1, api-1
    no sidecar is registered for service id `web` on this Consul agent; add `connect { sidecar_service {} }` to its registration and run `consul services register`, or `consul reload`; `web` is a service name, and --sidecar-for takes a service id: web-1
    service id `api-a` is itself a proxy, of kind connect-proxy; use `--proxy-id api-a`
    no proxy with service id `api-c` is registered on this Consul agent; proxies here: api-a, api-b, in, gw, web-1-sidecar-proxy
    service id `web-1` is an ordinary service, not a proxy; use `--sidecar-for web-1`
    service id `in` is of kind ingress-gateway; this version of causeway serves sidecars and mesh gateways only
    service id `web-1` is not a mesh gateway but of kind ordinary service; name the gateway's own id
    no mesh gateway of service `edge` is registered on this Consul agent; add `--register` to register one; mesh gateway services here: mesh-gateway
    ");
}

#[test]
fn two_gateways_must_be_told_apart() {
    let mut services = MemoryAgent::new(catalog()).services;
    services.push(LocalService { id: "gw2".into(), kind: "mesh-gateway".into(), ..LocalService::default() });
    let error = choose(&services, &Wanted::Gateway(None)).unwrap_err().to_string();
    assert_eq!(error, "2 mesh gateways are registered here: gw, gw2; choose one with `--proxy-id ID`");
}

#[test]
fn wrong_command_lines_are_told_all_at_once() {
    assert_eq!(
        problems("--sidecar-for web --register --expose-servers --admin-bind nonsense --xds unix:relative")
            .len(),
        4
    );
    let told = [
        problems(""),
        problems("--gateway mesh --expose-servers --address 10.0.0.1"),
        problems(
            "--gateway mesh --register --bind-address x --bind-address a=1.2.3.4:1 --bind-address a=1.2.3.4:2 \
             --deregister-after-critical soon --address a/b",
        ),
        problems("--sidecar-for web --admin-bind ::1:19000 --xds nowhere"),
        problems(
            "--gateway mesh --register --admin-bind node:19000 --bind-address a=gw:1 --xds 10.0.0.1:18502",
        ),
    ];
    insta::assert_snapshot!(told.concat().join("\n"), @r"
    say which proxy to start: `--sidecar-for ID`, `--proxy-id ID` or `--gateway mesh`
    `--expose-servers` is part of a registration; add `--register`
    `--address` is part of a registration; add `--register`
    --bind-address: `x` is not NAME=HOST:PORT
    --bind-address: `a` is given twice; give each address its own name
    --deregister-after-critical: `soon` is not a duration; write for example 10s, 30m or 6h
    --address: `a/b` is not HOST:PORT; write for example 10.0.1.5:8443
    --admin-bind: `::1:19000` is not HOST:PORT; write for example 127.0.0.1:19000 or [::1]:19000
    --xds: `nowhere` is neither unix:/path nor HOST:PORT; write for example unix:/run/causeway/xds.sock
    --bind-address: `gw` is a host name, and Envoy listens on IP addresses only; give one of this machine's
    --admin-bind: `node` is a host name, and Envoy listens on IP addresses only; give one of this machine's
    --xds: `10.0.0.1:18502` is not on this machine's loopback, and the token and private keys would cross the network in plain text; start Envoy beside its agent, with unix:/run/causeway/xds.sock
    ");
}

#[test]
fn localhost_is_an_address_to_listen_on() {
    assert_eq!(
        request("--sidecar-for web --admin-bind localhost:19000").admin,
        AdminAddress::Tcp("127.0.0.1:19000".parse().unwrap())
    );
}

#[test]
fn the_admin_interface_may_be_a_unix_socket() {
    let admin = |address: &str| request(&format!("--sidecar-for web --admin-bind {address}")).admin;
    assert_eq!(admin("unix:/run/a.sock"), AdminAddress::Unix("/run/a.sock".into()));
    let long = format!("unix:/{}", "a".repeat(107));
    for wrong in ["unix:a.sock", long.as_str()] {
        let told = problems(&format!("--sidecar-for web --admin-bind {wrong}")).concat();
        assert!(told.contains("is not an absolute path of at most 107 bytes"), "{told}");
    }
}

#[test]
fn addresses_may_be_given_in_part() {
    let registration = |line: &str| {
        let plan = request(&format!("--gateway mesh --register {line}")).register.unwrap();
        let it = plan.registration("10.9.9.9");
        let wan = it.wan.map_or_else(|| "-".to_owned(), |wan| format!("{}:{}", wan.host, wan.port));
        format!("{} {} {wan} {}", it.address.unwrap_or_else(|| "-".into()), it.port, it.checked_host)
    };
    assert_eq!(registration(""), "- 8443 - 10.9.9.9");
    assert_eq!(registration("--address :443"), "- 443 - 10.9.9.9");
    assert_eq!(
        registration("--address gw.internal --wan-address 203.0.113.1:1"),
        "gw.internal 8443 203.0.113.1:1 gw.internal"
    );
    assert_eq!(registration("--address fd00::1 --wan-address [fd00::2]:5"), "fd00::1 8443 fd00::2:5 fd00::1");
    assert_eq!(registration("--address 10.0.0.1:443 --wan-address :5"), "10.0.0.1 443 10.0.0.1:5 10.0.0.1");
    assert_eq!(registration("--wan-address 203.0.113.1"), "- 8443 203.0.113.1:8443 10.9.9.9");
    let told = problems("--gateway mesh --register --address :443 --wan-address :5");
    assert_eq!(told, ["--wan-address: a port alone needs the host in `--address`; write HOST:PORT"]);
}

async fn prepared(line: &str, agent: &MemoryAgent) -> anyhow::Result<BootstrapParams> {
    prepare(&request(line), agent, &None, &|_| None).await
}

#[tokio::test]
async fn settings_of_the_bootstrap_come_from_the_proxy_and_then_from_all_proxies() {
    let mut agent = MemoryAgent::new(json!({"web-1-sidecar-proxy": {
        "Kind": "connect-proxy", "ID": "web-1-sidecar-proxy", "Proxy": {"DestinationServiceID": "web-1", "Config": {
            "envoy_prometheus_bind_addr": "0.0.0.0:9102", "envoy_dogstatsd_url": ""}}}}));
    let central =
        json!({"envoy_prometheus_bind_addr": "0.0.0.0:9999", "envoy_stats_bind_addr": "127.0.0.1:9103"});
    agent.defaults = serde_json::from_value(central).map(Settings).unwrap();
    let line = "--sidecar-for web-1 --prometheus-scrape-path /m --envoy-ready-bind-address 127.0.0.1 \
                --envoy-ready-bind-port 9104";
    let pages = prepared(line, &agent).await.unwrap().extras.pages;
    let found: Vec<_> = pages.iter().map(|page| format!("{}{}", page.at, page.path)).collect();
    assert_eq!(found, ["0.0.0.0:9102/m", "127.0.0.1:9103/stats", "127.0.0.1:9104/ready"]);
}

#[test]
fn host_names_of_a_gateway_are_told() {
    let told = |line: &str| {
        let plan = request(&format!("--gateway mesh --register {line}")).register.unwrap();
        caveats::of_addresses(&plan.registration("10.9.9.9"))
    };
    insta::assert_snapshot!(told("--address gw.internal --wan-address gw.example:443").join("\n"), @r"
    --address: `gw.internal` is a host name, which Causeway's gateways do not follow yet: they leave this gateway out, with a note; give an IP address
    --wan-address: `gw.example` is a host name, which Causeway's gateways do not follow yet: they leave this gateway out, with a note; give an IP address
    ");
    assert!(told("--address 10.0.0.1 --wan-address [fd00::1]:443").is_empty());
    assert!(told("").is_empty());
}

#[tokio::test]
async fn a_sidecar_needs_no_registration() {
    let agent = MemoryAgent::new(catalog());
    let params = prepared("--sidecar-for web-1", &agent).await.unwrap();
    assert_eq!((params.proxy_id.as_str(), params.service.as_str()), ("web-1-sidecar-proxy", "web"));
    assert_eq!((params.datacenter.as_str(), params.node_name.as_str()), ("dc1", "node-1"));
    assert!(agent.registered.borrow().is_empty());
}

#[tokio::test]
async fn a_gateway_is_registered_with_all_its_parts() {
    let agent = MemoryAgent::new(json!({}));
    let line = "--gateway mesh --register --expose-servers --service edge --address 127.0.0.1:8443 \
                --wan-address 203.0.113.1:443 --bind-address lan=10.0.0.1:8443 --check-interval 1s";
    let params = prepared(line, &agent).await.unwrap();
    assert_eq!((params.proxy_id.as_str(), params.service.as_str()), ("edge", "edge"));
    let lan = json!({"Address": "127.0.0.1", "Port": 8443});
    let expected = json!({
        "Kind": "mesh-gateway", "ID": "edge", "Name": "edge", "Address": "127.0.0.1", "Port": 8443,
        "TaggedAddresses": {"lan": lan, "wan": {"Address": "203.0.113.1", "Port": 443}},
        "Tags": [], "Meta": {"consul-wan-federation": "1"},
        "Proxy": {"Config": {
            "envoy_gateway_no_default_bind": true,
            "envoy_gateway_bind_addresses": {"lan": {"Address": "10.0.0.1", "Port": 8443}}}},
        "Check": {"Name": "Mesh Gateway Listening", "TCP": "127.0.0.1:8443", "Interval": "1s",
                  "DeregisterCriticalServiceAfter": "6h"},
    });
    assert_eq!(agent.registered.borrow()[..], [expected]);
}

#[tokio::test]
async fn addresses_that_were_not_given_are_left_to_consul() {
    let agent = MemoryAgent::new(json!({}));
    prepared("--gateway mesh --register", &agent).await.unwrap();
    let body = agent.registered.borrow()[0].clone();
    assert_eq!(body.get("Address"), None);
    assert_eq!((&body["Port"], &body["TaggedAddresses"]), (&json!(8443), &json!({})));
    assert_eq!(body["Check"]["TCP"], "127.0.0.1:8443", "the agent's own address, for the check only");
    assert_eq!(body["Proxy"]["Config"], json!({}));
}

#[tokio::test]
async fn envoy_listens_on_both_addresses_where_both_are_this_machines() {
    let config = async |addresses: &str| {
        let agent = MemoryAgent::new(json!({}));
        prepared(&format!("--gateway mesh --register {addresses}"), &agent).await.unwrap();
        agent.registered.borrow()[0]["Proxy"]["Config"].clone()
    };
    assert_eq!(
        config("--address 127.0.0.1:8443 --wan-address 127.0.0.1:8444").await,
        json!({"envoy_gateway_no_default_bind": true, "envoy_gateway_bind_tagged_addresses": true})
    );
    for others in [
        "--address 127.0.0.1:8443 --wan-address 192.0.2.1:8443",
        "--address 127.0.0.1:8443 --wan-address localhost:8443",
        "--wan-address 127.0.0.1:8443",
        "--address 127.0.0.1:8443",
    ] {
        assert_eq!(config(others).await, json!({}), "{others}");
    }
}

#[tokio::test]
async fn registering_again_keeps_what_no_flag_owns() {
    let agent = MemoryAgent::new(catalog());
    prepared("--gateway mesh --register --proxy-id gw --address 127.0.0.1", &agent).await.unwrap();
    let body = agent.registered.borrow()[0].clone();
    assert_eq!(body["Tags"], json!(["kept"]));
    assert_eq!(body["Meta"], json!({"team": "net"}), "without --expose-servers the federation mark goes");
    assert_eq!(body["Proxy"]["Config"], json!({"connect_timeout_ms": 900}));
}

#[tokio::test]
async fn an_id_of_another_service_is_not_taken_over() {
    let agent = MemoryAgent::new(catalog());
    let error = prepared("--gateway mesh --register --proxy-id web-1", &agent).await.unwrap_err();
    assert!(error.to_string().contains("already registered for service `web`"), "{error}");
    assert!(agent.registered.borrow().is_empty());
}

#[tokio::test]
async fn an_address_of_another_machine_is_found_out_before_registering() {
    let agent = MemoryAgent::new(json!({}));
    let line = "--gateway mesh --register --address 192.0.2.1:8443";
    let error = prepared(line, &agent).await.unwrap_err();
    assert!(error.to_string().contains("--bind-address NAME=HOST:PORT"), "{error}");
    assert!(agent.registered.borrow().is_empty());
    prepared(&format!("{line} --bind-address lan=127.0.0.1:8443"), &agent).await.unwrap();
}

#[test]
fn an_instance_does_not_give_up_so_soon_that_its_unit_fails_for_good() {
    let of = |line: &str| patience(&args(line)).as_secs();
    assert_eq!(of("--instance web-sidecar-proxy --retry-for 4s"), 10);
    assert_eq!(of("--instance web-sidecar-proxy --retry-for 30s"), 30);
    assert_eq!(of("--proxy-id web-sidecar-proxy --retry-for 4s"), 4);
}
