//! Where a target of a chain is: its own instances, or gateways on the way to them.

use crate::{
    mesh::{
        endpoints::{self, Members, Side},
        reader::Reader,
        sidecar::upstream::{Central, Making},
        subset,
    },
    model::{
        chain::{GatewayMode, Target},
        instance::Instance,
        note::Note,
    },
};

impl Making<'_> {
    /// The members of a target's cluster. The subset is looked at also behind gateways: whether one of *its*
    /// instances is healthy tells whether the way is open.
    pub(super) fn members(
        &self,
        target: &Target,
        central: &Central,
        reader: &mut Reader<'_>,
        notes: &mut Vec<Note>,
    ) -> Option<Result<Members, Note>> {
        let local = self.local();
        let instances = reader.connect(&target.datacenter, &target.service);
        if target.datacenter != *local && instances.is_some_and(Vec::is_empty) {
            // A token that may not read there gets an empty answer and no error (hashicorp/consul#12623).
            notes.push(self.note(
                format!("has no instance of {} in datacenter {}", target.service, target.datacenter),
                "if it should, give the agent a global token with service:read and node:read there",
            ));
        }
        let only_passing = target.subset.as_ref().is_some_and(|subset| subset.only_passing);
        let mode = self.mode(target);
        let (gateways, side) = match mode {
            GatewayMode::None => {
                let side = if target.datacenter == *local { Side::Lan } else { Side::Wan };
                let members = self.subset(target, instances?, notes);
                return Some(members.and_then(|members| {
                    endpoints::of_strict(members, only_passing, side, central.resolution, notes)
                }));
            }
            GatewayMode::Local => (reader.local_gateways(local), Side::Lan),
            GatewayMode::Remote => (reader.remote_gateways(&target.datacenter), Side::Wan),
        };
        let (instances, gateways) = (instances?, gateways?);
        if gateways.is_empty() {
            let at = if mode == GatewayMode::Local { local } else { &target.datacenter };
            notes.push(self.note(
                format!("goes through mesh gateways, and datacenter {at} has none"),
                "start one with `causeway envoy --gateway mesh --register`",
            ));
        }
        Some(self.subset(target, instances, notes).and_then(|members| {
            let is_alive = endpoints::is_any_healthy_strictly(members, only_passing);
            endpoints::of_gateways(&gateways, is_alive, side, central.resolution, notes)
        }))
    }

    /// Gateways know only the mesh's own server names, so an external one goes past them.
    fn mode(&self, target: &Target) -> GatewayMode {
        let is_direct = target.datacenter == *self.local() || target.is_external;
        if is_direct { GatewayMode::None } else { target.gateway_mode }
    }

    fn subset<'i>(
        &self,
        target: &Target,
        instances: &'i [Instance],
        notes: &mut Vec<Note>,
    ) -> Result<Vec<&'i Instance>, Note> {
        let members = subset::members(instances, target.subset.as_ref());
        let Some(subset) = &target.subset else { return Ok(members.unwrap_or_default()) };
        let (name, service) = (&subset.name, &target.service);
        let members = members.map_err(|error| {
            let problem =
                format!("its subset {name} of {service} has a filter that cannot be applied: {error}");
            self.note(problem, "correct the subset's Filter in the service-resolver")
        })?;
        if members.is_empty() && !instances.is_empty() {
            let problem = format!(
                "its subset {name} of {service} has none of the {} instances in {}",
                instances.len(),
                target.datacenter
            );
            notes.push(
                self.note(problem, "correct the subset's Filter, or register instances that it selects"),
            );
        }
        Ok(members)
    }
}
