//! `causeway tls` on a real Consul: what it makes, what it says of a set, what it renews.

mod cluster;
mod files;
mod refused;
mod renewal;

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use causeway::{
    lifecycle,
    tls::{
        self, ClientFiles, authority,
        x509::{certificate::Certificate, moment::Moment, pem::Contents},
    },
};
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};

use crate::rig::parts::{Ended, PATIENCE, run, tool};

/// What Consul looks for in a server's certificate.
const SERVER: &str = "server.dc1.consul";

fn host(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 62, 0, last)
}

/// The moment that it is now.
fn now() -> Moment {
    authority::moment(lifecycle::wall_clock())
}

/// Runs `causeway tls …`, which must end with this code.
fn tls(code: i32, args: &[&str]) -> Ended {
    let args: Vec<&str> = ["tls"].iter().chain(args).copied().collect();
    let ended = run(&args);
    assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
    let said = format!("{}{}", ended.out, ended.err);
    assert!(!said.contains("-----BEGIN") && !said.contains("PRIVATE KEY"), "{ended:?}");
    ended
}

/// What `causeway tls verify --json` finds: severity and code of each, sorted.
fn findings(folder: &Path, more: &[&str]) -> Vec<(String, String)> {
    let folder = folder.to_str().unwrap();
    let args: Vec<&str> = ["tls", "verify", folder, "--json"].iter().chain(more).copied().collect();
    let ended = run(&args);
    let report: Value = serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    assert_eq!(ended.code, Some(if report["problems"] == json!(0) { 0 } else { 3 }), "{ended:?}");
    let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
    let all = report["findings"].as_array().unwrap();
    all.iter().map(|one| (text(one, "severity"), text(one, "code"))).collect()
}

/// A folder with a CA, a server's and a caller's certificate.
struct Set {
    folder: tempfile::TempDir,
}

impl Set {
    /// A CA alone, made by `causeway`.
    fn ca() -> Self {
        let set = Self { folder: tempfile::tempdir().unwrap() };
        tls(0, &["ca", "create", "--dir", set.dir()]);
        set
    }

    /// The CA, `dc1-server-consul-0` for the node `s1`, `dc1-cli-consul-0`.
    fn whole() -> Self {
        let set = Self::ca();
        tls(0, &["cert", "create", "--server", "--node", "s1", "--dir", set.dir()]);
        tls(0, &["cert", "create", "--cli", "--dir", set.dir()]);
        set
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn dir(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// What Consul's configuration says of certificates, with everything verified.
    fn settings(&self, stem: &str) -> Value {
        json!({
            "ca_file": self.path("consul-agent-ca.pem"), "cert_file": self.path(&format!("{stem}.pem")),
            "key_file": self.path(&format!("{stem}-key.pem")),
            "verify_incoming": true, "verify_outgoing": true, "verify_server_hostname": true,
        })
    }

    /// The first certificate of a file.
    fn certificate(&self, name: &str) -> Certificate {
        first(&self.path(name))
    }

    /// What Consul shows on its HTTPS port to a caller with this certificate, after it answered a request.
    fn served(&self, https: SocketAddr, caller: &str) -> Result<Certificate, String> {
        let files = ClientFiles {
            ca_file: Some(self.path("consul-agent-ca.pem")),
            ca_path: None,
            cert_file: Some(self.path(&format!("{caller}.pem"))),
            key_file: Some(self.path(&format!("{caller}-key.pem"))),
            verify: true,
        };
        served(https, &files)
    }

    /// Consul's own tool, over HTTPS, expecting a server of dc1: what a Go peer says of the two certificates.
    fn consul_says(&self, https: SocketAddr, caller: &str) -> Result<(), String> {
        let mut command = Command::new(tool("consul", "CONSUL_BIN"));
        command.env_clear().arg("members").arg(format!("-http-addr=https://{https}"));
        command.arg(format!("-ca-file={}", self.path("consul-agent-ca.pem").display()));
        command.arg(format!("-client-cert={}", self.path(&format!("{caller}.pem")).display()));
        command.arg(format!("-client-key={}", self.path(&format!("{caller}-key.pem")).display()));
        command.arg(format!("-tls-server-name={SERVER}"));
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(text) }
    }
}

/// Whether a caller was told that its certificate is refused. With TLS 1.3 it hears of it after it has begun to ask, and
/// may find the connection gone before it reads why.
fn is_turned_away(said: &str) -> bool {
    ["bad certificate", "broken pipe", "connection reset"].iter().any(|words| said.contains(words))
}

fn first(path: &Path) -> Certificate {
    Contents::read(&std::fs::read(path).unwrap()).certificates.remove(0)
}

fn served(https: SocketAddr, files: &ClientFiles) -> Result<Certificate, String> {
    let config = tls::client_config(files, &[]).map_err(|error| error.to_string())?;
    let name = tls::server_name(SERVER).unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(https).map_err(|error| error.to_string())?;
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(connection, socket);
    let request = format!("GET /v1/status/leader HTTP/1.0\r\nHost: {https}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    // Consul ends the connection without TLS's own farewell; what it said before counts.
    if let Err(error) = stream.read_to_end(&mut answer)
        && error.kind() != std::io::ErrorKind::UnexpectedEof
    {
        return Err(error.to_string());
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    if !answer.contains("200 OK") {
        return Err(answer);
    }
    let shown = stream.conn.peer_certificates().unwrap();
    Certificate::from_der(&shown[0])
}
