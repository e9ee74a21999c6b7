//! A gateway's ways to the services of its own datacenter: one cluster for each service, and one for each subset that
//! its `service-resolver` names. They have no chains: the gateway's last chain takes the cluster that the server name
//! names.

use std::borrow::Cow;

use crate::{
    mesh::{
        built::{Made, Parts, Unit},
        endpoints::{self, Side},
        gateway::{Gateway, SERVERS, to_members},
        name,
        reader::Reader,
    },
    model::{
        chain::Subset,
        instance::{Health, Instance, ServiceKind},
        name::ServiceName,
        note::Note,
        resolver::ServiceResolver,
    },
};

impl<'a> Gateway<'a> {
    /// Adds the units of all local services and subsets.
    pub(super) fn local_services(&mut self) {
        let mut reader = Reader::new(self.catalog);
        let services = reader.services(&self.agent.datacenter);
        let made = services.is_some().then(|| Ok(Parts::default()));
        self.built.add(Unit::LocalServices, reader, made);
        let is_offered = |(name, kind): &(&ServiceName, &ServiceKind)| {
            **kind == ServiceKind::Typical && name.as_str() != SERVERS
        };
        let offered: Vec<&ServiceName> =
            services.into_iter().flatten().filter(is_offered).map(|(name, _)| name).collect();
        for service in &offered {
            self.unit(Unit::LocalService((*service).clone()), |gateway, reader, notes| {
                gateway.local_service(service, reader, notes)
            });
        }
        self.local_subsets(&offered);
    }

    fn local_subsets(&mut self, offered: &[&'a ServiceName]) {
        let mut reader = Reader::new(self.catalog);
        let (services, resolvers) = (reader.services(&self.agent.datacenter), reader.resolvers());
        let made = services.and(resolvers).map(|_| Ok(Parts::default()));
        self.built.add(Unit::LocalSubsets, reader, made);
        let Some(resolvers) = resolvers else { return };
        let with_entry = offered.iter().filter_map(|service| Some((*service, resolvers.get(*service)?)));
        for (service, entry) in with_entry {
            let resolver = match entry {
                Ok(resolver) => resolver,
                Err(note) => {
                    let unit = Unit::SubsetsOf(service.clone());
                    self.built.add(unit, Reader::new(self.catalog), Some(Err(note.clone())));
                    continue;
                }
            };
            for subset in resolver.subsets.values() {
                let unit = Unit::LocalSubset(service.clone(), subset.name.clone());
                self.unit(unit, |gateway, reader, notes| {
                    gateway.local_subset(service, resolver, subset, reader, notes)
                });
            }
        }
    }

    /// Without the resolvers it waits: a default subset would let in instances that are not meant.
    fn local_service(&self, service: &ServiceName, reader: &mut Reader<'a>, notes: &mut Vec<Note>) -> Made {
        let dc = &self.agent.datacenter;
        let (roots, instances, resolvers) = (reader.roots(), reader.connect(dc, service), reader.resolvers());
        let (roots, instances, resolvers) = (roots?, instances?, resolvers?);
        let resolver = match resolvers.get(service).map(Result::as_ref).transpose() {
            Ok(resolver) => resolver,
            Err(note) => return Some(Err(note.clone())),
        };
        let sni = name::service_sni(service, dc, &roots.trust_domain);
        Some(
            default_subset(service, resolver)
                .and_then(|subset| self.to_instances(&sni, service, resolver, subset, instances, notes)),
        )
    }

    fn local_subset(
        &self,
        service: &ServiceName,
        resolver: &ServiceResolver,
        subset: &Subset,
        reader: &mut Reader<'a>,
        notes: &mut Vec<Note>,
    ) -> Made {
        let dc = &self.agent.datacenter;
        let (roots, instances) = (reader.roots(), reader.connect(dc, service));
        let (roots, instances) = (roots?, instances?);
        let sni = name::subset_sni(&subset.name, service, dc, &roots.trust_domain);
        Some(self.to_instances(&sni, service, Some(resolver), Some(subset), instances, notes))
    }

    fn to_instances(
        &self,
        cluster: &str,
        service: &ServiceName,
        resolver: Option<&ServiceResolver>,
        subset: Option<&Subset>,
        instances: &[Instance],
        notes: &mut Vec<Note>,
    ) -> Result<Parts, Note> {
        let timeout_ms = resolver.and_then(|resolver| resolver.connect_timeout_ms);
        let timeout_ms = timeout_ms.unwrap_or(self.settings.connect_timeout_ms);
        let chosen = match subset {
            Some(subset) => Cow::from(choose(service, subset, instances)?),
            None => Cow::from(instances),
        };
        let members = endpoints::of_instances(&*chosen, Side::Lan, self.settings.resolution, notes)?;
        Ok(Parts { resources: to_members(cluster, members, timeout_ms, None).collect(), ..Parts::default() })
    }
}

/// The subset that is meant where none is named, if any.
fn default_subset<'r>(
    service: &ServiceName,
    resolver: Option<&'r ServiceResolver>,
) -> Result<Option<&'r Subset>, Note> {
    let Some((resolver, name)) = resolver.and_then(|r| Some((r, r.default_subset.as_ref()?))) else {
        return Ok(None);
    };
    resolver.subsets.get(name).map(Some).ok_or_else(|| {
        Note::new(
            format!("service-resolver {service}"),
            format!("its default subset `{}` is none of its subsets", name.escape_debug()),
            "add the subset, or name another in DefaultSubset",
        )
    })
}

