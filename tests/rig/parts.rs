//! Real parts on loopback: a Consul server, the agent, what they log and what their HTTP says. Knows no test.
#![allow(dead_code, reason = "the tests and the measurements each use a part of it")]

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use causeway::lifecycle;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Far beyond what anything here takes, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);

/// Between two looks at what cannot be awaited.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until there is something to see.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = lifecycle::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(lifecycle::now() < end, "not in time: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Ports that were free a moment ago, all different.
pub(crate) fn free_ports<const N: usize>(host: Ipv4Addr) -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind((host, 0)).unwrap());
    held.each_ref().map(|listener| listener.local_addr().unwrap().port())
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// One request over a connection of its own.
pub(crate) fn http(to: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    // HTTP/1.0: the answer ends with the connection and is never chunked.
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {to}\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Reply { status: status.ok_or(io::ErrorKind::InvalidData)?, body: body.to_owned() })
}

/// What a process writes to its standard error, as it comes.
#[derive(Clone)]
pub(crate) struct Log(Arc<(Mutex<String>, Condvar)>);

impl Log {
    /// The log, and the thread that fills it, which ends with the process.
    fn of(child: &mut Child) -> (Self, JoinHandle<()>) {
        let log = Self(Arc::default());
        let (shared, stderr) = (log.0.clone(), child.stderr.take().unwrap());
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let mut text = shared.0.lock().unwrap();
                text.push_str(&String::from_utf8_lossy(&line));
                text.push('\n');
                shared.1.notify_all();
            }
        });
        (log, reader)
    }

    pub(crate) fn text(&self) -> String {
        self.0.0.lock().unwrap().clone()
    }

    /// Forgets what was written so far.
    pub(crate) fn clear(&self) {
        self.0.0.lock().unwrap().clear();
    }

    /// Waits for a line with all of these in it, and gives it.
    pub(crate) fn line(&self, parts: &[&str]) -> String {
        self.find(|text| text.lines().find(|line| parts.iter().all(|p| line.contains(p))).map(str::to_owned))
            .unwrap_or_else(|| panic!("{parts:?} is not in\n{}", self.text()))
    }

    /// Waits until something is found in the text; none when it is not in time.
    pub(crate) fn find<T>(&self, mut look: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let mut found = None;
        let text = self.0.0.lock().unwrap();
        let is_missing = |text: &mut String| {
            found = look(text);
            found.is_none()
        };
        drop(self.0.1.wait_timeout_while(text, PATIENCE, is_missing).unwrap());
        found
    }
}

/// A process of ours; dropping it ends it.
pub(crate) struct Process {
    child: Child,
    pub(crate) log: Log,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (log, reader) = Log::of(&mut child);
        Self { child, log, reader: Some(reader) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits for its end; its log is then whole.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let log = self.log.clone();
        let child = &mut self.child;
        let end = lifecycle::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                self.reader.take().into_iter().for_each(|reader| reader.join().unwrap());
                return status;
            }
            assert!(lifecycle::now() < end, "it does not end:\n{}", log.text());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The `causeway` of this build, without any of the caller's environment but `PATH`.
pub(crate) fn causeway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// How a command ended and what it wrote.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs `causeway` to its end.
pub(crate) fn run(args: &[&str]) -> Ended {
    run_with(&[], args)
}

/// The same with these variables.
pub(crate) fn run_with(env: &[(&str, &str)], args: &[&str]) -> Ended {
    let mut process = Process::start(causeway().envs(env.iter().copied()).args(args).stdout(Stdio::piped()));
    let mut stdout = process.child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let code = process.ended().code();
    let out = reader.join().unwrap().unwrap();
    Ended { code, out, err: process.log.text() }
}

/// A program that is not ours: what the variable names, `.tools/`, `PATH`.
pub(crate) fn tool(name: &str, variable: &str) -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools").join(name).join(name);
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::var_os(variable)
        .map(PathBuf::from)
        .or_else(|| own.is_file().then_some(own))
        .or_else(|| std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file()))
        .unwrap_or_else(|| panic!("no {name} found: run `make tools`, or set {variable}"))
}

/// A Consul server, and what it needs to be started again.
pub(crate) struct Consul {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    config: PathBuf,
    process: Option<Process>,
    _folder: TempDir,
}

impl Consul {
    /// One that leads and answers; `more` is laid over its settings.
    pub(crate) fn start(host: Ipv4Addr, more: Value) -> Self {
        let mut consul = Self::prepare(host, more);
        consul.run();
        consul
    }

    /// One without ACLs whose node is in its catalog: sessions belong to nodes, and a leader registers its own a moment
    /// after it leads.
    pub(crate) fn registered(host: Ipv4Addr) -> Self {
        let consul = Self::start(host, json!({}));
        until("Consul's node is registered", || consul.get("/v1/catalog/nodes").get(0).map(drop));
        consul
    }

