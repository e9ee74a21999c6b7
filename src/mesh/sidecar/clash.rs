//! Names that escape hatches take from others. Envoy knows each name once: of two resources only the first would be
//! sent, and the other's traffic would go astray.

use crate::{
    mesh::{
        built::{Built, Outcome, Parts, Unit},
        sidecar::Sidecar,
    },
    model::note::Note,
    xds::resource::Resource,
};

/// A unit with an escape hatch that has a name of another unit's, with a note. Of two with hatches the later one.
pub(super) fn find(sidecar: &Sidecar<'_>, built: &Built) -> Option<(Unit, Note)> {
    let with_hatch = built.units.iter().rev().filter(|(unit, _)| !sidecar.without_hatches.contains_key(unit));
    with_hatch.filter_map(|(unit, outcome)| Some((unit, parts(outcome)?))).find_map(|(unit, parts)| {
        let key = named_by_user(parts).find(|ours| is_of_another(built, unit, ours))?.key();
        let note = sidecar.note(
            &about(unit),
            format!(
                "has an escape hatch with the name of another one's resource ({key}); it goes without it"
            ),
            "give what it names a name of its own",
        );
        Some((unit.clone(), note))
    })
}

fn parts(outcome: &Outcome) -> Option<&Parts> {
    match outcome {
        Outcome::Ready(parts) | Outcome::Partial(parts, _) | Outcome::Refused(parts) => Some(parts),
        Outcome::Held(_) => None,
    }
}

/// What has a name that the user chose: also the endpoints of a cluster.
fn named_by_user(parts: &Parts) -> impl Iterator<Item = &Resource> {
    let has_cluster = parts.resources.iter().any(|resource| matches!(resource, Resource::CustomCluster(_)));
    parts.resources.iter().filter(move |resource| match resource {
        Resource::CustomCluster(_) | Resource::CustomListener(_) => true,
        Resource::Endpoints(_) => has_cluster,
        _ => false,
    })
}

/// Whether another unit has something else under that name. Two upstreams may lead to one target.
fn is_of_another(built: &Built, unit: &Unit, ours: &Resource) -> bool {
    let others = built.units.iter().filter(|(other, _)| *other != unit);
    let mut resources = others.filter_map(|(_, outcome)| parts(outcome)).flat_map(|parts| &parts.resources);
    resources.any(|other| other.key() == ours.key() && other != ours)
}

fn about(unit: &Unit) -> String {
    match unit {
        Unit::Upstream(id) => format!("upstream {id}"),
        Unit::LocalApp => "local application".to_owned(),
        _ => "public listener".to_owned(),
    }
}
