//! Calls and what comes of them: each outcome in its class.

use std::{net::Ipv4Addr, time::Duration};

use causeway::{
    model::{name::Datacenter, sync::Position},
    sync::{
        engine::MAX_WAITING_AWAY,
        peer::{Absent, MAX_HOPS, PeerError, Peers, Target, intentions::Verdict},
        record::Doer,
    },
};
use tokio::net::TcpListener;

use super::rig::{Agent, Ca, PATIENCE, Relay, eventually, header, hello, identity, pair, request};

/// Enough to reach somebody on this machine, and short for a test.
const SHORT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_call_is_carried_out_for_the_datacenter_of_the_certificate() {
    let ca = Ca::new();
    let (near, far) = pair(&ca).await;
    let to = Target::Datacenter("primary".into());
    let reply = near.peers.hello(&to, hello("secondary")).await.unwrap();
    assert_eq!((reply.datacenter, reply.version), (Datacenter::from("primary"), 1));
    let answer = near.ask("primary", "/echo", PATIENCE).await.unwrap();
    assert_eq!((answer.status, &*answer.body), (200, &b"body"[..]));
    assert_eq!(header(&answer, "x-from"), "secondary");
    assert_eq!(header(&answer, "x-token"), "clients-own");
    let back = far.ask("secondary", "/echo", PATIENCE).await.unwrap();
    assert_eq!(header(&back, "x-from"), "primary");
    let big = near.ask("primary", "/big", PATIENCE).await.unwrap();
    assert_eq!(big.body.len(), 9_000_000);
}

#[tokio::test]
async fn that_keys_are_absent_is_confirmed_or_refused_with_the_homes_word() {
    let ca = Ca::new();
    let (near, _far) = pair(&ca).await;
    let to = Target::Datacenter("primary".into());
    let ask = async |prefix: &str| {
        let absent =
            Absent { prefix: prefix.into(), keys: vec![format!("{prefix}a")], at: Position::default() };
        near.peers.absent(&to, absent, PATIENCE).await
    };
    ask("gone/").await.unwrap();
    let error = ask("there/").await.unwrap_err();
    assert!(matches!(&error, PeerError::Refused(text) if text.contains("a key is there")), "{error:?}");
}

#[tokio::test]
async fn an_agent_of_the_own_datacenter_is_called_at_its_address() {
    let ca = Ca::new();
    let (one, other) = (Agent::start("primary", &ca).await, Agent::start("primary", &ca).await);
    let doer = Doer { node: "other".into(), address: other.address.to_string() };
    let answer = one.peers.forward(&Target::Doer(doer), request("/echo"), PATIENCE).await.unwrap();
    assert_eq!(header(&answer, "x-from"), "primary");
    let lost = Doer { node: "lost".into(), address: "nowhere".into() };
    let error = one.peers.forward(&Target::Doer(lost), request("/echo"), PATIENCE).await.unwrap_err();
    assert!(matches!(error, PeerError::Unreached(_)), "{error:?}");
}

#[tokio::test]
async fn many_calls_share_one_connection() {
    let ca = Ca::new();
    let (near, far) = pair(&ca).await;
    let relay = Relay::start(far.address).await;
    near.route("primary", &[relay.address]);
    let calls = (0..300).map(|_| near.ask("primary", "/echo", PATIENCE));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!((relay.count(), far.double.begun()), (1, 300));
}

#[tokio::test]
async fn calls_that_wait_leave_room_for_others() {
    let ca = Ca::new();
    let (near, far) = pair(&ca).await;
    let waiting = (0..MAX_WAITING_AWAY).map(|_| near.ask("primary", "/hang", PATIENCE));
    let waiting = futures_util::future::join_all(waiting);
    let others = async {
        eventually("all of them wait", async || far.double.begun() == MAX_WAITING_AWAY).await;
        let answers =
            futures_util::future::join_all((0..100).map(|_| near.ask("primary", "/echo", SHORT))).await;
        assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|it| it.status == 200)), "{answers:?}");
        near.peers.hello(&Target::Datacenter("primary".into()), hello("secondary")).await.unwrap();
    };
    tokio::select! {
        answers = waiting => panic!("nothing ended their wait: {answers:?}"),
        () = others => {}
    }
}