    /// One that is not started yet.
    pub(crate) fn prepare(host: Ipv4Addr, more: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [http, https, serf_lan, serf_wan, server] = free_ports(host);
        let mut settings = json!({
            "datacenter": "dc1", "node_name": "s1", "server": true, "bootstrap_expect": 1,
            "data_dir": folder.path().join("data"), "bind_addr": host.to_string(), "client_addr": host.to_string(),
            "ports": {"http": http, "https": -1, "serf_lan": serf_lan, "serf_wan": serf_wan, "server": server,
                "dns": -1, "grpc": -1},
            "connect": {"enabled": true}, "performance": {"raft_multiplier": 1}, "disable_update_check": true,
            "log_level": "warn",
        });
        if let (Some(settings), Value::Object(more)) = (settings.as_object_mut(), more) {
            if more.contains_key("cert_file") {
                settings["ports"]["https"] = json!(https);
            }
            settings.extend(more);
        }
        let config = folder.path().join("consul.json");
        std::fs::write(&config, settings.to_string()).unwrap();
        let (http, https) = ((host, http).into(), (host, https).into());
        Self { http, https, config, process: None, _folder: folder }
    }

    /// Starts it and waits until it leads.
    pub(crate) fn run(&mut self) {
        let mut command = Command::new(tool("consul", "CONSUL_BIN"));
        command.args(["agent", "-config-file"]).arg(&self.config).stdout(Stdio::null());
        self.process = Some(Process::start(&mut command));
        let has_leader = || {
            let leader = http(self.http, "GET", "/v1/status/leader", "").ok()?;
            let roots = http(self.http, "GET", "/v1/connect/ca/roots", "").ok()?;
            (leader.status == 200 && leader.body.contains(':') && roots.status == 200).then_some(())
        };
        until("Consul leads", has_leader);
    }

    /// As `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Of its process, which runs.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().map(Process::pid).unwrap()
    }

    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.http)
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let reply = http(self.http, "GET", path, "").unwrap();
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        reply.json()
    }

    /// Null is no body: one that Consul does not read may cost its answer when it closes the connection.
    pub(crate) fn put(&self, path: &str, body: &Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        // Consul resets what comes beyond its 200 connections from one address, and an agent under test may have many.
        let reply = until("Consul takes a connection", || http(self.http, "PUT", path, &text).ok());
        assert_eq!(reply.status, 200, "{path} {body}: {reply:?}");
    }

    /// Registers a service with its sidecar.
    pub(crate) fn register(&self, service: &Value) {
        self.put("/v1/agent/service/register", service);
    }
}

/// A running agent, in a folder with its configuration and its socket.
pub(crate) struct Agent {
    pub(crate) process: Process,
    pub(crate) home: Home,
}

/// An agent's folder: configuration and socket.
pub(crate) struct Home {
    pub(crate) http: SocketAddr,
    folder: TempDir,
}

impl Home {
    pub(crate) fn new(host: Ipv4Addr) -> Self {
        let [port] = free_ports(host);
        Self { http: (host, port).into(), folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("xds.sock")
    }

    /// Writes the configuration: the agent's own addresses, and `more` lines such as `xds.tcp = "…"`.
    pub(crate) fn write(&self, consul: &str, more: &str) -> PathBuf {
        let (file, socket) = (self.path("agent.toml"), self.socket());
        let text = format!(
            "consul.address = \"{consul}\"\nhttp.listen = \"{}\"\nxds.socket = \"{}\"\nxds.socket_group = \"\"\n{more}\n",
            self.http,
            socket.display()
        );
        std::fs::write(&file, text).unwrap();
        file
    }
}

impl Agent {
    /// Starts one that asks this Consul.
    pub(crate) fn start(host: Ipv4Addr, consul: &Consul) -> Self {
        Self::with(Home::new(host), &consul.address(), "", &[])
    }

    /// Starts one with more settings and environment, and waits until its HTTP interface answers.
    pub(crate) fn with(home: Home, consul: &str, more: &str, env: &[(&str, &str)]) -> Self {
        let file = home.write(consul, more);
        let mut command = causeway();
        command.args(["agent", "--config"]).arg(file).envs(env.iter().copied()).stdout(Stdio::null());
        let mut agent = Self { process: Process::start(&mut command), home };
        until("the agent answers", || {
            let log = agent.process.log.clone();
            assert!(agent.process.is_running(), "the agent ended:\n{}", log.text());
            http(agent.home.http, "GET", "/healthz", "").ok()
        });
        agent
    }

    pub(crate) fn log(&self) -> &Log {
        &self.process.log
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        http(self.home.http, "GET", path, "").unwrap_or_else(|e| panic!("{path}: {e}\n{}", self.log().text()))
    }

    pub(crate) fn until_ready(&self) {
        until("the agent is ready", || (self.get("/readyz").status == 200).then_some(()));
    }

    /// `causeway proxy status` with these arguments.
    pub(crate) fn proxy_status(&self, args: &[&str]) -> Ended {
        let url = format!("http://{}", self.home.http);
        run(&[&["proxy", "status", "--http-addr", &url], args].concat())
    }
}
