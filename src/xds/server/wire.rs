//! The two variants of discovery messages, as one stream task sees them.

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    },
};
use prost::Message;

use crate::xds::{
    encode::{Protocol, Source},
    server::{agent_id::AgentId, convert},
    subscription::{Event, Response, Variant},
};

/// A discovery request, with the response that goes with it.
pub(super) trait Wire: Send + 'static {
    /// What is sent back.
    type Response: Message + 'static;
    const VARIANT: Variant;
    const PROTOCOL: Protocol;

    fn node(&self) -> Option<&Node>;
    fn type_url(&self) -> &str;
    fn set_type_url(&mut self, type_url: &str);
    /// Why the client refuses what it was sent last.
    fn refusal(&mut self) -> Option<&mut String>;
    fn into_event(self) -> Event;
    fn response(response: &Response, source: &Source, agent: &AgentId) -> Self::Response;
}

impl Wire for DeltaDiscoveryRequest {
    type Response = DeltaDiscoveryResponse;
    const VARIANT: Variant = Variant::Delta;
    const PROTOCOL: Protocol = Protocol::Delta;

    fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    fn type_url(&self) -> &str {
        &self.type_url
    }

    fn set_type_url(&mut self, type_url: &str) {
        type_url.clone_into(&mut self.type_url);
    }

    fn refusal(&mut self) -> Option<&mut String> {
        self.error_detail.as_mut().map(|status| &mut status.message)
    }

    fn into_event(self) -> Event {
        Event::Request(convert::delta_request(self))
    }

    fn response(response: &Response, source: &Source, agent: &AgentId) -> Self::Response {
        convert::delta_response(response, source, agent)
    }
}

impl Wire for DiscoveryRequest {
    type Response = DiscoveryResponse;
    const VARIANT: Variant = Variant::StateOfTheWorld;
    const PROTOCOL: Protocol = Protocol::StateOfTheWorld;

    fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    fn type_url(&self) -> &str {
        &self.type_url
    }

    fn set_type_url(&mut self, type_url: &str) {
        type_url.clone_into(&mut self.type_url);
    }

    fn refusal(&mut self) -> Option<&mut String> {
        self.error_detail.as_mut().map(|status| &mut status.message)
    }

    fn into_event(self) -> Event {
        Event::Sotw(convert::sotw_request(self))
    }

    fn response(response: &Response, source: &Source, agent: &AgentId) -> Self::Response {
        convert::sotw_response(response, source, agent)
    }
}