#[tokio::test]
async fn what_the_other_says_keeps_its_class() {
    let ca = Ca::new();
    let (near, _far) = pair(&ca).await;
    for (path, class) in [
        ("/unreached", PeerError::Unreached as fn(String) -> PeerError),
        ("/unknown", PeerError::Unknown),
        ("/refused", PeerError::Refused),
        ("/misfit", PeerError::Misfit),
    ] {
        let error = near.ask("primary", path, PATIENCE).await.unwrap_err();
        assert_eq!(std::mem::discriminant(&error), std::mem::discriminant(&class(String::new())), "{path}");
        assert!(error.to_string().ends_with("because"), "{error}");
    }
}

#[tokio::test]
async fn nothing_was_executed_where_nobody_was_reached() {
    let ca = Ca::new();
    let (near, far) = pair(&ca).await;
    let ask = async |agent: &Agent| agent.ask("primary", "/echo", PATIENCE).await.unwrap_err();
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    near.route("primary", &[closed]);
    assert!(matches!(ask(&near).await, PeerError::Unreached(_)), "a closed port");
    let cut = Relay::start(far.address).await;
    cut.cut();
    let refused = Agent::start("secondary", &ca).await;
    refused.route("primary", &[cut.address]);
    assert!(matches!(ask(&refused).await, PeerError::Unreached(_)), "a gateway that knows no way");
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let other = Agent::start("secondary", &ca).await;
    other.route("primary", &[mute.local_addr().unwrap()]);
    let began = causeway::lifecycle::now();
    assert!(matches!(ask(&other).await, PeerError::Unreached(_)), "one that says nothing");
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "known within the time for that: {:?}",
        began.elapsed()
    );
    let nowhere = Agent::start("secondary", &ca).await;
    assert!(matches!(ask(&nowhere).await, PeerError::Unreached(_)), "no way is known");
    let nobody = Agent::start_as("secondary", None, hello("secondary")).await;
    let error = ask(&nobody).await;
    assert!(matches!(&error, PeerError::Unreached(text) if text.contains("service:write")), "{error:?}");
    assert_eq!(far.double.begun(), 0);
}

