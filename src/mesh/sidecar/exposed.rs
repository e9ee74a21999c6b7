//! Exposed paths: a plain listener for one path of the application, which asks for no certificate and no intention.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::{
    mesh::{
        built::{Made, Parts},
        listener, name,
        reader::Reader,
        sidecar::{Sidecar, public},
    },
    model::{
        note::Note,
        registration::{ExposedId, ExposedPath},
    },
    xds::resource::{
        Resource,
        address::Address,
        cluster::HttpVersion,
        listener::{Direction, FilterChain, Listener},
    },
};

/// The id of a path's unit.
pub(super) fn id(path: &ExposedId) -> String {
    format!("{}:{}", path.path, path.listener_port)
}

pub(super) fn build(
    sidecar: &Sidecar<'_>,
    path: &ExposedPath,
    taken: &mut BTreeSet<Address>,
    reader: &mut Reader<'_>,
) -> Made {
    let settings = sidecar.settings(reader)?;
    let address = SocketAddr::new(public::bind_ip(&settings, sidecar.registration), path.id.listener_port);
    if !taken.insert(address.into()) {
        return Some(Err(clash(sidecar, path, address)));
    }
    // Consul's form: the port of the service itself leads through its own cluster.
    let (cluster, mut resources) = if public::is_local_port(sidecar, path.local_port) {
        (name::LOCAL_APP.to_owned(), Vec::new())
    } else {
        let name = name::exposed_cluster(path.local_port);
        let http = HttpVersion::of(path.protocol);
        match public::application(sidecar, &settings, &name, Some(path.local_port), http) {
            Ok(cluster) => (name, vec![cluster]),
            Err(note) => return Some(Err(note)),
        }
    };
    resources.push(serve(path, address, &cluster));
    Some(Ok(Parts { resources, ..Parts::default() }))
}

fn serve(path: &ExposedPath, address: SocketAddr, cluster: &str) -> Resource {
    let filter = name::exposed_filter(&path.id);
    Resource::Listener(Listener {
        name: name::exposed_listener(&path.id, address),
        stat_prefix: None,
        address: address.into(),
        direction: Direction::Inbound,
        tls_inspector: false,
        exact_balance: false,
        chains: vec![FilterChain {
            name: filter.clone(),
            server_names: BTreeSet::new(),
            tls: None,
            filters: vec![listener::exposed(path.protocol, &filter, &path.id.path, cluster)],
        }],
    })
}

/// The note on a path that is written again with the same port.
pub(super) fn twice(sidecar: &Sidecar<'_>, path: &ExposedId) -> Note {
    sidecar.note(
        &format!("exposed path {}", path.path),
        format!("is written more than once for the port {}; the first one counts", path.listener_port),
        "remove the others",
    )
}

fn clash(sidecar: &Sidecar<'_>, path: &ExposedPath, address: SocketAddr) -> Note {
    sidecar.note(
        &format!("exposed path {}", path.id.path),
        format!("listens on {address}, which another listener of this proxy has"),
        "give it a ListenerPort of its own",
    )
}
