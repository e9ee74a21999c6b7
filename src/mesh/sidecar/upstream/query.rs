//! An upstream that names a prepared query: no chain, one cluster of what the query finds.

use std::collections::BTreeSet;

use crate::{
    mesh::{
        built::{Made, Parts},
        cluster::{self, CONNECT_TIMEOUT_MS, Manner},
        endpoints::{self, Side},
        name,
        reader::Reader,
        sidecar::upstream::{Front, Making},
    },
    model::{catalog::Topic, note::Note},
    xds::resource::{Resource, cluster::HttpVersion},
};

pub(super) fn build(
    making: &Making<'_>,
    query: &str,
    reader: &mut Reader<'_>,
    notes: &mut Vec<Note>,
) -> Made {
    let dc = making.datacenter();
    let (roots, leaf) = (reader.roots(), reader.leaf(&making.sidecar.destination.service));
    let central = making.central(reader);
    let found = reader.prepared_query(dc, query);
    if let Some(reason) = reader.trouble(&Topic::PreparedQuery { dc: dc.clone(), query: query.to_owned() }) {
        notes.push(making.note(
            format!("names a prepared query that cannot be executed ({reason})"),
            "create the query in that datacenter, or correct the upstream's DestinationName",
        ));
    }
    let (roots, _, central, found) = (roots?, leaf?, central?, found?);
    // A query may fail over to another datacenter. It knows no gateways: what it finds is dialled.
    let side = if found.datacenter == *making.local() { Side::Lan } else { Side::Wan };
    let members = match endpoints::of_instances(&found.instances, side, central.resolution, notes) {
        Ok(members) => members,
        Err(note) => return Some(Err(note)),
    };
    let domain = &roots.trust_domain;
    let mut sans: BTreeSet<String> =
        found.services.iter().map(|service| name::spiffe_id(service, &found.datacenter, domain)).collect();
    if sans.is_empty() {
        sans.insert(name::nobody(domain));
    }
    let cluster = name::query_sni(query, dc, domain);
    let protocol = making.protocol().unwrap_or_default();
    let manner = Manner {
        connect_timeout_ms: making.connect_timeout_ms().unwrap_or(CONNECT_TIMEOUT_MS),
        // Its name does not tell the protocol: an upstream over TCP and one over HTTP share it.
        http: HttpVersion::of(protocol).settled(),
        balance: None,
    };
    let made = cluster::upstream(&cluster, members.discovery(), manner, making.tls(&cluster, sans));
    let resources = [Resource::Cluster(made)].into_iter().chain(members.into_resource(&cluster)).collect();
    let stat_prefix = name::query_stat_prefix(making.id);
    let front = Front { stat_prefix: &stat_prefix, protocol, cluster: &cluster, timeout_ms: None };
    Some(Ok(making.parts(Parts { resources, ..Parts::default() }, &front)))
}
