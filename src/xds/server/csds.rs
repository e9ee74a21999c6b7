//! Client status discovery: what every connected client was sent, took and refused, in the standard form (rule 47).
//! Names and versions only; contents are told to nobody but the client they are for.

use std::{collections::BTreeMap, pin::Pin};

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
        let answers = request.into_inner().map(move |asked| asked.map(|asked| report(&board, &asked)));
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
        Ok(Response::new(report(&self.board, request.get_ref())))
    }
}

/// One client for each node, whatever the number of its streams.
fn report(board: &StatusBoard, asked: &ClientStatusRequest) -> ClientStatusResponse {
    let streams = board.streams_of(|node_id| is_asked_for(node_id, &asked.node_matchers));
    let mut clients: BTreeMap<&str, ClientConfig> = BTreeMap::new();
    for stream in &streams {
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
        // When the others of the type were sent is not known one by one.
        last_updated: of_type.sent_at_ms.filter(|_| resource.state == ResourceState::Sent).map(timestamp),
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

/// What is known of the refusal of a resource: nothing once the client has taken it. The reason is that of the last
/// refusal of the type, if that was about it. The version is that of now as long as it stands refused; while a newer one
/// is on its way, which one was refused is not told.
fn refusal(resource: &ResourceStatus, nack: Option<&Nack>) -> Option<UpdateFailureState> {
    let is_rejected = resource.state == ResourceState::Rejected;
    let is_settled = resource.state == ResourceState::Synced;
    let nack = nack.filter(|nack| !is_settled && nack.resources.contains(&resource.name));
    (is_rejected || nack.is_some()).then(|| UpdateFailureState {
        last_update_attempt: nack.map(|nack| timestamp(nack.at_ms)),
        details: nack.map(|nack| nack.message.clone()).unwrap_or_default(),
        version_info: resource.intended.clone().filter(|_| is_rejected).unwrap_or_default(),
        ..UpdateFailureState::default()
    })
}

fn timestamp(ms: u64) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(ms / MILLIS_PER_SECOND).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % MILLIS_PER_SECOND).unwrap_or_default() * NANOS_PER_MILLI,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(state: ResourceState) -> ResourceStatus {
        let version = |text: &str| Some(text.to_owned());
        ResourceStatus { name: "db".into(), intended: version("v2"), sent: version("v1"), state }
    }

    fn nack(of: &str) -> Nack {
        Nack { message: "no".into(), resources: vec![of.into()], at_ms: 9_000 }
    }

    #[test]
    fn a_refusal_is_told_with_what_was_refused_and_only_while_it_stands() {
        let told = |state, nack: Option<&Nack>| {
            refusal(&resource(state), nack).map(|refusal| (refusal.version_info, refusal.details))
        };
        let (ours, others) = (nack("db"), nack("web"));
        let text = |version: &str, details: &str| Some((version.to_owned(), details.to_owned()));
        assert_eq!(told(ResourceState::Rejected, Some(&ours)), text("v2", "no"));
        assert_eq!(told(ResourceState::Rejected, Some(&others)), text("v2", ""));
        assert_eq!(told(ResourceState::Sent, Some(&ours)), text("", "no"), "the newer one was not refused");
        assert_eq!(told(ResourceState::Waiting, Some(&others)), None);
        assert_eq!(told(ResourceState::Synced, Some(&ours)), None);
    }

    #[test]
    fn a_status_is_worked_out_only_for_who_is_asked_for() {
        struct Never(&'static str);
        impl crate::xds::server::board::Shown for Never {
            fn proxy(&self) -> &str {
                self.0
            }

            fn status(&self) -> StreamStatus {
                unreachable!("{} was not asked for", self.0)
            }
        }
        let board = StatusBoard::new();
        let mut place = board.place(1, std::sync::Arc::new(Never("web")));
        place.show();
        let exactly = StringMatcher {
            match_pattern: Some(MatchPattern::Exact("db".into())),
            ..StringMatcher::default()
        };
        let matcher = NodeMatcher { node_id: Some(exactly), ..NodeMatcher::default() };
        let asked = ClientStatusRequest { node_matchers: vec![matcher], ..ClientStatusRequest::default() };
        assert_eq!(report(&board, &asked), ClientStatusResponse::default());
    }
}
