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
        ..RouteAction::default()
    };
    let every_path =
        RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..RouteMatch::default() };
    let every_domain = VirtualHost {
        name: route.name.clone(),
        domains: vec!["*".to_owned()],
        routes: vec![Route {
            r#match: Some(every_path),
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
