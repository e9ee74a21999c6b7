//! A proxy's intended resources as the JSON that Envoy reads. Pure.

use anyhow::{Context, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use crate::{
    api::wire::{IntendedResource, ProxyConfig},
    xds::json,
};

/// A type of resource, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum TypeName {
    All,
    Sds,
    Cds,
    Eds,
    Lds,
    Rds,
}

impl TypeName {
    const EACH: [(Self, &'static str, &'static str); 5] = [
        (Self::Sds, "SDS", "secrets"),
        (Self::Cds, "CDS", "clusters"),
        (Self::Eds, "EDS", "endpoints"),
        (Self::Lds, "LDS", "listeners"),
        (Self::Rds, "RDS", "routes"),
    ];
}

/// Which resources are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) kind: TypeName,
    pub(super) name: Option<String>,
}

/// `{"proxy": id, "resources": {"clusters": [{"name", "version", "resource"}], ...}}`: every type that is selected,
/// also when the proxy has none of it. A name that nothing has is an error.
pub(super) fn document(config: &ProxyConfig, selection: &Selection) -> anyhow::Result<Value> {
    let mut resources = Map::new();
    let mut others = Vec::new();
    let mut is_found = false;
    for (kind, short, group) in TypeName::EACH {
        if selection.kind != TypeName::All && selection.kind != kind {
            continue;
        }
        let (shown, hidden): (Vec<_>, Vec<_>) = config
            .resources
            .iter()
            .filter(|resource| resource.kind == short)
            .partition(|resource| selection.name.as_ref().is_none_or(|name| resource.name == *name));
        is_found |= !shown.is_empty();
        others.extend(hidden.into_iter().map(|resource| resource.name.clone()));
        let shown: Vec<_> = shown.into_iter().map(render).collect::<anyhow::Result<_>>()?;
        resources.insert(group.to_owned(), Value::Array(shown));
    }
    if let Some(name) = selection.name.as_ref().filter(|_| !is_found) {
        bail!("{} has no resource named `{name}`; {}", config.proxy, known(&others, "names it has"));
    }
    Ok(json!({"proxy": config.proxy, "resources": resources}))
}

fn render(resource: &IntendedResource) -> anyhow::Result<Value> {
    let about = || format!("show {} {}", resource.kind, resource.name);
    let bytes = BASE64_STANDARD.decode(&resource.value).with_context(about)?;
    let mut json = Map::from_iter([("@type".to_owned(), json!(resource.type_url))]);
    if let Value::Object(fields) = json::to_json(&resource.type_url, &bytes).with_context(about)? {
        json.extend(fields);
    }
    Ok(json!({"name": resource.name, "version": resource.version, "resource": json}))
}

/// `what: a, b, c`, or that there is none.
pub(super) fn known(names: &[String], what: &str) -> String {
    let mut names: Vec<_> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() { format!("{what}: none") } else { format!("{what}: {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::{
        config::{
            cluster::v3::Cluster,
            core::v3::{DataSource, data_source::Specifier},
        },
        extensions::transport_sockets::tls::v3::{Secret, TlsCertificate, secret},
    };
    use prost::Message;

    use super::*;

    fn resource(kind: &str, name: &str, type_url: &str, message: &impl Message) -> IntendedResource {
        IntendedResource {
            kind: kind.into(),
            name: name.into(),
            version: "v1".into(),
            type_url: format!("type.googleapis.com/{type_url}"),
            value: BASE64_STANDARD.encode(message.encode_to_vec()),
        }
    }

    fn config() -> ProxyConfig {
        let cluster = |name: &str| {
            let message = Cluster { name: name.into(), ..Cluster::default() };
            resource("CDS", name, "envoy.config.cluster.v3.Cluster", &message)
        };
        let key = DataSource {
            specifier: Some(Specifier::InlineString("[redacted]".into())),
            ..DataSource::default()
        };
        let leaf = Secret {
            name: "leaf".into(),
            r#type: Some(secret::Type::TlsCertificate(TlsCertificate {
                private_key: Some(key),
                ..TlsCertificate::default()
            })),
        };
        let leaf = resource("SDS", "leaf", "envoy.extensions.transport_sockets.tls.v3.Secret", &leaf);
        ProxyConfig { proxy: "web".into(), resources: vec![leaf, cluster("a"), cluster("b")] }
    }

    fn select(kind: TypeName, name: Option<&str>) -> anyhow::Result<Value> {
        document(&config(), &Selection { kind, name: name.map(Into::into) })
    }

    #[test]
    fn all_types_are_shown_with_names_and_versions() {
        let cluster = |name: &str| {
            json!({"name": name, "version": "v1", "resource": {
                "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": name}})
        };
        let leaf = json!({"name": "leaf", "version": "v1", "resource": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": "leaf", "tls_certificate": {"private_key": {"inline_string": "[redacted]"}}}});
        let expected = json!({"proxy": "web", "resources": {
            "secrets": [leaf], "clusters": [cluster("a"), cluster("b")],
            "endpoints": [], "listeners": [], "routes": []}});
        assert_eq!(select(TypeName::All, None).unwrap(), expected);
    }

    #[test]
    fn one_type_and_one_name_can_be_selected() {
        let json = select(TypeName::Cds, Some("b")).unwrap();
        assert_eq!(json["resources"].as_object().unwrap().keys().collect::<Vec<_>>(), ["clusters"]);
        assert_eq!(json["resources"]["clusters"][0]["name"], "b");
        assert_eq!(json["resources"]["clusters"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_name_that_nothing_has_is_an_error_that_lists_the_names() {
        let error = select(TypeName::Cds, Some("c")).unwrap_err().to_string();
        assert_eq!(error, "web has no resource named `c`; names it has: a, b");
    }

    #[test]
    fn a_broken_resource_is_named() {
        let mut config = config();
        config.resources[1].value = "%%%".into();
        let error = document(&config, &Selection { kind: TypeName::All, name: None }).unwrap_err();
        assert_eq!(error.to_string(), "show CDS a");
    }
}
