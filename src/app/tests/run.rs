//! One run: the land, its Consul, the agent and its clients on one thread whose clock jumps to what happens next.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    app::tests::{
        agent::Agent,
        client::{Client, Orders},
        consul::Consul,
        fault::{Invariant, Planted, Violation},
        land::{Land, Question},
        plan::{PROBES, Plan, What},
    },
    consul::{
        client::Reply,
        topic::{self, Outcome},
    },
    lifecycle::{self, Task},
    mesh::{self, Options, Proxy, world::World},
    model::{
        catalog::{Catalog, Heard, Topic, Topics},
        name::ProxyId,
    },
    xds::{
        resource::Kind,
        snapshot::{Draft, Snapshot},
    },
};

/// After the end of all faults: a question to another datacenter may just have been lost (42 s), and the pause after it
/// takes 30 s at most; to the local one 74 s, and 5 s. What that brings may ask for more.
const CONVERGES_WITHIN: Duration = Duration::from_secs(180);
/// When nothing was wrong for long: a slow client takes 3 s for each response, and waits once for 2 s.
const FOLLOWS_WITHIN: Duration = Duration::from_secs(25);
/// How often it is looked whether a client has what it should.
const LOOKS_EVERY: Duration = Duration::from_millis(250);

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcomes {
    pub(super) violations: Vec<Violation>,
    /// What was asked, answered and sent, in order.
    pub(super) trace: Vec<String>,
    /// Resources that clients were sent.
    pub(super) received: usize,
    /// How many questions met which trouble.
    pub(super) met: BTreeMap<&'static str, u64>,
}

/// Everything that runs.
struct Stage {
    plan: Plan,
    consul: Consul,
    agents: watch::Sender<Option<Arc<Agent>>>,
    kept: Topics,
    clients: Vec<(Client, watch::Sender<Orders>)>,
    violations: Vec<Violation>,
    _lives: Vec<Task<()>>,
}

/// Carries out a plan.
pub(super) fn run(plan: &Plan, planted: Option<Planted>) -> Outcomes {
    fastrand::seed(plan.seed);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    let plan = plan.clone();
    runtime.block_on(async move {
        let mut stage = Stage::set(plan, planted);
        stage.play().await;
        stage.outcomes()
    })
}

/// Something that ends later.
enum Ends {
    Trouble(usize),
    Absence(usize),
    /// With what it kept, or without.
    Downtime(bool),
}

impl Stage {
    fn set(plan: Plan, planted: Option<Planted>) -> Self {
        let consul = Consul::new(plan.seed, planted);
        let (agents, running) = watch::channel(Some(Arc::new(Agent::start(&consul, Topics::new()))));
        let (mut clients, mut lives) = (Vec::new(), Vec::new());
        for character in &plan.clients {
            let (client, (orders, heard)) = (Client::default(), watch::channel(Orders::default()));
            let life = client.clone().live(*character, consul.clone(), running.clone(), heard, planted);
            lives.push(lifecycle::spawn("client", life));
            clients.push((client, orders));
        }
        Self { plan, consul, agents, kept: Topics::new(), clients, violations: Vec::new(), _lives: lives }
    }

    async fn play(&mut self) {
        let began = lifecycle::now();
        let mut ends: BTreeMap<(Instant, usize), Ends> = BTreeMap::new();
        let steps = self.plan.steps.clone();
        for (number, step) in steps.iter().enumerate() {
            self.end_until(began + step.at, &mut ends).await;
            if self.is_lost() {
                return;
            }
            let (after_ms, end) = match self.act(step.what) {
                Some(later) => later,
                None => continue,
            };
            ends.insert((lifecycle::now() + Duration::from_millis(after_ms), number), end);
        }
        self.heal();
        let healed = lifecycle::now();
        self.expect_converged("after the end of all faults", CONVERGES_WITHIN).await;
        // What hung may hang on for a while, although everybody has what was known by then.
        sleep_until(healed + CONVERGES_WITHIN).await;
        for probe in PROBES {
            if self.is_lost() {
                return;
            }
            self.consul.change(|land| probe.apply(land));
            self.expect_converged(&format!("after {probe:?}"), FOLLOWS_WITHIN).await;
        }
    }

