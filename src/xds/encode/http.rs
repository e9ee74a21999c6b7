//! HTTP connection managers and HTTP filters.

use envoy_types::{
    pb::{
        envoy::extensions::filters::{
            http::{
                grpc_http1_bridge::v3::Config as GrpcHttp1Bridge,
                grpc_stats::v3::{FilterConfig as GrpcStats, filter_config::PerMethodStatSpecifier},
                router::v3::Router,
            },
            network::http_connection_manager::v3::{
                HttpConnectionManager, HttpFilter as FilterMessage, Rds,
                http_connection_manager::{
                    CodecType, ForwardClientCertDetails, RouteSpecifier, SetCurrentClientCertDetails,
                    UpgradeConfig,
                },
                http_filter::ConfigType,
            },
        },
        google::protobuf::Any,
    },
    util::pack_any,
};

use crate::xds::{
    encode::{
        Source, custom, rbac, route,
        value::{config_source, yes},
    },
    resource::filter::{HttpFilter, HttpManager, RBAC_HTTP_FILTER, Routes},
};

pub(super) fn manager(manager: &HttpManager, source: &Source) -> HttpConnectionManager {
    let mut message = HttpConnectionManager {
        stat_prefix: manager.stat_prefix.clone(),
        // By the first bytes, whatever the other side speaks: callers of an HTTP/2 service may still come over HTTP/1.1,
        // as they may with Consul's own xDS.
        codec_type: CodecType::Auto.into(),
        route_specifier: Some(routes(&manager.routes, source)),
        http_filters: manager.filters.iter().map(filter).chain([router()]).collect(),
        upgrade_configs: websocket(manager).into_iter().collect(),
        tracing: manager.tracing.as_ref().map(custom::tracing),
        ..HttpConnectionManager::default()
    };
    if manager.forward_client_cert {
        message.forward_client_cert_details = ForwardClientCertDetails::AppendForward.into();
        // The whole certificate is left out: it would add kilobytes to every request.
        message.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
            subject: Some(yes()),
            dns: true,
            uri: true,
            ..SetCurrentClientCertDetails::default()
        });
    }
    message
}

fn routes(routes: &Routes, source: &Source) -> RouteSpecifier {
    match routes {
        Routes::Inline(config) => RouteSpecifier::RouteConfig(route::message(config)),
        Routes::Rds(name) => RouteSpecifier::Rds(Rds {
            config_source: Some(config_source(source)),
            route_config_name: name.clone(),
        }),
    }
}

/// gRPC never upgrades.
fn websocket(manager: &HttpManager) -> Option<UpgradeConfig> {
    let grpc = |filter: &HttpFilter| matches!(filter, HttpFilter::GrpcStats | HttpFilter::GrpcHttp1Bridge);
    (!manager.filters.iter().any(grpc))
        .then(|| UpgradeConfig { upgrade_type: "websocket".to_owned(), ..UpgradeConfig::default() })
}

pub(super) fn filter(filter: &HttpFilter) -> FilterMessage {
    match filter {
        HttpFilter::Rbac(rbac) => named(RBAC_HTTP_FILTER, pack_any(rbac::http(rbac))),
        HttpFilter::GrpcStats => named("envoy.filters.http.grpc_stats", pack_any(grpc_stats())),
        HttpFilter::GrpcHttp1Bridge => {
            named("envoy.filters.http.grpc_http1_bridge", pack_any(GrpcHttp1Bridge::default()))
        }
    }
}

fn grpc_stats() -> GrpcStats {
    GrpcStats {
        per_method_stat_specifier: Some(PerMethodStatSpecifier::StatsForAllMethods(yes())),
        ..GrpcStats::default()
    }
}

fn router() -> FilterMessage {
    named("envoy.filters.http.router", pack_any(Router::default()))
}

fn named(name: &str, config: Any) -> FilterMessage {
    FilterMessage {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(config)),
        ..FilterMessage::default()
    }
}
