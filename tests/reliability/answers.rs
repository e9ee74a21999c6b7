//! What Consul may answer to an agent, by way of a proxy before its HTTP interface.

use std::time::Duration;

use anyhow::{Context, ensure};

use crate::reliability::{
    faulty::{Faulty, Spoil},
    world::{CLIENT, Fault, Whole, World},
};

/// What each answer is, and how it is made.
const ANSWERS: [(&str, Spoil); 8] = [
    ("Consul answers 429", Spoil::Status(429, "Your IP is issuing too many concurrent connections")),
    ("Consul answers 500", Spoil::Status(500, "No cluster leader")),
    ("Consul answers 503", Spoil::Status(503, "")),
    ("Consul answers 403", Spoil::Status(403, "Permission denied")),
    ("Consul's lists are empty, and said to be filtered by ACLs (1.11 and later)", Spoil::Filtered),
    ("Consul's lists are empty, and nothing says why (ACLs before 1.11)", Spoil::Emptied),
    ("Consul's answers are half an answer", Spoil::Truncated),
    ("Consul's connections end in the middle of an answer", Spoil::Broken),
];

pub(super) async fn all(world: &mut World) {
    let faulty = match between(world).await {
        Ok(faulty) => faulty,
        Err(error) => return world.note("a proxy before the client's Consul agent", &error),
    };
    for (name, spoil) in ANSWERS {
        spoilt(world, &faulty, name, spoil).await;
    }
    silent(world, &faulty).await;
    indexes_go_back(world, &faulty).await;
}

/// Puts the proxy between the client's agent and its Consul.
async fn between(world: &World) -> anyhow::Result<Faulty> {
    let node = world.rig.lab.node(CLIENT)?;
    let faulty = Faulty::start(&node.consul_http).await?;
    let file = node.dir.join("causeway.toml");
    let config = std::fs::read_to_string(&file)?;
    let changed = config.replace(&node.consul_http, &format!("http://{}", faulty.address));
    ensure!(changed != config, "{} does not name its Consul", file.display());
    std::fs::write(&file, changed)?;
    world.rig.lab.restart(CLIENT, "causeway").await?;
    world.heard().await.context("through the proxy")?;
    Ok(faulty)
}

async fn spoilt(world: &mut World, faulty: &Faulty, name: &'static str, spoil: Spoil) {
    let fault = Fault { name, whole: Whole::Both, spared: &[] };
    let begin = async |world: &World| -> anyhow::Result<String> {
        faulty.set(spoil)?;
        let trouble = world.silence_at(CLIENT).await?;
        world.more(30).await?;
        Ok(format!("Causeway says: {}", short(&trouble)))
    };
    world.fault(fault, begin, async |_| faulty.set(Spoil::Not)).await;
}

/// No more of a trouble than fits a table.
fn short(trouble: &str) -> String {
    const CHARS: usize = 90;
    let line: String = trouble.chars().take(CHARS).map(|it| if it == '\n' { ' ' } else { it }).collect();
    if trouble.chars().count() > CHARS { line + "…" } else { line }
}

/// Causeway lets Consul wait with a question, and gives it up when that time is over; what changes meanwhile arrives
/// afterwards.
async fn silent(world: &mut World, faulty: &Faulty) {
    let fault = Fault { name: "Consul answers nothing at all", whole: Whole::Both, spared: &[] };
    let begin = async |world: &World| -> anyhow::Result<String> {
        faulty.set(Spoil::Silent)?;
        world.api.turn(&world.rig, "api-2", "fail").await?;
        let trouble = world.overdue_at(CLIENT).await?;
        world.more(60).await?;
        ensure!(world.shows_second("HEALTHY").await?, "Envoy has a change of which nothing was said");
        Ok(format!("a change meanwhile arrives afterwards; Causeway says: {}", short(&trouble)))
    };
    let end = async |world: &World| -> anyhow::Result<()> {
        faulty.set(Spoil::Not)?;
        world.turn_second("fail").await?;
        world.turn_second("pass").await
    };
    world.fault(fault, begin, end).await;
}

/// Each answer is a reason to ask anew from the beginning, which costs questions: at a bounded rate, since the new ones
/// wait at Consul like any other. What changes arrives.
async fn indexes_go_back(world: &mut World, faulty: &Faulty) {
    const ANSWERS: usize = 20;
    const WINDOW: Duration = Duration::from_secs(2);
    /// Fewer than when nothing waits: then each of some twenty questions is asked once or twice a second.
    const MOST_PER_S: f64 = 30.0;
    let fault = Fault { name: "Consul's indexes go back", whole: Whole::Both, spared: &[] };
    let begin = async |world: &World| -> anyhow::Result<String> {
        faulty.set(Spoil::IndexBack)?;
        world
            .until("answers with older indexes, of which Consul had kept some waiting", async |_| {
                Ok((faulty.spoilt() >= ANSWERS && faulty.waited() > 0).then_some(()))
            })
            .await?;
        let before = faulty.spoilt();
        tokio::time::sleep(WINDOW).await;
        let rate = (faulty.spoilt() - before) as f64 / WINDOW.as_secs_f64();
        ensure!(rate <= MOST_PER_S, "{rate:.0} questions per second");
        world.turn_second("fail").await?;
        world.turn_second("pass").await?;
        Ok(format!(
            "changes arrive; Causeway asks anew from the beginning, {rate:.0} questions per second in all"
        ))
    };
    world.fault(fault, begin, async |_| faulty.set(Spoil::Not)).await;
}
