//! HTTP connection managers and their routes.

use super::*;

fn manager(filters: Vec<HttpFilter>, routes: Routes) -> HttpManager {
    HttpManager {
        stat_prefix: "h".into(),
        http2: false,
        routes,
        filters,
        forward_client_cert: false,
        tracing: None,
    }
}

#[test]
fn a_connection_manager_ends_in_the_router() {
    let route = RouteConfig {
        name: "r".into(),
        path: None,
        cluster: "c".into(),
        timeout_ms: Some(1_500),
        idle_timeout_ms: None,
    };
    let routes = Routes::Inline(route.clone());
    let http = HttpManager { forward_client_cert: true, ..manager(Vec::new(), routes) };
    let message: HttpConnectionManager = filter(NetworkFilter::Http(http));
    assert_eq!(message.http_filters.len(), 1);
    assert_eq!(message.http_filters[0].name, "envoy.filters.http.router");
    assert_eq!(
        message.route_specifier,
        Some(hcm::RouteSpecifier::RouteConfig(crate::xds::encode::route::message(&route)))
    );
    assert_eq!(message.upgrade_configs[0].upgrade_type, "websocket");
    assert_eq!(message.forward_client_cert_details(), hcm::ForwardClientCertDetails::AppendForward);
    let details = message.set_current_client_cert_details.unwrap();
    assert!(details.uri && details.dns && !details.cert && !details.chain);
}

#[test]
fn grpc_is_not_upgraded_and_rds_goes_over_ads() {
    let filters = vec![HttpFilter::GrpcStats, HttpFilter::GrpcHttp1Bridge];
    let http = HttpManager { http2: true, ..manager(filters, Routes::Rds("r".into())) };
    let message: HttpConnectionManager = filter(NetworkFilter::Http(http));
    let names: Vec<_> = message.http_filters.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "envoy.filters.http.grpc_stats",
            "envoy.filters.http.grpc_http1_bridge",
            "envoy.filters.http.router"
        ]
    );
    assert_eq!(message.codec_type(), hcm::CodecType::Auto, "HTTP/1.1 is bridged, not refused");
    assert!(message.upgrade_configs.is_empty() && message.set_current_client_cert_details.is_none());
    let Some(hcm::RouteSpecifier::Rds(rds)) = message.route_specifier else { panic!("not RDS") };
    assert_eq!(
        (rds.route_config_name.as_str(), rds.config_source),
        ("r", Some(value::config_source(&Source::Ads)))
    );
}

#[test]
fn a_route_without_a_timeout_has_none() {
    let route = Resource::Route(RouteConfig {
        name: "r".into(),
        path: None,
        cluster: "c".into(),
        timeout_ms: None,
        idle_timeout_ms: None,
    });
    let message: RouteConfiguration = opened(&encode(&route));
    let host = &message.virtual_hosts[0];
    assert_eq!(host.domains, ["*"]);
    let envoy_types::pb::envoy::config::route::v3::route::Action::Route(action) =
        host.routes[0].action.clone().unwrap()
    else {
        panic!("not a route")
    };
    assert_eq!(action.timeout, Some(Duration::default()));
}
