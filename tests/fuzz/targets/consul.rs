//! What Consul answers.

use causeway::{
    consul::{census::Census, wire},
    model::{
        filter::Filter,
        instance::ServiceKind,
        name::{Datacenter, ServiceName},
        session::SessionId,
    },
    xds::resource::custom::{CustomCluster, CustomKind, CustomListener, CustomMessage},
};

/// Every answer is read by all decoders: what one of them takes for its own, the others must refuse.
pub(super) fn answers(bytes: &[u8]) {
    let service = ServiceName::from("web");
    let _ = wire::agent::agent(bytes, std::str::from_utf8(bytes).ok());
    let _ = wire::ca::roots(bytes);
    let _ = wire::ca::leaf(bytes, &service);
    let _ = wire::chain::chain(bytes);
    let _ = wire::defaults::defaults(bytes);
    let _ = wire::exported::exported_services(bytes);
    let _ = wire::instance::instances(bytes);
    let _ = wire::instance::federation_states(bytes);
    let _ = wire::intention::intentions(bytes);
    let _ = wire::intention::intention_entries(bytes);
    let _ = wire::mesh::mesh(bytes);
    let _ = wire::query::result(bytes, &Datacenter::from("dc1"));
    let _ = wire::registration::registration(bytes);
    let _ = wire::resolver::resolvers(bytes);
    let _ = wire::services::services(bytes, Some(ServiceKind::MeshGateway));
    let _ = wire::services::datacenters(bytes);
    let _ = wire::session::created(bytes);
    let _ = wire::session::is_about(bytes, &SessionId::from("s"));
    let _ = Census::read(bytes);
}

/// A list in one piece and in two is the same list.
pub(super) fn pairs(bytes: &[u8]) {
    let _ = wire::kv::only(bytes);
    let _ = wire::kv::committed(bytes);
    let _ = wire::kv::rolled_back(bytes);
    let _ = std::str::from_utf8(bytes).map(wire::kv::most_verbs);
    let read = |pieces: &[&[u8]]| {
        let mut list = wire::kv::Pairs::of("");
        let pages = pieces.iter().map(|piece| list.page(piece)).collect::<Result<Vec<_>, _>>();
        let pages = pages.ok()?.concat();
        list.end().ok().map(|count| (count, pages))
    };
    let whole = read(&[bytes]);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    assert!(read(&[first, second]) == whole, "in two pieces it is another list");
    assert!(whole.is_none_or(|(count, pairs)| count == pairs.len() as u64));
}

/// The filter, and behind a line feed the entry that it is held against.
pub(super) fn filter(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (filter, entry) = text.split_once('\n').unwrap_or((&text, "{}"));
    let Ok(filter) = Filter::parse(filter) else { return };
    let Ok(entry) = serde_json::from_str(entry) else { return };
    assert_eq!(filter.matches(&entry), filter.matches(&entry));
}

/// What a user may write into Consul as Envoy's JSON; its canonical form is its own canonical form.
pub(super) fn escape_hatch(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(cluster) = CustomCluster::parse(&text, None) {
        let again = CustomCluster::parse(&cluster.message.json().to_string(), None);
        assert_eq!(again.as_ref(), Ok(&cluster));
        let _ = cluster.endpoints_name();
    }
    if let Ok(listener) = CustomListener::parse(&text, None) {
        let again = CustomListener::parse(&listener.message.json().to_string(), None);
        assert_eq!(again.as_ref(), Ok(&listener));
        let _ = listener.addresses().count();
    }
    for kind in [CustomKind::Tracing, CustomKind::Tracer, CustomKind::StatsConfig, CustomKind::StatsSink] {
        let _ = CustomMessage::parse(kind, &text);
    }
}
