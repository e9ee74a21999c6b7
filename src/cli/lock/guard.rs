//! A command under a lock: the holder's machine (`sync::lock::lease`) between the agent, the command and the signals.
//!
//! Whatever wakes this process, the lease is looked at first: one that was paused past it signals its command before it
//! does anything else.

use std::{ffi::OsString, future::pending, io, pin::Pin, process::ExitStatus, time::Duration};

use nix::sys::signal::Signal;
use tokio::{
    signal::unix::{self, SignalKind},
    time::{Instant, sleep_until},
};
use tracing::info;

use crate::{
    cli::{
        complain,
        lock::{
            EXIT_HELD, EXIT_LOST,
            child::{self, Child},
            client::{Asked, Client, slice},
        },
    },
    lifecycle,
    sync::lock::{
        lease::{Action, Answer, Event, Holder, Loss, Renewal},
        wire::{AcquireBody, Granted},
    },
};

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) client: Client,
    pub(super) body: AcquireBody,
    pub(super) ttl: Duration,
    pub(super) wait: Option<Duration>,
    /// From SIGTERM to SIGKILL at the most.
    pub(super) grace: Duration,
    /// How long the home keeps a lost lock from others.
    pub(super) lock_delay: Duration,
    pub(super) command: Vec<OsString>,
}

/// Runs the command under the lock, and gives the lock back however that ends.
pub(super) async fn run(plan: Plan) -> anyhow::Result<u8> {
    let mut signals = Signals::listen()?;
    let now = lifecycle::now();
    let mut rng = fastrand::Rng::new();
    let request_id = request_id(&mut rng);
    let until = plan.wait.map(|wait| (now + wait).into_std());
    let holder = Holder::new(plan.ttl, until, rng.fork(), now.into_std());
    let mut guard = Guard {
        plan,
        holder,
        rng,
        request_id,
        granted: None,
        reason: String::new(),
        child: None,
        request: None,
        lost: None,
        kill_at: None,
        has_told: false,
    };
    let code = guard.run(&mut signals).await;
    guard.give_back().await;
    code
}

type Request = Pin<Box<dyn Future<Output = Reply> + Send>>;

enum Reply {
    Asked { sent: Instant, asked: Asked },
    Renewed { sent: Instant, renewal: Renewal, reason: String },
}

enum Turn {
    Woke,
    Kill,
    Ended(io::Result<ExitStatus>),
    Signal(Signal),
    Reply(Reply),
}

struct Guard {
    plan: Plan,
    holder: Holder,
    rng: fastrand::Rng,
    request_id: String,
    granted: Option<Granted>,
    /// What was told last of something that did not work.
    reason: String,
    child: Option<Child>,
    request: Option<Request>,
    lost: Option<Loss>,
    kill_at: Option<Instant>,
    /// Who holds the lock is told once.
    has_told: bool,
}

impl Guard {
    async fn run(&mut self, signals: &mut Signals) -> anyhow::Result<u8> {
        loop {
            let turn = self.turn(signals).await;
            let now = lifecycle::now().into_std();
            let event = match &turn {
                Turn::Reply(reply) => match self.heard(reply) {
                    Ok(event) => event,
                    Err(refused) => anyhow::bail!("{refused}"),
                },
                Turn::Woke | Turn::Kill | Turn::Ended(_) | Turn::Signal(_) => Event::Woke,
            };
            for action in self.holder.step(&event, now) {
                if let Some(code) = self.act(action) {
                    return Ok(code);
                }
            }
            match turn {
                Turn::Ended(status) => return self.ended(status?),
                Turn::Kill => self.kill(),
                Turn::Signal(signal) => match &self.child {
                    Some(child) => child.pass_on(signal),
                    None if matches!(signal, Signal::SIGUSR1 | Signal::SIGUSR2) => {}
                    None => return Ok(128 + signal as u8),
                },
                Turn::Woke | Turn::Reply(_) => {}
            }
        }
    }

    /// The next thing that happens; the lease's end comes before all else.
    async fn turn(&mut self, signals: &mut Signals) -> Turn {
        let wake_at = self.holder.wake_at().map(Instant::from_std);
        let (kill_at, child, request) = (self.kill_at, &mut self.child, &mut self.request);
        let ended = async {
            match child {
                Some(child) => child.wait().await,
                None => pending().await,
            }
        };
        let reply = async {
            match request {
                Some(request) => request.await,
                None => pending().await,
            }
        };
        let turn = tokio::select! {
            biased;
            () = at(wake_at) => Turn::Woke,
            () = at(kill_at) => Turn::Kill,
            status = ended => Turn::Ended(status),
            signal = signals.next() => Turn::Signal(signal),
            reply = reply => Turn::Reply(reply),
        };
        if matches!(turn, Turn::Reply(_)) {
            self.request = None;
        }
        turn
    }

    /// What the agent's answer means to the holder.
    fn heard(&mut self, reply: &Reply) -> Result<Event, String> {
        match reply {
            Reply::Renewed { sent, renewal, reason } => {
                self.reason.clone_from(reason);
                Ok(Event::Renewed { sent: sent.into_std(), renewal: *renewal })
            }
            Reply::Asked { sent, asked } => {
                let answer = match asked {
                    Asked::Granted(granted) => {
                        self.granted = Some(granted.clone());
                        Answer::Granted
                    }
                    Asked::Held(view) => {
                        let ids: Vec<&str> = view.holders.iter().map(|holder| holder.id.as_str()).collect();
                        self.reason = format!("held by {}", ids.join(", "));
                        self.tell();
                        Answer::Held
                    }
                    Asked::NotNow(reason) => {
                        self.reason.clone_from(reason);
                        self.tell();
                        Answer::NotNow
                    }
                    Asked::Refused(reason) => return Err(reason.clone()),
                };
                Ok(Event::Asked { sent: sent.into_std(), answer })
            }
        }
    }

