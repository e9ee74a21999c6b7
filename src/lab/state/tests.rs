use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::lab::LabOptions;

const SUPERVISOR: ProcessId = ProcessId { pid: 10, start_ticks: 1 };
const ENVOY: ProcessId = ProcessId { pid: 11, start_ticks: 2 };

fn lab(state: LabState) -> LabFile {
    let mut file = LabFile::starting(&Plan::new(&LabOptions::example(), 0));
    file.state = state;
    file.supervisor = Some(SUPERVISOR);
    let node = "primary-gateway".into();
    file.processes = vec![ProcessRecord { node, name: "envoy".into(), stage: Stage::Envoy, id: ENVOY }];
    file
}

#[test]
fn the_state_is_told_from_what_lives() {
    use LabState::{Degraded, Ready, Starting, Stopped};
    let cases: [(LabState, &[ProcessId], LabState); 8] = [
        (Starting, &[SUPERVISOR, ENVOY], Starting),
        (Ready, &[SUPERVISOR, ENVOY], Ready),
        (Ready, &[SUPERVISOR], Degraded),
        (Ready, &[ENVOY], Degraded),
        (Starting, &[ENVOY], Degraded),
        (Ready, &[], Stopped),
        (Starting, &[], Stopped),
        (Stopped, &[SUPERVISOR, ENVOY], Stopped),
    ];
    for (said, alive, expected) in cases {
        let seen = lab(said).observe(|id| alive.contains(id));
        assert_eq!(seen.state, expected, "{said:?} with {alive:?}");
        assert_eq!(seen.dashboard.is_none(), expected == Stopped);
    }
    assert_eq!(lab(Ready).dead(|id| *id == SUPERVISOR), ["primary-gateway/envoy"]);
}

#[test]
fn the_status_is_printed_as_promised() {
    let status = lab(LabState::Ready).observe(|_| true);
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["state"], "ready");
    assert_eq!(json["dashboard"], "http://127.1.0.20:9002");
    let server = serde_json::json!({
        "name": "primary-server", "datacenter": "primary", "role": "server", "address": "127.1.0.10",
        "consul_http": "http://127.1.0.10:8500", "causeway_http": null, "xds": null, "sync": null, "envoy_admin": null,
    });
    assert_eq!(json["nodes"][0], server);
    assert_eq!(json["nodes"][1]["xds"], "unix:/labs/one/primary-gateway/xds.sock");
}

#[test]
fn the_file_is_private_and_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(LabFile::read(dir.path()).unwrap(), None);
    assert_eq!(status(dir.path()).unwrap(), LabStatus::stopped());
    let file = lab(LabState::Ready);
    file.write(dir.path()).unwrap();
    assert_eq!(LabFile::read(dir.path()).unwrap(), Some(file));
    let mode = dir.path().join(STATE_FILE).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_damaged_file_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(STATE_FILE), "{").unwrap();
    let error = LabFile::read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("delete the folder"), "{error}");
}

#[test]
fn one_folder_holds_one_lab() {
    let dir = tempfile::tempdir().unwrap();
    let held = lock(dir.path()).unwrap();
    assert!(is_held(dir.path()).unwrap());
    let error = lock(dir.path()).unwrap_err().to_string();
    assert!(error.contains("lab status") && error.contains("lab down"), "{error}");
    drop(held);
    assert!(!is_held(dir.path()).unwrap());
    lock(dir.path()).unwrap();
}

#[test]
fn a_folder_with_other_things_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), "").unwrap();
    assert!(matches!(lock(dir.path()), Err(LabError::NotALab { .. })));
    assert!(!dir.path().join(LOCK_FILE).exists());
}
