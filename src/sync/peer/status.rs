//! Between gRPC's statuses and why another agent has no answer.
//!
//! Exactness matters in one direction: what is said to be [`PeerError::Unreached`] was executed by nobody, so that it may
//! be sent again. In doubt it is [`PeerError::Unknown`].

use tonic::{Code, Status};

use crate::sync::peer::{PeerError, convert::ConvertError};

/// As sent to the caller.
pub(super) fn status(error: PeerError) -> Status {
    match error {
        PeerError::Unreached(text) => Status::unavailable(text),
        PeerError::Unknown(text) => Status::aborted(text),
        PeerError::Refused(text) => Status::invalid_argument(text),
        PeerError::Misfit(text) => Status::failed_precondition(text),
    }
}

/// As the caller takes it. Only the other agent itself, and the connection before anything was sent, say UNAVAILABLE:
/// whatever else tonic would call so is given another code by `grpc::link`.
pub(super) fn peer_error(status: &Status) -> PeerError {
    let text = match status.message() {
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    };
    match status.code() {
        Code::Unavailable => PeerError::Unreached(text),
        Code::InvalidArgument | Code::ResourceExhausted => PeerError::Refused(text),
        Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented => {
            PeerError::Misfit(text)
        }
        _ => PeerError::Unknown(text),
    }
}

/// A request that makes no sense was not executed.
pub(super) fn not_understood(error: &ConvertError) -> Status {
    match error {
        ConvertError::Field { .. } => Status::invalid_argument(error.to_string()),
        ConvertError::Unknown => Status::unimplemented(error.to_string()),
    }
}