    fn tell(&mut self) {
        if !std::mem::replace(&mut self.has_told, true) {
            info!(name = self.plan.client.name, reason = self.reason, "waiting for the lock");
        }
    }

    /// Does what the holder says; gives the exit code when that is the end.
    fn act(&mut self, action: Action) -> Option<u8> {
        match action {
            Action::Ask { wait } => self.ask(wait),
            Action::Renew => self.renew(),
            Action::Hold => return self.start(),
            Action::GiveBack => {
                // Under its own id the next request would be told the same grant again.
                self.request_id = request_id(&mut self.rng);
                if let Some(granted) = self.granted.take() {
                    let client = self.plan.client.clone();
                    drop(lifecycle::spawn("lock.give_back", async move { client.release(&granted).await }));
                }
            }
            Action::Lost { loss, ours_until } => return self.lost(loss, Instant::from_std(ours_until)),
            Action::GiveUp(answer) => {
                let name = &self.plan.client.name;
                complain(&format!("causeway: {name} was not to be had in time: {}", self.reason));
                return Some(if answer == Answer::Held { EXIT_HELD } else { crate::cli::EXIT_UNAVAILABLE });
            }
        }
        None
    }

    fn ask(&mut self, wait: Duration) {
        let (client, id, mut body) =
            (self.plan.client.clone(), self.request_id.clone(), self.plan.body.clone());
        body.wait = Some(slice(wait));
        let sent = lifecycle::now();
        self.request =
            Some(Box::pin(
                async move { Reply::Asked { sent, asked: client.acquire(&id, &body, wait).await } },
            ));
    }

    fn renew(&mut self) {
        let Some(granted) = self.granted.clone() else { return };
        let (client, ttl, sent) = (self.plan.client.clone(), self.plan.ttl, lifecycle::now());
        self.request = Some(Box::pin(async move {
            let (renewal, reason) = client.renew(&granted, ttl).await;
            Reply::Renewed { sent, renewal, reason }
        }));
    }

    fn start(&mut self) -> Option<u8> {
        let granted = self.granted.as_ref()?;
        match Child::start(&self.plan.command, granted) {
            Ok(child) => {
                self.child = Some(child);
                None
            }
            Err(error) => {
                let program = self.plan.command.first().map(|program| program.to_string_lossy());
                complain(&format!("causeway: start {}: {error}", program.unwrap_or_default()));
                Some(child::code_of_start(&error))
            }
        }
    }

    fn lost(&mut self, loss: Loss, ours_until: Instant) -> Option<u8> {
        let child = self.child.as_ref()?;
        let now = lifecycle::now();
        let kill_at = match loss {
            // Late to learn of it, this process may be late again.
            Loss::Late => now,
            // A grace never goes on into another's time.
            Loss::Taken | Loss::Unrenewed => (now + self.plan.grace).min(ours_until + self.plan.lock_delay),
        };
        child.signal(if kill_at <= now { Signal::SIGKILL } else { Signal::SIGTERM });
        self.kill_at = Some(kill_at);
        self.lost = Some(loss);
        let name = &self.plan.client.name;
        let why = match loss {
            Loss::Late => "this process was paused for longer than the lease",
            Loss::Taken | Loss::Unrenewed => self.reason.as_str(),
        };
        complain(&format!("causeway: the lock {name} is lost, and the command is told to stop: {why}"));
        None
    }

    fn kill(&mut self) {
        self.kill_at = None;
        if let Some(child) = &self.child {
            child.signal(Signal::SIGKILL);
        }
    }

    fn ended(&mut self, status: ExitStatus) -> anyhow::Result<u8> {
        let child = self.child.take();
        if self.lost.is_none() {
            return Ok(child::code(status));
        }
        // What it started goes on in another's time otherwise.
        child.as_ref().map(Child::kill_rest);
        Ok(EXIT_LOST)
    }

    /// Whatever happened, what was granted is given back.
    async fn give_back(&mut self) {
        self.child = None;
        self.request = None;
        let Some(granted) = self.granted.take() else { return };
        // After a loss the home knows better; the release of a former token frees nothing there.
        if let Err(reason) = self.plan.client.release(&granted).await {
            let name = &self.plan.client.name;
            complain(&format!(
                "causeway: the lock {name} could not be given back and ends by itself in {} s at most: {reason}",
                self.plan.ttl.as_secs() * 2
            ));
        }
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

fn request_id(rng: &mut fastrand::Rng) -> String {
    format!("lock-{:032x}", rng.u128(..))
}

/// The signals that are passed on.
struct Signals([(Signal, unix::Signal); 6]);

impl Signals {
    fn listen() -> io::Result<Self> {
        let of = |kind, signal| Ok::<_, io::Error>((signal, unix::signal(kind)?));
        Ok(Self([
            of(SignalKind::terminate(), Signal::SIGTERM)?,
            of(SignalKind::interrupt(), Signal::SIGINT)?,
            of(SignalKind::hangup(), Signal::SIGHUP)?,
            of(SignalKind::quit(), Signal::SIGQUIT)?,
            of(SignalKind::user_defined1(), Signal::SIGUSR1)?,
            of(SignalKind::user_defined2(), Signal::SIGUSR2)?,
        ]))
    }

    async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            for (signal, source) in &mut self.0 {
                if source.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*signal);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}
