//! Sockets that cannot be had.

use std::{
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixListener,
};

use super::{assert_says, host};
use crate::rig::parts::{Agent, Home, free_ports, run};

/// Nobody listens there.
const NO_CONSUL: &str = "http://127.58.0.30:9";

fn refused(home: &Home, more: &str) -> String {
    let file = home.write(NO_CONSUL, more);
    let ended = run(&["agent", "--config", file.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    ended.err
}

#[test]
fn a_busy_http_port_is_named() {
    let home = Home::new(host(30));
    let _holder = TcpListener::bind(home.http).unwrap();
    let port = format!("sport = :{}", home.http.port());
    assert_says(&refused(&home, ""), &[&home.http.to_string(), "ss -ltnp", &port, "[http] listen"]);
}

#[test]
fn a_busy_xds_port_is_named() {
    let home = Home::new(host(31));
    let holder = TcpListener::bind((host(31), 0)).unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let said = refused(&home, &format!("xds.tcp = \"{address}\""));
    assert_says(&said, &[&address, "ss -ltnp", "another xDS address"]);
}

#[test]
fn a_socket_that_another_agent_serves_is_left_alone() {
    let first = Agent::with(Home::new(host(32)), NO_CONSUL, "", &[]);
    let socket = first.home.socket();
    let home = Home::new(host(32));
    let file = home.path("other.toml");
    let text = format!(
        "http.listen = \"{}\"\nxds.socket = \"{}\"\nxds.socket_group = \"\"\n",
        home.http,
        socket.display()
    );
    std::fs::write(&file, text).unwrap();
    let ended = run(&["agent", "--config", file.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_says(&ended.err, &["another agent serves", socket.to_str().unwrap(), "stop it"]);
    std::os::unix::net::UnixStream::connect(&socket).expect("the first one still serves");
}

#[test]
fn a_socket_left_behind_is_taken_over() {
    let home = Home::new(host(33));
    drop(UnixListener::bind(home.socket()).unwrap());
    assert!(home.socket().exists());
    let agent = Agent::with(home, NO_CONSUL, "", &[]);
    std::os::unix::net::UnixStream::connect(agent.home.socket()).expect("it serves there");
}

#[test]
fn what_is_no_socket_is_not_removed() {
    let home = Home::new(host(34));
    std::fs::write(home.socket(), "precious").unwrap();
    assert_says(&refused(&home, ""), &["xds.sock exists and is not a socket", "choose another path"]);
    assert_eq!(std::fs::read_to_string(home.socket()).unwrap(), "precious");
}

#[test]
fn a_group_that_is_not_there_is_named() {
    let home = Home::new(host(35));
    let file = home.path("agent.toml");
    let text = format!(
        "http.listen = \"{}\"\nxds.socket = \"{}\"\nxds.socket_group = \"no-such-group\"\n",
        home.http,
        home.socket().display()
    );
    std::fs::write(&file, text).unwrap();
    let ended = run(&["agent", "--config", file.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_says(&ended.err, &["there is no group no-such-group", "groupadd --system no-such-group"]);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let home = Home::new(host(36));
    let file = home.path("agent.toml");
    let text = format!(
        "http.listen = \"{}\"\nxds.socket = \"/nowhere/xds.sock\"\nxds.socket_group = \"\"\n",
        home.http
    );
    std::fs::write(&file, text).unwrap();
    let ended = run(&["agent", "--config", file.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_says(&ended.err, &["/nowhere/xds.sock", "check that the directory exists"]);
}

#[test]
fn an_address_of_another_machine_is_named() {
    let [port] = free_ports(host(37));
    let foreign = SocketAddr::from(([192, 0, 2, 1], port)).to_string();
    let home = Home::new(host(37));
    let file = home.path("agent.toml");
    let socket = home.socket();
    let text = format!(
        "http.listen = \"{foreign}\"\nxds.socket = \"{}\"\nxds.socket_group = \"\"\n",
        socket.display()
    );
    std::fs::write(&file, text).unwrap();
    let ended = run(&["agent", "--config", file.to_str().unwrap()]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_says(&ended.err, &[&foreign, "no interface has this address", "[http] listen"]);
}
