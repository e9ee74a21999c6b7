//! What a stream is for: every type, or the one of its service.

use tonic::Status;

use crate::{
    model::secret::SecretText,
    xds::{
        encode::Source,
        resource::Kind,
        server::{convert, wire::Wire},
    },
};

/// Which types a stream is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope {
    /// Every type, over ADS.
    All,
    /// One, over its own service.
    Only(Kind),
}

impl Scope {
    /// The type is implied on the service of one type, and must be told over ADS (rule 2).
    pub(super) fn check<W: Wire>(self, request: &mut W) -> Result<(), Status> {
        match (self, request.type_url()) {
            (Self::All, "") => Err(Status::invalid_argument("a request over ADS must have a type_url")),
            (Self::All, _) => Ok(()),
            (Self::Only(kind), "") => {
                request.set_type_url(kind.type_url());
                Ok(())
            }
            (Self::Only(kind), asked) if asked == kind.type_url() => Ok(()),
            (Self::Only(kind), asked) => Err(Status::invalid_argument(format!(
                "this stream serves {} only, and {asked} was asked for: use that type's own service, or ADS",
                kind.short()
            ))),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "ads",
            Self::Only(kind) => kind.short(),
        }
    }

    /// Without ADS the resources name the services that the client itself uses: one that has no ADS stream refuses
    /// those that name it. There it presents the token of the stream that named them.
    pub(super) fn source<W: Wire>(self, request: &W, token: Option<SecretText>) -> Source {
        match (self, request.node()) {
            (Self::Only(_), Some(node)) => {
                Source::Services { protocol: W::PROTOCOL, cluster: convert::xds_cluster(node), token }
            }
            (Self::All, _) | (_, None) => Source::Ads,
        }
    }
}