    /// Lets time pass, and ends what ends meanwhile.
    async fn end_until(&mut self, until: Instant, ends: &mut BTreeMap<(Instant, usize), Ends>) {
        while let Some(entry) = ends.first_entry()
            && entry.key().0 <= until
        {
            let ((at, _), end) = entry.remove_entry();
            sleep_until(at).await;
            self.end(&end);
        }
        sleep_until(until).await;
    }

    fn end(&mut self, end: &Ends) {
        match end {
            Ends::Trouble(number) => self.consul.mend(*number),
            Ends::Absence(client) => self.order(*client, |orders| orders.is_away = false),
            Ends::Downtime(keeps) => self.start_agent(*keeps),
        }
    }

    /// Gives what ends later, and after how many ms.
    fn act(&mut self, what: What) -> Option<(u64, Ends)> {
        match what {
            What::Change(change) => self.consul.change(|land| change.apply(land)),
            What::Save => self.consul.save(),
            What::Restore => self.consul.restore(),
            What::Refuse(client) => self.order(client, |orders| orders.refusals += 1),
            What::Trouble(trouble, scope, for_ms) => {
                return Some((for_ms, Ends::Trouble(self.consul.trouble(trouble, scope))));
            }
            What::Leave(client, for_ms) => {
                self.order(client, |orders| orders.is_away = true);
                return Some((for_ms, Ends::Absence(client)));
            }
            What::Restart(after_ms, keeps) => {
                self.stop_agent();
                return Some((after_ms, Ends::Downtime(keeps)));
            }
        }
        None
    }

    fn order(&self, client: usize, change: impl FnOnce(&mut Orders)) {
        if let Some((_, orders)) = self.clients.get(client) {
            orders.send_modify(change);
        }
    }

    fn stop_agent(&mut self) {
        if let Some(agent) = self.agents.send_replace(None) {
            self.kept = agent.kept();
            self.check_alive(&agent);
        }
    }

    fn start_agent(&mut self, keeps: bool) {
        if self.agents.borrow().is_some() {
            return;
        }
        let kept = if keeps { self.kept.clone() } else { Topics::new() };
        self.agents.send_replace(Some(Arc::new(Agent::start(&self.consul, kept))));
    }

    /// Nothing is wrong any more. Who refused something comes back, and is offered it again; the others stay as they are.
    fn heal(&mut self) {
        self.consul.mend_all();
        self.start_agent(true);
        for client in 0..self.clients.len() {
            self.order(client, |orders| {
                *orders = Orders { is_away: orders.is_away || orders.refusals > 0, refusals: 0 };
            });
        }
    }

    async fn expect_converged(&mut self, when: &str, within: Duration) {
        // Long enough for every client to notice that it is away.
        sleep(LOOKS_EVERY).await;
        for client in 0..self.clients.len() {
            self.order(client, |orders| orders.is_away = false);
        }
        let end = lifecycle::now() + within;
        let intended = self.intended();
        loop {
            let lacking = self.lacking(&intended);
            if lacking.is_empty() || self.is_lost() {
                return;
            }
            if lifecycle::now() >= end {
                let told = format!("{when}, {within:?} later: {}", lacking.join("; "));
                return self.violations.push(Violation { invariant: Invariant::EveryoneConverges, told });
            }
            sleep(LOOKS_EVERY).await;
        }
    }

