use std::path::Path;

use super::*;
use crate::lab::MAX_SERVERS;

fn plan(slot: u8) -> Plan {
    Plan::new(&LabOptions::example(), slot)
}

#[test]
fn the_first_slot_is_the_lab_of_the_documentation() {
    let plan = plan(0);
    let shown: Vec<(&str, String)> =
        plan.nodes.iter().map(|node| (node.name.as_str(), node.address.to_string())).collect();
    assert_eq!(
        shown.iter().map(|(name, address)| (*name, address.as_str())).collect::<Vec<_>>(),
        [
            ("primary-server", "127.1.0.10"),
            ("primary-gateway", "127.1.0.2"),
            ("primary-services", "127.1.0.20"),
            ("secondary-server", "127.2.0.10"),
            ("secondary-gateway", "127.2.0.2"),
            ("secondary-services", "127.2.0.20"),
        ]
    );
    assert_eq!(plan.dashboard.as_deref(), Some("http://127.1.0.20:9002"));
    let gateway = plan.node("secondary-gateway").unwrap();
    assert_eq!(gateway.wan_address, Some(Ipv4Addr::new(127, 2, 255, 1)));
    assert_eq!(gateway.xds.as_deref(), Some("unix:/labs/one/secondary-gateway/xds.sock"));
}

#[test]
fn no_two_slots_share_an_address() {
    let mut seen = std::collections::BTreeSet::new();
    let options = LabOptions { servers: MAX_SERVERS, links: true, ..LabOptions::example() };
    for slot in 0..=LAST_SLOT {
        let plan = Plan::new(&options, slot);
        let mut addresses: Vec<Ipv4Addr> = plan.nodes.iter().map(|node| node.address).collect();
        addresses.extend(plan.nodes.iter().filter_map(|node| node.wan_address));
        addresses.extend(plan.nodes.iter().filter_map(|node| node.wan_listen));
        addresses.push(guard_address(slot));
        for address in addresses {
            assert!(address.is_loopback() && seen.insert(address), "{address} in slot {slot}");
        }
    }
}

#[test]
fn a_server_has_no_envoy_and_all_others_have() {
    for node in plan(3).nodes {
        let names: Vec<&str> = node.processes.iter().map(|process| process.name.as_str()).collect();
        match (node.role, node.datacenter.as_str()) {
            (Role::Server, _) => {
                assert_eq!(names, ["consul"]);
                assert_eq!((&node.causeway_http, &node.xds, &node.envoy_admin), (&None, &None, &None));
            }
            (Role::Gateway, _) => assert_eq!(names, ["consul", "causeway", "envoy"]),
            (_, PRIMARY) => assert_eq!(names, ["consul", "causeway", "dashboard", "envoy"]),
            _ => assert_eq!(names, ["consul", "causeway", "counting", "envoy"]),
        }
    }
}

#[test]
fn without_services_there_are_servers_and_gateways_only() {
    let options = LabOptions { start_services: false, ..LabOptions::example() };
    let plan = Plan::new(&options, 0);
    assert_eq!(plan.nodes.len(), 4);
    assert_eq!(plan.dashboard, None);
    assert!(plan.node("primary-services").is_none());
}

#[test]
fn a_link_stands_before_a_gateway_and_is_what_others_know() {
    assert_eq!(plan(0).links(), []);
    let plan = Plan::new(&LabOptions { links: true, ..LabOptions::example() }, 0);
    let [_, into_secondary] = plan.links().try_into().unwrap();
    assert_eq!(into_secondary.datacenter.as_str(), SECONDARY);
    assert_eq!(into_secondary.listen.to_string(), "127.2.255.1:8443");
    assert_eq!(into_secondary.gateway.to_string(), "127.2.254.1:8443");
    let gateway = plan.node("secondary-gateway").unwrap().process("envoy").unwrap().args.join(" ");
    assert!(gateway.contains("--wan-address 127.2.255.1:8443"), "{gateway}");
    assert!(gateway.contains("--bind-address wan=127.2.254.1:8443"), "{gateway}");
    for expected in [into_secondary.listen, into_secondary.gateway] {
        assert!(plan.listeners().contains(&(*expected.ip(), expected.port())), "{expected}");
    }
}

#[test]
fn three_servers_wait_for_each_other_and_clients_know_all() {
    let options = LabOptions { servers: 3, ..LabOptions::example() };
    let plan = Plan::new(&options, 0);
    let names: Vec<&str> = plan.servers(SECONDARY).map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["secondary-server", "secondary-server-2", "secondary-server-3"]);
    let read = |node: &str| consul_of(&plan, node);
    let second = read("secondary-server-2");
    assert_eq!(second["bootstrap_expect"], 3);
    assert_eq!(second["retry_join"], serde_json::json!(["127.2.0.10", "127.2.0.12"]));
    assert_eq!(second["cert_file"], "/labs/one/tls/secondary-server-2.pem");
    assert_eq!(second["primary_gateways"], serde_json::json!(["127.1.255.1:8443"]));
    let client = read("secondary-gateway");
    assert_eq!(client["retry_join"], serde_json::json!(["127.2.0.10", "127.2.0.11", "127.2.0.12"]));
    assert_eq!(client["cert_file"], "/labs/one/tls/secondary-client.pem");
}

fn arguments(node: &str, process: &str) -> String {
    plan(0).node(node).unwrap().process(process).unwrap().args.join(" ")
}