#[tokio::test]
async fn callers_of_one_that_says_nothing_share_one_attempt() {
    let ca = Ca::new();
    let (near, far) = pair(&ca).await;
    let relay = Relay::start(far.address).await;
    relay.fall_silent();
    near.route("primary", &[relay.address]);
    let began = causeway::lifecycle::now();
    let calls = (0..50).map(|_| near.ask("primary", "/echo", PATIENCE));
    for outcome in futures_util::future::join_all(calls).await {
        assert!(matches!(outcome, Err(PeerError::Unreached(_))), "{outcome:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(relay.count(), 1);
}

#[tokio::test]
async fn a_stop_lets_what_is_under_way_end() {
    let ca = Ca::new();
    let (near, far) = pair(&ca).await;
    near.ask("primary", "/echo", PATIENCE).await.unwrap();
    let (answer, ()) = tokio::join!(near.ask("primary", "/soon", PATIENCE), async {
        eventually("it is begun", async || far.double.begun() == 2).await;
        far.stop.stop();
    });
    assert_eq!(answer.unwrap().status, 200);
    let late = near.ask("primary", "/echo", PATIENCE).await;
    assert!(matches!(late, Err(PeerError::Unreached(_))), "{late:?}");
}

#[tokio::test]
async fn what_was_begun_and_has_no_answer_is_open() {
    let ca = Ca::new();
    let (near, far) = pair(&ca).await;
    let relay = Relay::start(far.address).await;
    near.route("primary", &[relay.address]);
    let late = near.ask("primary", "/hang", SHORT).await.unwrap_err();
    assert!(matches!(late, PeerError::Unknown(_)), "{late:?}");
    assert_eq!((far.double.begun(), relay.count()), (1, 1));
    near.ask("primary", "/echo", PATIENCE).await.unwrap();
    assert_eq!(relay.count(), 2, "a connection without an answer in time takes no new calls");

    let (cut, ()) = tokio::join!(near.ask("primary", "/hang", PATIENCE), async {
        eventually("it is begun", async || far.double.begun() == 3).await;
        relay.cut();
    });
    assert!(matches!(cut, Err(PeerError::Unknown(_))), "{cut:?}");
    relay.mend();
    eventually("it is reached again", async || near.ask("primary", "/echo", PATIENCE).await.is_ok()).await;
}

#[tokio::test]
async fn what_is_refused_beforehand_is_executed_by_nobody() {
    let ca = Ca::new();
    let (near, far) = pair(&ca).await;
    let to = Target::Datacenter("primary".into());
    let large = causeway::sync::peer::Forward { body: vec![0; 5 << 20].into(), ..request("/echo") };
    let error = near.peers.forward(&to, large, PATIENCE).await.unwrap_err();
    assert!(matches!(&error, PeerError::Refused(text) if text.contains("4194304")), "{error:?}");
    let circling = causeway::sync::peer::Forward { hops: MAX_HOPS + 1, ..request("/echo") };
    let error = near.peers.forward(&to, circling, PATIENCE).await.unwrap_err();
    assert!(matches!(&error, PeerError::Unreached(text) if text.contains("passed on 4 times")), "{error:?}");
    let odd = causeway::sync::peer::Forward { method: "BREW".into(), ..request("/echo") };
    let error = near.peers.forward(&to, odd, PATIENCE).await.unwrap_err();
    assert!(matches!(&error, PeerError::Refused(text) if text.contains("method")), "{error:?}");
    assert_eq!(far.double.begun(), 0);
}

#[tokio::test]
async fn agents_that_do_not_fit_together_say_how() {
    let ca = Ca::new();
    let (_near, far) = pair(&ca).await;
    let own = || Some(identity(&ca, &[&ca], "secondary"));
    let newer = causeway::sync::peer::Hello { versions: (7, 9), ..hello("secondary") };
    let newer = Agent::start_as("secondary", own(), newer).await;
    newer.route("primary", &[far.address]);
    let error = newer.ask("primary", "/echo", PATIENCE).await.unwrap_err();
    let told =
        matches!(&error, PeerError::Misfit(text) if text.contains("7 to 9") && text.contains("1 to 1"));
    assert!(told, "{error:?}");
    let liar = Agent::start_as("secondary", own(), hello("primary")).await;
    liar.route("primary", &[far.address]);
    let error = liar.ask("primary", "/echo", PATIENCE).await.unwrap_err();
    assert!(
        matches!(&error, PeerError::Misfit(text) if text.contains("certificate is of secondary")),
        "{error:?}"
    );
    assert_eq!(far.double.begun(), 0);
}

#[tokio::test]
async fn the_next_way_is_tried_and_the_one_that_works_is_kept() {
    let ca = Ca::new();
    let (near, far) = pair(&ca).await;
    let (one, two) = (Relay::start(far.address).await, Relay::start(far.address).await);
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    near.route("primary", &[closed, one.address, two.address]);
    near.ask("primary", "/echo", PATIENCE).await.unwrap();
    assert_eq!((one.count(), two.count()), (1, 0));
    one.cut();
    let answered = async || near.ask("primary", "/echo", PATIENCE).await.is_ok();
    eventually("the other way is taken", &answered).await;
    assert_eq!(two.count(), 1);
    one.mend();
    two.cut();
    eventually("the first way is taken again", &answered).await;
    assert!(one.count() > 1);
}

#[tokio::test]
async fn a_denied_datacenter_is_cut_and_told_and_comes_back_when_allowed() {
    let ca = Ca::new();
    let (near, far) = pair(&ca).await;
    near.ask("primary", "/echo", PATIENCE).await.unwrap();
    let (open, ()) = tokio::join!(near.ask("primary", "/hang", PATIENCE), async {
        eventually("it is begun", async || far.double.begun() == 2).await;
        far.judge("secondary", Verdict::Denied("by test".into()));
    });
    assert!(matches!(open, Err(PeerError::Unknown(_))), "{open:?}");
    let error = near.ask("primary", "/echo", PATIENCE).await.unwrap_err();
    assert!(
        matches!(&error, PeerError::Misfit(text) if text.contains("intention") && text.contains("by test")),
        "{error:?}"
    );
    assert_eq!(far.double.begun(), 2);
    far.judge("secondary", Verdict::Allowed);
    eventually("it is let in again", async || near.ask("primary", "/echo", PATIENCE).await.is_ok()).await;
    far.verdicts.send_modify(|verdicts| std::sync::Arc::make_mut(verdicts).clear());
    let error = near.ask("primary", "/echo", PATIENCE).await.unwrap_err();
    assert!(matches!(&error, PeerError::Unreached(_)), "not yet known is not denied: {error:?}");
}
