//! What can be selected of a health entry, as data: the fields of Consul's `CheckServiceNode` that its filters know.
//! Those of 1.8.7 were read from a real one; the others, marked with the version that has them first, from the
//! sources of Consul 1.17.

/// A field's type, which says how it is walked and which operators it takes.
#[derive(Debug)]
pub(super) enum Field {
    /// A text: `==`, `in` as a part of it, `matches`.
    Text,
    /// A whole number: `==`.
    Whole,
    /// True or false: `==`.
    Flag,
    /// A list of texts: `in`, `is empty`.
    Texts,
    /// Values by name: `in` among the names, `is empty`, and each value by its name.
    Map(&'static Self),
    /// Parts by name; takes no operator itself.
    Parts(Fields),
    /// A list of things with parts: `is empty`. A selector into it holds if it holds for any of them.
    List(Fields),
}

/// Fields by name.
pub(super) type Fields = &'static [(&'static str, Field)];

/// A health entry.
pub(super) const ENTRY: Field =
    Parts(&[("Node", Parts(NODE)), ("Service", Parts(SERVICE)), ("Checks", List(CHECK))]);

use Field::{Flag, List, Map, Parts, Text, Texts, Whole};

const NODE: Fields = &[
    ("ID", Text),
    ("Node", Text),
    ("Address", Text),
    ("Datacenter", Text),
    ("TaggedAddresses", Map(&Text)),
    ("Meta", Map(&Text)),
    ("Partition", Text), // 1.11
    ("PeerName", Text),  // 1.13
];

const SERVICE: Fields = &[
    ("Kind", Text),
    ("ID", Text),
    ("Service", Text),
    ("Tags", Texts),
    ("Address", Text),
    ("TaggedAddresses", Map(&Parts(ADDRESS))),
    ("Meta", Map(&Text)),
    ("Port", Whole),
    ("Weights", Parts(&[("Passing", Whole), ("Warning", Whole)])),
    ("EnableTagOverride", Flag),
    ("Proxy", Parts(PROXY)),
    ("Connect", Parts(&[("Native", Flag)])),
    ("SocketPath", Text),                                                   // 1.10
    ("PeerName", Text),                                                     // 1.13
    ("Ports", List(&[("Name", Text), ("Port", Whole), ("Default", Flag)])), // 1.22, from its documentation
];

const ADDRESS: Fields = &[("Address", Text), ("Port", Whole)];

const PROXY: Fields = &[
    ("DestinationServiceName", Text),
    ("DestinationServiceID", Text),
    ("LocalServiceAddress", Text),
    ("LocalServicePort", Whole),
    ("Upstreams", List(UPSTREAM)),
    ("MeshGateway", Parts(MESH_GATEWAY)),
    ("Expose", Parts(&[("Checks", Flag), ("Paths", List(EXPOSED_PATH))])),
    ("Mode", Text), // 1.10
    ("TransparentProxy", Parts(&[("OutboundListenerPort", Whole), ("DialedDirectly", Flag)])), // 1.10
    ("LocalServiceSocketPath", Text), // 1.10
    ("AccessLogs", Parts(ACCESS_LOGS)), // 1.15
    ("EnvoyExtensions", List(EXTENSION)), // 1.15
];

const MESH_GATEWAY: Fields = &[("Mode", Text)];

const UPSTREAM: Fields = &[
    ("DestinationType", Text),
    ("DestinationNamespace", Text),
    ("DestinationName", Text),
    ("Datacenter", Text),
    ("LocalBindAddress", Text),
    ("LocalBindPort", Whole),
    ("MeshGateway", Parts(MESH_GATEWAY)),
    ("LocalBindSocketPath", Text),  // 1.10
    ("LocalBindSocketMode", Text),  // 1.10
    ("DestinationPartition", Text), // 1.11
    ("DestinationPeer", Text),      // 1.13
];

const EXPOSED_PATH: Fields = &[
    ("ListenerPort", Whole),
    ("Path", Text),
    ("LocalPathPort", Whole),
    ("Protocol", Text),
    ("ParsedFromCheck", Flag),
];

const ACCESS_LOGS: Fields = &[
    ("Enabled", Flag),
    ("DisableListenerLogs", Flag),
    ("Type", Text),
    ("Path", Text),
    ("JSONFormat", Text),
    ("TextFormat", Text),
];

const EXTENSION: Fields =
    &[("Name", Text), ("Required", Flag), ("ConsulVersion", Text), ("EnvoyVersion", Text)];

const CHECK: Fields = &[
    ("Node", Text),
    ("CheckID", Text),
    ("Name", Text),
    ("Status", Text),
    ("Notes", Text),
    ("Output", Text),
    ("ServiceID", Text),
    ("ServiceName", Text),
    ("ServiceTags", Texts),
    ("Type", Text),
    ("Interval", Text),     // 1.10
    ("Timeout", Text),      // 1.10
    ("ExposedPort", Whole), // 1.10
    ("PeerName", Text),     // 1.13
];

impl Field {
    /// The field under `name`, if a selector can go on there.
    pub(super) fn part(&self, name: &str) -> Option<&'static Self> {
        match self {
            Parts(fields) | List(fields) => {
                fields.iter().find(|(known, _)| *known == name).map(|(_, field)| field)
            }
            Map(value) => Some(value),
            Text | Whole | Flag | Texts => None,
        }
    }

    /// The names of the parts, for messages.
    pub(super) fn names(&self) -> Vec<&'static str> {
        match self {
            Parts(fields) | List(fields) => fields.iter().map(|(name, _)| *name).collect(),
            Text | Whole | Flag | Texts | Map(_) => Vec::new(),
        }
    }

    /// The operators that it takes, for messages.
    pub(super) fn operators(&self) -> &'static str {
        match self {
            Text => "==, !=, contains, in and matches",
            Whole | Flag => "== and !=",
            Texts | Map(_) => "contains, in and is empty",
            List(_) => "is empty",
            Parts(_) => "no operator, only its parts do",
        }
    }
}