#[test]
fn envoys_are_run_through_causeway() {
    assert_eq!(
        arguments("secondary-services", "envoy"),
        "envoy --sidecar-for counting --xds unix:/labs/one/secondary-services/xds.sock \
         --admin-bind 127.2.0.20:19000 --envoy-binary /opt/envoy --bootstrap-dir /labs/one/secondary-services \
         -- --concurrency 1 -l warn"
    );
    let gateway = arguments("primary-gateway", "envoy");
    assert!(
        gateway.starts_with(
            "envoy --gateway mesh --service mesh-gateway --register --expose-servers --address 127.1.0.2:8443 \
             --wan-address 127.1.255.1:8443 --bind-address lan=127.1.0.2:8443 --bind-address wan=127.1.255.1:8443 \
             --check-interval 1s"
        ),
        "{gateway}"
    );
    let plan = plan(0);
    let envoy = plan.node("primary-gateway").unwrap().process("envoy").unwrap();
    assert_eq!(envoy.program, Path::new("/opt/causeway"));
    assert_eq!(envoy.env["CONSUL_HTTP_ADDR"], "http://127.1.0.2:8500");
}

#[test]
fn demo_services_are_told_where_the_other_is() {
    assert_eq!(
        arguments("primary-services", "dashboard"),
        "demo dashboard --listen 127.1.0.20:9002 --counting http://127.1.0.20:5000 \
         --envoy-admin http://127.1.0.20:19000 --datacenter primary"
    );
    assert_eq!(
        arguments("secondary-services", "counting"),
        "demo counting --listen 127.2.0.20:9001 --name secondary-services --datacenter secondary"
    );
}

#[test]
fn the_agents_configuration_is_toml_with_the_agreed_keys() {
    let plan = plan(0);
    let files = plan.config_files("key", None);
    let file = files.iter().find(|file| file.path.ends_with("primary-services/causeway.toml")).unwrap();
    let config: toml::Table = file.text.parse().unwrap();
    assert_eq!(config["consul"]["address"].as_str(), Some("http://127.1.0.20:8500"));
    assert_eq!(config["http"]["listen"].as_str(), Some("127.1.0.20:18500"));
    assert_eq!(config["xds"]["socket"].as_str(), Some("/labs/one/primary-services/xds.sock"));
    assert_eq!(config["xds"]["socket_group"].as_str(), Some(""));
    assert_eq!(config["state"]["dir"].as_str(), Some("/labs/one/primary-services/state"));
    assert_eq!(config["log"]["format"].as_str(), Some("text"));
    let config = crate::config::parse(&file.text, &|_| None).unwrap();
    assert_eq!(config.sync.home_of_sessions().unwrap().as_str(), SECONDARY);
    assert_eq!(config.sync.prefixes.of_key("config/a").unwrap().home.as_str(), PRIMARY);
}

fn consul(node: &str) -> serde_json::Value {
    consul_of(&plan(0), node)
}

fn consul_of(plan: &Plan, node: &str) -> serde_json::Value {
    let files = plan.config_files("Z29zc2lw", None);
    let path = PathBuf::from(format!("/labs/one/{node}/consul.json"));
    let file = files.iter().find(|file| file.path == path).unwrap();
    serde_json::from_str(&file.text).unwrap()
}

#[test]
fn a_secondary_server_first_meets_the_primary_gateways_wan_address() {
    let (primary, secondary) = (consul("primary-server"), consul("secondary-server"));
    assert_eq!(secondary["primary_gateways"], serde_json::json!(["127.1.255.1:8443"]));
    assert!(primary.get("primary_gateways").is_none(), "refused by Consul in a primary");
    for server in [primary, secondary] {
        assert_eq!(server["connect"]["enable_mesh_gateway_wan_federation"], true);
        assert_eq!(server["verify_incoming"], true);
        assert_eq!(server["verify_server_hostname"], true);
        assert_eq!(server["primary_datacenter"], "primary");
    }
}

#[test]
fn a_client_joins_its_server_and_registers_its_service_in_full() {
    let client = consul("primary-services");
    assert_eq!(client["retry_join"], serde_json::json!(["127.1.0.10"]));
    assert_eq!(client["leave_on_terminate"], true);
    let sidecar = &client["services"][0]["connect"]["sidecar_service"];
    assert_eq!(sidecar["checks"][0]["tcp"], "127.1.0.20:21000");
    let upstream = &sidecar["proxy"]["upstreams"][0];
    assert_eq!(upstream["datacenter"], "secondary");
    assert_eq!(upstream["local_bind_address"], "127.1.0.20");
    assert_eq!(upstream["mesh_gateway"]["mode"], "local");
    assert!(consul("primary-gateway").get("services").is_none(), "causeway envoy registers the gateway");
}

#[test]
fn a_long_path_moves_the_sockets_to_the_runtime_folder() {
    let long = format!("/{}", "d".repeat(90));
    let options = LabOptions { dir: long.into(), ..LabOptions::example() };
    let plan = Plan::new(&options, 0);
    let dir = plan.socket_dir.clone().unwrap();
    assert!(dir.starts_with("/run/user/1000"));
    let socket = plan.node("secondary-services").unwrap().xds.clone().unwrap();
    assert_eq!(socket, format!("unix:{}/secondary-services.sock", dir.display()));
    assert!(socket.len() < SOCKET_PATH_BYTES);
    assert_eq!(Plan::new(&LabOptions::example(), 0).socket_dir, None);
}

#[test]
fn every_address_a_process_listens_on_is_probed() {
    let listeners = plan(0).listeners();
    for expected in [
        (Ipv4Addr::new(127, 1, 0, 10), port::SERVER_RPC),
        (Ipv4Addr::new(127, 1, 255, 1), port::MESH_GATEWAY),
        (Ipv4Addr::new(127, 1, 0, 20), port::DASHBOARD_UPSTREAM),
        (Ipv4Addr::new(127, 2, 0, 20), port::COUNTING),
        (Ipv4Addr::new(127, 2, 0, 2), port::SYNC),
    ] {
        assert!(listeners.contains(&expected), "{expected:?}");
    }
}
