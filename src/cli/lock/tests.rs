//! `causeway lock` against a small agent that answers as a home does, with real commands under the lock.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use clap::Parser;

use super::*;
use crate::lifecycle;

/// What the agent is asked: method, path and body.
type Asked = (String, String, String);

/// An agent that gives prepared answers: to acquires and to renewals one after the other, the last one again and again.
struct Agent {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<Mutex<bool>>,
    thread: Option<JoinHandle<()>>,
}

const GRANTED: (u16, &str) = (200, r#"{"key":"locks/a","token":"1.7","session":"s-1","expires_in_ms":9000}"#);
const HELD: (u16, &str) = (
    409,
    r#"{"name":"locks/a","held":true,"holders":[{"key":"locks/a","session":"s-0","token":"1.6","id":"web-9"}],"waiting":0}"#,
);
const KEPT: (u16, &str) = (200, r#"{"token":"1.7"}"#);
const STALE: (u16, &str) = (409, "the token 1.7 of lock locks/a is no longer valid");
const AWAY: (u16, &str) = (503, "home_unreachable: primary cannot be reached");

impl Agent {
    fn start(acquires: &[(u16, &'static str)], renewals: &[(u16, &'static str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (asked, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(false)));
        let (log, ends) = (asked.clone(), stop.clone());
        let (mut acquires, mut renewals) =
            (VecDeque::from(acquires.to_vec()), VecDeque::from(renewals.to_vec()));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if *ends.lock().unwrap() {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let Some(request) = read(&mut stream) else { continue };
                let next = |line: &mut VecDeque<(u16, &'static str)>| match line.len() {
                    0 | 1 => line.front().copied().unwrap_or((500, "")),
                    _ => line.pop_front().unwrap(),
                };
                let (status, body) = match (request.0.as_str(), request.1.rsplit('/').next()) {
                    ("POST", _) => next(&mut acquires),
                    (_, Some("renew")) => next(&mut renewals),
                    _ => (200, r#"{"released":true}"#),
                };
                log.lock().unwrap().push(request);
                let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
                let _ = write!(stream, "{head}connection: close\r\n\r\n{body}");
            }
        });
        Self { address, asked, stop, thread: Some(thread) }
    }

    fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(method, path, _)| format!("{method} {path}")).collect()
    }

    fn released(&self) -> bool {
        self.paths().iter().any(|path| path.ends_with("/release"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        *self.stop.lock().unwrap() = true;
        let _ = TcpStream::connect(self.address.trim_start_matches("http://"));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((method, path, String::from_utf8_lossy(&body).into_owned()))
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: LockArgs,
}

fn args(agent: &str, flags: &[&str], script: &str) -> LockArgs {
    let line = [&["lock", "locks/a", "--http-addr", agent], flags, &["--", "sh", "-c", script]].concat();
    Line::parse_from(line).args
}

async fn code(agent: &Agent, flags: &[&str], script: &str) -> ExitCode {
    run(args(&agent.address, flags, script), &|_| None).await.unwrap()
}

#[tokio::test]
async fn the_command_runs_with_the_token_and_its_exit_code_is_passed_on() {
    let agent = Agent::start(&[GRANTED], &[KEPT]);
    let script = r#"test "$CAUSEWAY_LOCK_TOKEN $CAUSEWAY_LOCK_NAME" = "1.7 locks/a" && exit 42"#;
    assert_eq!(code(&agent, &["--id", "me", "--n", "3"], script).await, ExitCode::from(42));
    assert_eq!(agent.paths(), ["POST /v1/lock/locks/a", "PUT /v1/lock/locks/a/release"]);
    let body = agent.asked.lock().unwrap()[0].2.clone();
    let expected = r#"{"ttl":"15000ms","wait":"50000ms","lock_delay":"15000ms","id":"me","holders":3}"#;
    assert_eq!(body, expected);
    assert_eq!(agent.asked.lock().unwrap()[1].2, r#"{"token":"1.7","session":"s-1"}"#);
}

#[tokio::test]
async fn a_command_that_a_signal_ended_or_that_is_not_there_is_told_as_by_a_shell() {
    let agent = Agent::start(&[GRANTED], &[KEPT]);
    assert_eq!(code(&agent, &[], "kill -9 $$").await, ExitCode::from(137));
    let mut missing = args(&agent.address, &[], "");
    missing.command = vec!["/nonexistent/command".into()];
    assert_eq!(run(missing, &|_| None).await.unwrap(), ExitCode::from(127));
    let mut folder = args(&agent.address, &[], "");
    folder.command = vec!["/".into()];
    assert_eq!(run(folder, &|_| None).await.unwrap(), ExitCode::from(126));
    assert_eq!(agent.paths().iter().filter(|path| path.ends_with("/release")).count(), 3);
}

#[tokio::test]
async fn a_lock_that_is_anothers_is_waited_for_or_not() {
    let agent = Agent::start(&[HELD], &[KEPT]);
    assert_eq!(code(&agent, &["--wait", "0"], "exit 1").await, ExitCode::from(EXIT_HELD));
    assert_eq!(agent.paths(), ["POST /v1/lock/locks/a"]);
    let agent = Agent::start(&[AWAY, HELD, GRANTED], &[KEPT]);
    assert_eq!(code(&agent, &["--wait", "60s"], "exit 0").await, ExitCode::SUCCESS);
    let paths = agent.paths();
    // A request had no answer, so the grant may be one of that: it is renewed before the command starts.
    assert_eq!((paths.len(), paths[3].as_str()), (5, "PUT /v1/lock/locks/a/renew"), "{paths:?}");
}

#[tokio::test]
async fn an_agent_that_is_away_or_refuses_has_codes_of_its_own() {
    let agent = Agent::start(&[AWAY], &[]);
    assert_eq!(code(&agent, &["--wait", "0"], "").await, ExitCode::from(crate::cli::EXIT_UNAVAILABLE));
    let refusing = Agent::start(&[(403, "Permission denied: the token lacks key:write")], &[]);
    let error = run(args(&refusing.address, &[], ""), &|_| None).await.unwrap_err();
    assert!(error.to_string().contains("key:write"), "{error}");
    let mut bad = args(&agent.address, &[], "");
    bad.token_file = Some("/nonexistent/token".into());
    assert_eq!(run(bad, &|_| None).await.unwrap(), ExitCode::from(EXIT_NO_INPUT));
}

/// Renewals come a third of the TTL apart; the least TTL is 10 s.
#[tokio::test]
async fn a_command_whose_lock_is_lost_is_told_to_stop_and_then_killed() {
    let lost = Agent::start(&[GRANTED], &[STALE]);
    let polite = async {
        let script = "trap 'exit 9' TERM; while :; do sleep 0.05; done";
        assert_eq!(code(&lost, &["--ttl", "10s"], script).await, ExitCode::from(EXIT_LOST));
    };
    let deaf = Agent::start(&[GRANTED], &[KEPT, STALE]);
    let stubborn = async {
        let script = "trap '' TERM; while :; do sleep 0.05; done";
        let flags = ["--ttl", "10s", "--grace", "200ms"];
        assert_eq!(code(&deaf, &flags, script).await, ExitCode::from(EXIT_LOST));
    };
    let bereft = Agent::start(&[GRANTED], &[KEPT, STALE]);
    let folder = tempfile::tempdir().unwrap();
    let left_behind = async {
        let pid = folder.path().join("pid");
        let script = "trap 'exit 0' TERM; (trap '' TERM; exec sleep 600) & echo $! > ";
        let script = format!("{script}{}; wait", pid.display());
        assert_eq!(code(&bereft, &["--ttl", "10s"], &script).await, ExitCode::from(EXIT_LOST));
        let stat = format!("/proc/{}/stat", fs::read_to_string(pid).unwrap().trim());
        // Nobody may have looked after it yet.
        let is_gone = || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        let gone = async {
            while !is_gone() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // Long before it would end by itself.
        tokio::time::timeout(Duration::from_secs(30), gone).await.expect("it is killed");
    };
    let away = Agent::start(&[GRANTED], &[AWAY]);
    let fenced = async {
        let start = lifecycle::now();
        assert_eq!(code(&away, &["--ttl", "10s"], "exec sleep 60").await, ExitCode::from(EXIT_LOST));
        let took = start.elapsed();
        assert!(took >= Duration::from_secs(8) && took < Duration::from_secs(10), "{took:?}");
    };
    let gone = Agent::start(&[GRANTED], &[AWAY]);
    let in_anothers_time = async {
        let start = lifecycle::now();
        let script = "trap '' TERM; while :; do sleep 0.05; done";
        let flags = ["--ttl", "10s", "--grace", "10m", "--lock-delay", "1s"];
        assert_eq!(code(&gone, &flags, script).await, ExitCode::from(EXIT_LOST));
        let took = start.elapsed();
        // Killed when the TTL and the lock-delay are over, long before the grace is.
        assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(300), "{took:?}");
    };
    tokio::join!(polite, stubborn, left_behind, fenced, in_anothers_time);
    assert!(lost.released() && deaf.released() && bereft.released() && away.released() && gone.released());
}

#[test]
fn names_and_times_are_checked_before_anybody_is_asked() {
    let parse = |line: &[&str]| Line::try_parse_from(line).map(|line| line.args);
    for wrong in [
        &["lock", "locks/", "--", "x"][..],
        &["lock", "/locks", "--", "x"],
        &["lock", "locks/leader", "--", "x"],
        &["lock", "locks/a"],
        &["lock", "locks/a", "--ttl", "5s", "--", "x"],
        &["lock", "locks/a", "--n", "0", "--", "x"],
        &["lock", "locks/a", "--lock-delay", "61s", "--", "x"],
    ] {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
    let args = parse(&["lock", "locks/a", "-n", "2", "--wait", "1m", "--", "x", "--y"]).unwrap();
    assert_eq!((args.n, args.wait, args.command.len()), (2, Some(Duration::from_secs(60)), 2));
}

#[test]
fn a_token_comes_from_flag_then_variables() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    fs::write(&one, "of-flag\n").unwrap();
    fs::write(&other, "of-file\n").unwrap();
    let other = other.display().to_string();
    let both = |name: &str| match name {
        "CONSUL_HTTP_TOKEN" => Some("of-env".to_owned()),
        "CONSUL_HTTP_TOKEN_FILE" => Some(other.clone()),
        _ => None,
    };
    assert_eq!(token(Some(&one), &both).unwrap(), Some("of-flag".into()));
    assert_eq!(token(None, &both).unwrap(), Some("of-env".into()));
    let file = |name: &str| both(name).filter(|_| name.ends_with("FILE"));
    assert_eq!(token(None, &file).unwrap(), Some("of-file".into()));
    assert_eq!(token(None, &|_| None).unwrap(), None);
}

#[test]
fn the_agent_is_named_as_for_the_other_commands() {
    for text in ["127.0.0.1:18500", "http://127.0.0.1:18500", "http://127.0.0.1:18500/"] {
        assert_eq!(agent(text), Ok("http://127.0.0.1:18500".into()), "{text}");
    }
    assert!(agent("https://127.0.0.1:18500").unwrap_err().contains("no TLS"));
    for text in ["", "http://", "a b"] {
        assert!(agent(text).is_err(), "{text}");
    }
}
