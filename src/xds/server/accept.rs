//! Taking connections from the sockets, also when the process has no room for more.

use std::{future::Future, io, time::Duration};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tracing::{debug, info, warn};

use crate::xds::server::connection::Peer;

/// Without descriptors left, accepting at once again would only spin; a client waits in the kernel's queue meanwhile.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that connections come from.
pub(super) trait Accept: Send {
    /// A connection.
    type Io: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static;

    /// The next connection. Cancel-safe.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, Peer)>> + Send;
}

impl Accept for UnixListener {
    type Io = hyper_util::rt::TokioIo<UnixStream>;

    async fn accept(&mut self) -> io::Result<(Self::Io, Peer)> {
        let (stream, _) = UnixListener::accept(self).await?;
        Ok((hyper_util::rt::TokioIo::new(stream), Peer::Unix))
    }
}

impl Accept for TcpListener {
    type Io = hyper_util::rt::TokioIo<TcpStream>;

    async fn accept(&mut self) -> io::Result<(Self::Io, Peer)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        // A response is written whole: waiting to fill a packet would only delay its end.
        stream.set_nodelay(true)?;
        Ok((hyper_util::rt::TokioIo::new(stream), Peer::Tcp(peer)))
    }
}

/// The next connection, however long the lack of descriptors lasts: told once at its begin and once at its end.
/// Cancel-safe, except that an interrupted lack is told anew.
pub(super) async fn next<L: Accept>(listener: &mut L) -> (L::Io, Peer) {
    let mut lacking = false;
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                if lacking {
                    info!("xDS connections are accepted again");
                }
                return accepted;
            }
            Err(error) if is_the_peers(&error) => debug!(%error, "connection lost before it was accepted"),
            Err(error) => {
                if !lacking {
                    warn!(
                        %error,
                        "no xDS connection can be accepted for now; if files are too many, raise LimitNOFILE"
                    );
                }
                lacking = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The connection itself broke: the next may be had at once.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, Interrupted, NotConnected, TimedOut,
    };
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | Interrupted | NotConnected | TimedOut
    )
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;
    use crate::lifecycle::now;

    /// Errors first, then a connection.
    struct Failing(Vec<i32>);

    impl Accept for Failing {
        type Io = hyper_util::rt::TokioIo<DuplexStream>;

        async fn accept(&mut self) -> io::Result<(Self::Io, Peer)> {
            match self.0.pop() {
                Some(errno) => Err(io::Error::from_raw_os_error(errno)),
                None => Ok((hyper_util::rt::TokioIo::new(tokio::io::duplex(1).0), Peer::Unix)),
            }
        }
    }

    async fn pauses_after(errors: Vec<nix::errno::Errno>) -> u128 {
        let began = now();
        let _accepted = next(&mut Failing(errors.into_iter().map(|errno| errno as i32).collect())).await;
        began.elapsed().as_millis() / ACCEPT_PAUSE.as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lack_of_descriptors_is_waited_out_and_a_broken_connection_is_not() {
        use nix::errno::Errno::{ECONNABORTED, EMFILE, ENFILE};
        assert_eq!(pauses_after(vec![]).await, 0);
        assert_eq!(pauses_after(vec![ECONNABORTED; 5]).await, 0);
        assert_eq!(pauses_after(vec![EMFILE, ENFILE, ECONNABORTED, EMFILE]).await, 3);
    }
}
