//! Where a request is executed. Pure: what is asked, the prefixes, and who is active in; where it goes out.

use crate::{
    model::{
        kv::Op,
        name::Datacenter,
        sync::{Prefix, PrefixTable},
    },
    sync::{
        endpoint::{
            ask::{Ask, LockAsk, Read, SyncAsk, Txn},
            message::Origin,
        },
        layout,
        peer::{MAX_HOPS, Target},
        record::Doer,
        refusal::Refusal,
    },
};

/// Where a request is executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// By the local Consul, as it is.
    Pass,
    /// By the local Consul, and what this agent knows as this prefix's applier is put into the answer.
    Local(Prefix),
    /// By the local Consul, and each of these prefixes, whose homes are elsewhere, is asked for by itself.
    Above(Vec<Prefix>),
    /// By this agent, which is active for this prefix; none for what no prefix is needed for.
    Execute(Option<Prefix>),
    /// By this prefix's home, or, while that is out of reach, by the local Consul: nobody here knows the home's indexes.
    Home(Prefix),
    /// By somebody else.
    Forward(Target),
    /// Not at all.
    Refuse(Refusal),
}

/// Who does the work on a prefix in this datacenter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// This agent.
    Active,
    /// Another.
    Elsewhere(Doer),
    /// Nobody right now.
    Nobody,
}

/// What routes depend on.
pub struct Scene<'a> {
    /// Our datacenter.
    pub own: &'a Datacenter,
    /// All that replicate.
    pub datacenters: &'a [Datacenter],
    /// The prefixes.
    pub prefixes: &'a PrefixTable,
    /// Who does the work on one.
    pub standing: &'a dyn Fn(&Prefix) -> Standing,
    /// Why one is not served, if it is not: the datacenters disagree on it.
    pub misfit: &'a dyn Fn(&Prefix) -> Option<String>,
    /// `?dc=`
    pub dc: Option<&'a str>,
    /// `?consistent`
    pub is_consistent: bool,
    /// Who passed it on.
    pub origin: Option<&'a Origin>,
}

