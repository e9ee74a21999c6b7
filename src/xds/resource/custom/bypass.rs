//! Ways past the decision by intentions that a listener of a user's may hold: routes that switch it off, and routes
//! that come from elsewhere, so that nobody can see whether they do.

use serde_json::Value;

use crate::xds::resource::{custom::Refused, filter::RBAC_HTTP_FILTER};

const HTTP_MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// Refuses a listener that holds such a way, however deep; `json` is in canonical form.
pub(super) fn refuse(json: &Value) -> Result<(), Refused> {
    match json {
        Value::Array(items) => items.iter().try_for_each(refuse),
        Value::Object(fields) => {
            if fields
                .get("typed_per_filter_config")
                .is_some_and(|by_filter| by_filter.get(RBAC_HTTP_FILTER).is_some())
            {
                return Err(Refused::new(
                    format!(
                        "sets {RBAC_HTTP_FILTER} under typed_per_filter_config, which would overrule the intentions"
                    ),
                    "remove that key, and allow or deny by intentions",
                ));
            }
            if fields.get("@type").is_some_and(|kind| kind == HTTP_MANAGER) {
                foreign_routes(json)?;
            }
            fields.values().try_for_each(refuse)
        }
        _ => Ok(()),
    }
}

/// Refuses routes that a connection manager fetches.
fn foreign_routes(manager: &Value) -> Result<(), Refused> {
    let places = ["/rds", "/scoped_routes", "/route_config/vhds"];
    match places.into_iter().find(|place| manager.pointer(place).is_some()) {
        None => Ok(()),
        Some(place) => Err(Refused::new(
            format!("fetches its routes ({}), which could overrule the intentions unseen", &place[1..]),
            "write its routes under route_config",
        )),
    }
}