/// The instances of a subset. Where only passing ones count, one that warns takes no traffic.
fn choose(service: &ServiceName, subset: &Subset, instances: &[Instance]) -> Result<Vec<Instance>, Note> {
    let refuse = |error| {
        Note::new(
            format!("service-resolver {service}, subset {}", subset.name.escape_debug()),
            format!("its filter cannot be applied: {error}"),
            "correct Filter in the entry",
        )
    };
    let filter = subset.filter.read().map_err(refuse)?;
    let mut chosen = Vec::new();
    for instance in instances {
        if filter.matches(&instance.entry).map_err(refuse)? {
            let mut instance = instance.clone();
            if subset.only_passing && instance.health != Health::Passing {
                instance.health = Health::Critical;
            }
            chosen.push(instance);
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        mesh::{
            built::{Built, Outcome},
            gateway::settings::GatewaySettings,
            world::World,
        },
        model::{
            agent::AgentFacts,
            catalog::{Answer, Catalog, Heard, Topic},
        },
        xds::resource::cluster::{Discovery, Resolution},
    };

    /// The local services of a gateway, of which one has this entry.
    fn built(entry: Result<ServiceResolver, Note>) -> Built {
        let service = ServiceName::from("web");
        let mut catalog = Catalog::default();
        let services = Answer::Services(BTreeMap::from([(service.clone(), ServiceKind::Typical)]));
        catalog.hear(Topic::Services { dc: "dc1".into(), kind: None }, Heard::fresh(services));
        let entries = Answer::Resolvers(BTreeMap::from([(service, entry)]));
        catalog.hear(Topic::Resolvers, Heard::fresh(entries));
        let agent = AgentFacts::sample("n");
        let settings =
            GatewaySettings { resolution: Resolution::Logical, connect_timeout_ms: 1, keepalive: None };
        let mut gateway = Gateway { catalog: &catalog, agent: &agent, settings, built: Built::default() };
        gateway.local_services();
        gateway.built
    }

    #[test]
    fn subsets_stay_while_their_entry_is_not_understood_and_go_with_it() {
        let last_good = Parts {
            resources: vec![crate::mesh::cluster::passthrough("v1.web", Discovery::Eds, 1, None)],
            ..Parts::default()
        };
        let mut before = built(Ok(ServiceResolver::default()));
        let subset = Unit::LocalSubset("web".into(), "v1".into());
        before.units.insert(subset, Outcome::Ready(last_good));
        let mut world = World::default();
        world.assemble(before);
        let note = Note::new("service-resolver web", "it is not understood", "correct it");
        let whole = world.assemble(built(Err(note.clone())));
        assert!(whole.resources.keys().any(|key| key.name == "v1.web") && whole.notes.contains(&note));
        let whole = world.assemble(built(Ok(ServiceResolver::default())));
        assert!(!whole.resources.keys().any(|key| key.name == "v1.web"));
    }
}