impl Scene<'_> {
    /// Where it is executed. Sessions have rules of their own and are not asked for here.
    pub fn route(&self, ask: &Ask) -> Route {
        let route = match ask {
            Ask::Other | Ask::Session(_) => Route::Pass,
            Ask::Read(read) => self.read(read),
            Ask::Write(op) => self.write(op),
            Ask::Txn(txn) => self.txn(txn),
            Ask::Lock(lock) => self.lock(lock),
            Ask::Sync(sync) => self.sync(sync),
        };
        match route {
            Route::Forward(_) | Route::Home(_)
                if self.origin.is_some_and(|origin| origin.hops >= MAX_HOPS) =>
            {
                let text =
                    "the sync agents do not agree on who is active, as while one takes over; send it again";
                Route::Refuse(Refusal::NotServing(text.into()))
            }
            route => route,
        }
    }

    fn dc(&self) -> Option<&str> {
        self.dc.filter(|dc| !dc.is_empty())
    }

    /// Whether another datacenter took us for this prefix's home, which we are not.
    fn is_mistaken(&self, prefix: &Prefix) -> bool {
        self.origin.is_some_and(|origin| origin.datacenter != *self.own) && prefix.home != *self.own
    }

    fn read(&self, read: &Read) -> Route {
        let above: Vec<&Prefix> = match self.prefixes.of_key(&read.key) {
            Some(prefix) => return self.read_inside(prefix),
            None if read.is_tree() => self.prefixes.of_tree(&read.key).collect(),
            None => Vec::new(),
        };
        let is_ours = self.dc().is_none_or(|dc| dc == self.own.as_str());
        let elsewhere: Vec<Prefix> =
            above.into_iter().filter(|prefix| prefix.home != *self.own).cloned().collect();
        if is_ours && !elsewhere.is_empty() { Route::Above(elsewhere) } else { Route::Pass }
    }

    fn read_inside(&self, prefix: &Prefix) -> Route {
        match self.dc() {
            Some(dc) if dc != self.own.as_str() => {
                // Of a datacenter that does not replicate, Consul knows whether it exists.
                let to = self.datacenters.iter().find(|known| known.as_str() == dc);
                return to.map_or(Route::Pass, |to| Route::Forward(Target::Datacenter(to.clone())));
            }
            _ if prefix.home == *self.own => return Route::Pass,
            _ => {}
        }
        if let Some(text) = (self.misfit)(prefix) {
            return Route::Refuse(Refusal::Misfit(text));
        }
        if self.is_consistent {
            return Route::Forward(Target::Datacenter(prefix.home.clone()));
        }
        match (self.standing)(prefix) {
            Standing::Active => Route::Local(prefix.clone()),
            Standing::Elsewhere(doer) => Route::Forward(Target::Doer(doer)),
            Standing::Nobody => Route::Home(prefix.clone()),
        }
    }

    fn write(&self, op: &Op) -> Route {
        if layout::is_reserved(op) {
            return Route::Refuse(Refusal::Reserved(op.key().to_owned()));
        }
        match self.prefix_of(op) {
            Ok(None) => Route::Pass,
            Ok(Some(prefix)) => self.write_inside(prefix, op.key()),
            Err(refusal) => Route::Refuse(refusal),
        }
    }

    /// The prefix that an operation stays inside.
    fn prefix_of(&self, op: &Op) -> Result<Option<&Prefix>, Refusal> {
        let key = op.key();
        if let Some(prefix) = self.prefixes.of_key(key) {
            return Ok(Some(prefix));
        }
        let below = op.is_tree().then(|| self.prefixes.of_tree(key).next()).flatten();
        match below {
            Some(prefix) => Err(Refusal::Bad(format!(
                "`{key}` takes in the replicated prefix `{}` and other keys; send a request for each",
                prefix.text
            ))),
            None => Ok(None),
        }
    }

    fn write_inside(&self, prefix: &Prefix, key: &str) -> Route {
        if self.dc().is_some_and(|dc| dc != prefix.home.as_str()) {
            return Route::Refuse(Refusal::NotItsHome { key: key.to_owned(), home: prefix.home.clone() });
        }
        self.at_home(prefix)
    }

    /// By the active agent of the prefix's home, on the way through that of our own datacenter.
    fn at_home(&self, prefix: &Prefix) -> Route {
        if let Some(text) = (self.misfit)(prefix) {
            return Route::Refuse(Refusal::Misfit(text));
        }
        if self.is_mistaken(prefix) {
            return Route::Refuse(Refusal::Misfit(format!(
                "{} is not the home of `{}` here, {} is; give all sync agents the same prefixes",
                self.own, prefix.text, prefix.home
            )));
        }
        let is_home = prefix.home == *self.own;
        match (self.standing)(prefix) {
            Standing::Active if is_home => Route::Execute(Some(prefix.clone())),
            Standing::Elsewhere(doer) => Route::Forward(Target::Doer(doer)),
            Standing::Nobody if is_home => Route::Refuse(Refusal::NotServing(format!(
                "no sync agent of {} is active for `{}` right now; send it again in a few seconds",
                self.own, prefix.text
            ))),
            Standing::Active | Standing::Nobody => Route::Forward(Target::Datacenter(prefix.home.clone())),
        }
    }

    fn txn(&self, txn: &Txn) -> Route {
        if let Some(op) = txn.ops.iter().find(|op| op.is_write() && layout::is_reserved(op)) {
            return Route::Refuse(Refusal::Reserved(op.key().to_owned()));
        }
        let prefix = match self.one_prefix(txn) {
            Ok(Some(prefix)) => prefix,
            Ok(None) => return Route::Pass,
            Err(refusal) => return Route::Refuse(refusal),
        };
        let key = txn.ops.first().map_or("", Op::key);
        let only_reads = txn.ops.iter().all(|op| matches!(op, Op::Get { .. } | Op::GetTree { .. }));
        match (txn.is_write(), only_reads) {
            // Indexes and sessions that are checked are the home's.
            (true, _) | (false, false) => self.write_inside(prefix, key),
            (false, true) => self.read_inside(prefix),
        }
    }

    /// The prefix of a transaction; none when Consul may execute it as it is.
    fn one_prefix(&self, txn: &Txn) -> Result<Option<&Prefix>, Refusal> {
        let mut prefixes = Vec::new();
        for op in &txn.ops {
            // A tree that is only read may take in anything.
            let prefix =
                self.prefix_of(op).or_else(|refusal| if op.is_write() { Err(refusal) } else { Ok(None) });
            prefixes.push((op.key(), prefix?));
        }
        let Some((key, prefix)) = prefixes.iter().find_map(|(key, prefix)| Some((*key, (*prefix)?))) else {
            return Ok(None);
        };
        let all_here = || prefixes.iter().all(|(_, prefix)| prefix.is_none_or(|p| p.home == *self.own));
        if !txn.is_write() && all_here() {
            return Ok(None);
        }
        match prefixes.iter().find(|(_, other)| other.is_none_or(|other| other.text != prefix.text)) {
            Some((other_key, Some(other))) if other.home != prefix.home => Err(Refusal::TwoHomes {
                first_key: key.to_owned(),
                first: prefix.home.clone(),
                second_key: (*other_key).to_owned(),
                second: other.home.clone(),
            }),
            Some((other_key, _)) => Err(Refusal::Bad(format!(
                "a transaction stays inside one replicated prefix, and `{key}` belongs to `{}` but `{other_key}` does \
                 not; send two transactions",
                prefix.text
            ))),
            None if txn.has_others => Err(Refusal::Bad(format!(
                "a transaction on keys of the replicated prefix `{}` holds nothing but keys; send two transactions",
                prefix.text
            ))),
            None => Ok(Some(prefix)),
        }
    }

    fn lock(&self, lock: &LockAsk) -> Route {
        let op = Op::Delete { key: lock.key.clone() };
        if layout::is_reserved(&op) {
            return Route::Refuse(Refusal::Reserved(lock.key.clone()));
        }
        match self.prefixes.of_key(&lock.key) {
            Some(prefix) => self.write_inside(prefix, &lock.key),
            None => Route::Refuse(Refusal::Bad(format!(
                "`{}` is in no replicated prefix; name a lock below one of {}",
                lock.key,
                self.prefixes.iter().map(|prefix| prefix.text.as_str()).collect::<Vec<_>>().join(", ")
            ))),
        }
    }

    fn sync(&self, sync: &SyncAsk) -> Route {
        let (SyncAsk::Approve(text) | SyncAsk::Resync(text)) = sync else { return Route::Execute(None) };
        let Some(prefix) = self.prefixes.of_key(text).filter(|prefix| prefix.text == *text) else {
            return Route::Refuse(Refusal::Bad(format!("`{text}` is no replicated prefix here")));
        };
        match self.dc() {
            Some(dc) if dc != self.own.as_str() => {
                return Route::Forward(Target::Datacenter(Datacenter::from(dc)));
            }
            _ if prefix.home == *self.own => {
                return Route::Refuse(Refusal::Bad(format!(
                    "{} is the home of `{text}` and has no replica; name a replica's datacenter with ?dc=",
                    self.own
                )));
            }
            _ => {}
        }
        match (self.standing)(prefix) {
            Standing::Active => Route::Execute(Some(prefix.clone())),
            Standing::Elsewhere(doer) => Route::Forward(Target::Doer(doer)),
            Standing::Nobody => Route::Refuse(Refusal::NotServing(format!(
                "no sync agent of {} applies `{text}` right now; send it again in a few seconds",
                self.own
            ))),
        }
    }
}

#[cfg(test)]
mod tests;
