//! What a certificate is for: the profiles of `tls/profiles.toml`, the names they give, and recognising them.

use std::{collections::BTreeSet, net::IpAddr, sync::LazyLock};

use serde::{Deserialize, Serialize};

use crate::tls::x509::certificate::{Certificate, Usage};

const TABLE: &str = include_str!("../../../tls/profiles.toml");

static PROFILES: LazyLock<Vec<Profile>> = LazyLock::new(|| {
    let table: Table = toml::from_str(TABLE).expect("tls/profiles.toml is read by a test of this file");
    table.profile
});

/// One kind of certificate. `tls/profiles.toml` says what each field means.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// `server`, `client`, `cli`, `agent`.
    pub name: String,
    /// Who it belongs to.
    pub holder: String,
    names: Vec<String>,
    /// Whether peers look for its names.
    #[serde(default)]
    pub verified: bool,
    node_names: Vec<String>,
    extra: Vec<String>,
    /// Purposes that it must have.
    pub usages: BTreeSet<Usage>,
    /// Purposes that are issued as well.
    #[serde(default)]
    pub more_usages: BTreeSet<Usage>,
    /// For how many days it is issued.
    pub days: u64,
    /// What to say whenever one is made.
    #[serde(default)]
    pub caution: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    profile: Vec<Profile>,
}

/// Where in a cluster a certificate belongs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The datacenter.
    pub datacenter: String,
    /// Consul's domain.
    pub domain: String,
    /// The node, where the certificate names one.
    pub node: Option<String>,
}

/// The names that go into a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// DNS names; the first is the common name.
    pub dns: Vec<String>,
    /// IP addresses.
    pub addresses: Vec<IpAddr>,
}

/// Every profile, in the order of the table.
pub fn all() -> &'static [Profile] {
    &PROFILES
}

/// The profile of that name.
pub fn named(name: &str) -> Option<&'static Profile> {
    all().iter().find(|profile| profile.name == name)
}

impl Profile {
    /// Whether a node's name goes into it.
    pub fn takes_node(&self) -> bool {
        !self.node_names.is_empty()
    }

    /// The names that tell what it is for.
    pub fn required(&self, place: &Place) -> Vec<String> {
        self.names.iter().map(|pattern| fill(pattern, place)).collect()
    }

    /// The names of its node; none where the place has no node.
    pub fn of_node(&self, place: &Place) -> Vec<String> {
        if place.node.is_none() {
            return Vec::new();
        }
        self.node_names.iter().map(|pattern| fill(pattern, place)).collect()
    }

    /// All names that are issued.
    pub fn issued(&self, place: &Place) -> Names {
        let mut names = Names { dns: self.required(place), addresses: Vec::new() };
        names.dns.extend(self.of_node(place));
        for extra in &self.extra {
            match extra.parse() {
                Ok(address) => names.addresses.push(address),
                Err(_) => names.dns.push(extra.clone()),
            }
        }
        names
    }

    /// The beginning of file names: `dc1-server-consul`.
    pub fn file_stem(&self, place: &Place) -> String {
        format!("{}-{}-{}", place.datacenter, self.name, place.domain)
    }

    /// The place that the certificate's names tell of, if all required names are there.
    fn place_by_names(&self, certificate: &Certificate) -> Option<Place> {
        let first = self.names.first()?;
        let places = certificate.dns.iter().filter_map(|name| read(first, name));
        let mut place = places.into_iter().find(|place| {
            self.required(place)
                .iter()
                .all(|name| certificate.dns.iter().any(|own| own.eq_ignore_ascii_case(name)))
        })?;
        place.node = self.node_names.iter().find_map(|pattern| {
            let found = certificate.dns.iter().filter_map(|name| read(pattern, name));
            found.into_iter().find(|of| of.datacenter == place.datacenter && of.domain == place.domain)?.node
        });
        Some(place)
    }

    /// The place that a file of `consul tls` is named for: `dc1-server-consul-0.pem`.
    fn place_by_file(&self, file: &str) -> Option<Place> {
        let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
        let (rest, number) = stem.rsplit_once('-')?;
        number.parse::<u32>().ok()?;
        let (datacenter, domain) = rest.split_once(&format!("-{}-", self.name))?;
        let is_name = |text: &str| !text.is_empty() && !text.contains('/');
        (is_name(datacenter) && is_name(domain)).then(|| Place {
            datacenter: datacenter.to_owned(),
            domain: domain.to_owned(),
            node: None,
        })
    }
}

