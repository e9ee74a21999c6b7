//! Client status discovery: what every connected client was sent, took and refused, in the standard form (rule 47).
//! Names and versions only; contents are told to nobody but the client they are for.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use envoy_types::pb::{
    envoy::{
        admin::v3::{ClientResourceStatus, UpdateFailureState},
        config::core::v3::{Node, node::UserAgentVersionType},
        service::status::v3::{
            ClientConfig, ClientStatusRequest, ClientStatusResponse, ConfigStatus,
            client_config::GenericXdsConfig,
            client_status_discovery_service_server::{
                ClientStatusDiscoveryService, ClientStatusDiscoveryServiceServer, SERVICE_NAME,
            },
        },
        r#type::matcher::v3::{NodeMatcher, StringMatcher, string_matcher::MatchPattern},
    },
    google::protobuf::Timestamp,
};
use futures_util::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::xds::{
    resource::Kind,
    server::{MAX_RESPONSE_BYTES, StatusBoard, connection::Carrier},
    status::{Nack, ResourceState, ResourceStatus, StreamStatus, TypeStatus},
};

/// The service's name.
pub(super) const NAME: &str = SERVICE_NAME;

const MILLIS_PER_SECOND: u64 = 1_000;
const NANOS_PER_MILLI: i32 = 1_000_000;

/// The service of client status.
pub(super) fn service(board: StatusBoard) -> ClientStatusDiscoveryServiceServer<ClientStatus> {
    ClientStatusDiscoveryServiceServer::new(ClientStatus { board })
        .max_encoding_message_size(MAX_RESPONSE_BYTES)
}

/// Answers from the board.
pub(super) struct ClientStatus {
    board: StatusBoard,
}

#[tonic::async_trait]
impl ClientStatusDiscoveryService for ClientStatus {
    type StreamClientStatusStream = Pin<Box<dyn Stream<Item = Result<ClientStatusResponse, Status>> + Send>>;

    /// Each request is answered once.
    async fn stream_client_status(
        &self,
        request: Request<Streaming<ClientStatusRequest>>,
    ) -> Result<Response<Self::StreamClientStatusStream>, Status> {
        let carrier = request.extensions().get::<Carrier>().cloned();
        let board = self.board.clone();
        let answers =
            request.into_inner().map(move |asked| asked.map(|asked| report(&board.streams(), &asked)));
        let leaving = async move {
            match carrier {
                Some(carrier) => carrier.leave.wait().await,
                None => std::future::pending().await,
            }
        };
        Ok(Response::new(Box::pin(answers.take_until(leaving))))
    }

    async fn fetch_client_status(
        &self,
        request: Request<ClientStatusRequest>,
    ) -> Result<Response<ClientStatusResponse>, Status> {
        Ok(Response::new(report(&self.board.streams(), request.get_ref())))
    }
}

/// One client for each node, whatever the number of its streams.
fn report(streams: &[Arc<StreamStatus>], asked: &ClientStatusRequest) -> ClientStatusResponse {
    let mut clients: BTreeMap<&str, ClientConfig> = BTreeMap::new();
    for stream in streams.iter().filter(|stream| is_asked_for(&stream.proxy, &asked.node_matchers)) {
        let client = clients
            .entry(&stream.proxy)
            .or_insert_with(|| ClientConfig { node: Some(node(stream)), ..ClientConfig::default() });
        client.generic_xds_configs.extend(stream.types.iter().flat_map(resources));
    }
    ClientStatusResponse { config: clients.into_values().collect() }
}

/// Any of the matchers will do. One that looks at more than the id matches every node: too much is said rather than
/// too little.
fn is_asked_for(node_id: &str, matchers: &[NodeMatcher]) -> bool {
    matchers.is_empty() || matchers.iter().any(|matcher| matches(node_id, matcher.node_id.as_ref()))
}

fn matches(text: &str, matcher: Option<&StringMatcher>) -> bool {
    let Some((matcher, pattern)) = matcher.and_then(|m| m.match_pattern.as_ref().map(|p| (m, p))) else {
        return true;
    };
    let folded = |text: &str| if matcher.ignore_case { text.to_lowercase() } else { text.to_owned() };
    let text = folded(text);
    match pattern {
        MatchPattern::Exact(wanted) => text == folded(wanted),
        MatchPattern::Prefix(wanted) => text.starts_with(&folded(wanted)),
        MatchPattern::Suffix(wanted) => text.ends_with(&folded(wanted)),
        MatchPattern::Contains(wanted) => text.contains(&folded(wanted)),
        MatchPattern::SafeRegex(_) | MatchPattern::Custom(_) => true,
    }
}

fn node(stream: &StreamStatus) -> Node {
    Node {
        id: stream.proxy.clone(),
        user_agent_version_type: stream.envoy_version.clone().map(UserAgentVersionType::UserAgentVersion),
        ..Node::default()
    }
}

fn resources(of_type: &TypeStatus) -> impl Iterator<Item = GenericXdsConfig> {
    let kind = Kind::ALL.into_iter().find(|kind| kind.short() == of_type.kind);
    let type_url = kind.map_or_else(String::new, |kind| kind.type_url().to_owned());
    of_type.resources.iter().map(move |resource| GenericXdsConfig {
        type_url: type_url.clone(),
        name: resource.name.clone(),
        version_info: resource.sent.clone().unwrap_or_default(),
        last_updated: of_type.sent_at_ms.filter(|_| resource.sent.is_some()).map(timestamp),
        error_state: refusal(resource, of_type.last_nack.as_ref()),
        ..standing(resource.state)
    })
}

fn standing(state: ResourceState) -> GenericXdsConfig {
    let (config, client) = match state {
        ResourceState::Synced => (ConfigStatus::Synced, ClientResourceStatus::Acked),
        ResourceState::Sent => (ConfigStatus::Stale, ClientResourceStatus::Requested),
        ResourceState::Waiting => (ConfigStatus::NotSent, ClientResourceStatus::Requested),
        ResourceState::Rejected => (ConfigStatus::Error, ClientResourceStatus::Nacked),
        ResourceState::Absent => (ConfigStatus::NotSent, ClientResourceStatus::DoesNotExist),
    };
    GenericXdsConfig {
        config_status: config.into(),
        client_status: client.into(),
        ..GenericXdsConfig::default()
    }
}

/// The last refusal of the type, if it was about this resource.
fn refusal(resource: &ResourceStatus, nack: Option<&Nack>) -> Option<UpdateFailureState> {
    let nack = nack.filter(|nack| nack.resources.contains(&resource.name))?;
    Some(UpdateFailureState {
        last_update_attempt: Some(timestamp(nack.at_ms)),
        details: nack.message.clone(),
        version_info: resource.intended.clone().unwrap_or_default(),
        ..UpdateFailureState::default()
    })
}

fn timestamp(ms: u64) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(ms / MILLIS_PER_SECOND).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % MILLIS_PER_SECOND).unwrap_or_default() * NANOS_PER_MILLI,
    }
}
