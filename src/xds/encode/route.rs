//! Route configurations.

use envoy_types::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route::Action,
    route_action::ClusterSpecifier, route_match::PathSpecifier,
};

use crate::xds::{encode::value::millis, resource::route::RouteConfig};

pub(super) fn message(route: &RouteConfig) -> RouteConfiguration {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(route.cluster.clone())),
        // Zero means no limit; unset would mean 15 seconds.
        timeout: Some(millis(route.timeout_ms.unwrap_or(0))),
        idle_timeout: route.idle_timeout_ms.map(millis),
        ..RouteAction::default()
    };
    let path = match &route.path {
        Some(path) => PathSpecifier::Path(path.clone()),
        None => PathSpecifier::Prefix("/".to_owned()),
    };
    let matching = RouteMatch { path_specifier: Some(path), ..RouteMatch::default() };
    let every_domain = VirtualHost {
        name: route.name.clone(),
        domains: vec!["*".to_owned()],
        routes: vec![Route {
            r#match: Some(matching),
            action: Some(Action::Route(action)),
            ..Route::default()
        }],
        ..VirtualHost::default()
    };
    RouteConfiguration {
        name: route.name.clone(),
        virtual_hosts: vec![every_domain],
        ..RouteConfiguration::default()
    }
}