/// What a certificate is for. A file named as `consul tls` names them (`file` is without folder) says what it should
/// be, whatever its names say; any other file is what its names say.
pub fn recognise(certificate: &Certificate, file: &str) -> Option<(&'static Profile, Place)> {
    if certificate.is_authority() {
        return None;
    }
    let claimed = all().iter().find_map(|profile| Some((profile, profile.place_by_file(file)?)));
    if let Some((profile, claim)) = claimed {
        let is_claim =
            |place: &Place| (&place.datacenter, &place.domain) == (&claim.datacenter, &claim.domain);
        let place = profile.place_by_names(certificate).filter(is_claim);
        return Some((profile, place.unwrap_or(claim)));
    }
    all().iter().find_map(|profile| Some((profile, profile.place_by_names(certificate)?)))
}

fn fill(pattern: &str, place: &Place) -> String {
    let node = place.node.as_deref().unwrap_or_default();
    pattern.replace("{node}", node).replace("{dc}", &place.datacenter).replace("{domain}", &place.domain)
}

/// Reads a name by a pattern: each part of the pattern is one label, the domain is all that is left.
fn read(pattern: &str, name: &str) -> Option<Place> {
    let mut place = Place { datacenter: String::new(), domain: String::new(), node: None };
    let mut rest = name;
    for part in pattern.split('.') {
        if part == "{domain}" {
            place.domain = rest.to_owned();
            rest = "";
            break;
        }
        let (label, after) = rest.split_once('.')?;
        match part {
            "{dc}" => place.datacenter = label.to_owned(),
            "{node}" => place.node = Some(label.to_owned()),
            fixed if fixed.eq_ignore_ascii_case(label) => {}
            _ => return None,
        }
        rest = after;
    }
    (rest.is_empty() && !place.domain.is_empty() && !place.datacenter.is_empty()).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(node: Option<&str>) -> Place {
        Place { datacenter: "dc1".into(), domain: "consul".into(), node: node.map(Into::into) }
    }

    #[test]
    fn the_table_is_read_and_whole() {
        let names: Vec<&str> = all().iter().map(|profile| profile.name.as_str()).collect();
        assert_eq!(names, ["server", "client", "cli", "agent"]);
        for profile in all() {
            assert!(
                !profile.usages.is_empty() && profile.days > 0 && !profile.names.is_empty(),
                "{profile:?}"
            );
            let filled = profile.issued(&place(Some("n1"))).dns;
            assert!(filled.iter().all(|name| !name.contains('{') && !name.is_empty()), "{filled:?}");
        }
        let guide = include_str!("../../../tls/README.md");
        for profile in all() {
            assert!(
                guide.contains(&format!("`--{}`", profile.name)),
                "the guide is silent on {}",
                profile.name
            );
        }
    }

    #[test]
    fn a_server_has_the_names_that_consul_looks_for() {
        let server = named("server").unwrap();
        let names = server.issued(&place(Some("n1")));
        assert_eq!(names.dns, ["server.dc1.consul", "n1.server.dc1.consul", "localhost"]);
        assert_eq!(names.addresses, [IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(server.issued(&place(None)).dns, ["server.dc1.consul", "localhost"]);
        assert_eq!(server.file_stem(&place(None)), "dc1-server-consul");
    }

    #[test]
    fn names_tell_the_place_back() {
        assert_eq!(read("server.{dc}.{domain}", "server.dc1.consul"), Some(place(None)));
        assert_eq!(read("{node}.server.{dc}.{domain}", "n1.SERVER.dc1.consul"), Some(place(Some("n1"))));
        let deep = read("server.{dc}.{domain}", "server.dc1.consul.example").unwrap();
        assert_eq!(deep.domain, "consul.example");
        for wrong in ["server.dc1", "server", "client.dc1.consul", "server..consul", ""] {
            assert_eq!(read("server.{dc}.{domain}", wrong), None, "{wrong}");
        }
    }

    #[test]
    fn file_names_of_consul_tell_the_place_too() {
        let server = named("server").unwrap();
        assert_eq!(server.place_by_file("dc1-server-consul-0.pem"), Some(place(None)));
        let dashed = server.place_by_file("us-east-server-consul-12.pem").unwrap();
        assert_eq!(dashed.datacenter, "us-east");
        for other in
            ["dc1-client-consul-0.pem", "server.pem", "dc1-server-consul.pem", "-server-consul-0.pem"]
        {
            assert_eq!(server.place_by_file(other), None, "{other}");
        }
    }
}