    /// What every client should have.
    fn intended(&self) -> BTreeMap<&'static str, Arc<Snapshot>> {
        let land = self.consul.land();
        let proxies: BTreeSet<_> = self.plan.clients.iter().map(|character| character.proxy).collect();
        proxies.into_iter().map(|proxy| (proxy, built(&land, proxy))).collect()
    }

    fn lacking(&self, intended: &BTreeMap<&'static str, Arc<Snapshot>>) -> Vec<String> {
        let all = self.plan.clients.iter().zip(&self.clients);
        all.flat_map(|(character, (client, _))| {
            let lacking = differences(client, &intended[character.proxy]);
            lacking.into_iter().map(|text| format!("{} ({:?}) {text}", character.proxy, character.variant))
        })
        .collect()
    }

    fn check_alive(&mut self, agent: &Agent) {
        if !agent.is_alive() {
            let told = "the watches have ended".to_owned();
            self.violations.push(Violation { invariant: Invariant::NothingBreaks, told });
        }
    }

    /// Whether there is no need to go on.
    fn is_lost(&self) -> bool {
        !self.violations.is_empty() || self.clients.iter().any(|(client, _)| !client.found().is_empty())
    }

    fn outcomes(mut self) -> Outcomes {
        let running = self.agents.borrow().clone();
        if let Some(agent) = running {
            self.check_alive(&agent);
        }
        let unknown = self.consul.unknown().into_iter();
        self.violations.extend(unknown.map(|question| Violation {
            invariant: Invariant::NothingBreaks,
            told: format!("asks {question}"),
        }));
        let found = self.clients.iter().flat_map(|(client, _)| client.found());
        let mut trace = self.consul.trace();
        trace.extend(self.clients.iter().flat_map(|(client, _)| client.trace()));
        let received = self.clients.iter().map(|(client, _)| client.received()).sum();
        // What came first tells more.
        let violations = found.chain(self.violations.iter().cloned()).collect();
        Outcomes { violations, trace, received, met: self.consul.met() }
    }
}

/// What a proxy should have, made from the truth.
fn built(land: &Land, proxy: &'static str) -> Arc<Snapshot> {
    let (id, mut catalog) = (ProxyId::from(proxy), Catalog::default());
    loop {
        let needs = mesh::needs(&catalog, &id, Options::default());
        let unknown: Vec<&Topic> = needs.iter().filter(|topic| catalog.heard(topic).is_none()).collect();
        if unknown.is_empty() {
            break;
        }
        for topic in unknown {
            catalog.hear(topic.clone(), heard(land, topic));
        }
    }
    let Proxy::Built(built) = mesh::build(&catalog, &id, Options::default()) else {
        panic!("{proxy} is registered");
    };
    let whole = World::default().assemble(built);
    assert!(whole.complete, "{proxy} waits for {:?}", whole.waiting_for);
    let (resources, partial) = (whole.resources, whole.partial);
    Snapshot::empty().next(Draft { resources, partial, complete: true })
}

fn heard(land: &Land, topic: &Topic) -> Heard {
    let question = topic::question(topic);
    let query = question.query.iter().map(|(name, value)| ((*name).to_owned(), encoded(value))).collect();
    let body = question.body.map(|body| body.to_string()).unwrap_or_default();
    let said = land.answer(&Question { path: question.path, query, body }).unwrap();
    let status = StatusCode::from_u16(said.status).unwrap();
    let reply = Reply::recorded(topic.to_string(), status, &HeaderMap::new(), Bytes::from(said.body));
    match topic::outcome(topic, &reply) {
        Outcome::Heard(answer, notes) => Heard { notes: notes.into(), ..Heard::fresh(answer) },
        Outcome::Absent(answer) => Heard::fresh(answer),
        Outcome::Lost(_, reason) => panic!("{topic}: {reason}"),
    }
}

/// Only whether there is a filter counts.
fn encoded(value: &str) -> String {
    value.replace(' ', "%20")
}

/// What a client has otherwise than it should.
fn differences(client: &Client, intended: &Snapshot) -> Vec<String> {
    let mut texts = Vec::new();
    for kind in Kind::ALL {
        let is_whole = matches!(kind, Kind::Cluster | Kind::Listener);
        let (has, wants) = (client.has(kind), client.wants(kind));
        let should: BTreeMap<String, String> = intended
            .of_kind(kind)
            .map(|entry| (entry.key.name.clone(), entry.version.to_string()))
            .filter(|(name, _)| is_whole || wants.contains(name))
            .collect();
        let names: BTreeSet<&String> = has.keys().chain(should.keys()).collect();
        for name in names {
            match (has.get(name), should.get(name)) {
                (Some(has), Some(should)) if has != should => {
                    texts.push(format!("has another {} {name}", kind.short()))
                }
                (Some(_), None) => texts.push(format!("has {} {name} still", kind.short())),
                (None, Some(_)) => texts.push(format!("lacks {} {name}", kind.short())),
                _ => {}
            }
        }
    }
    texts
}
