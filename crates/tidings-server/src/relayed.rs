//! What a connection has to know of a response that somebody else has made: that it lasts as long as
//! it lasts, or that the connection is continued as a tunnel.

use std::{
    any::Any,
    io,
    sync::{Arc, Mutex},
};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};

/// In the extensions of a response that is passed on as it is. It has no time limit as a whole: what
/// it takes is bounded by who makes it and who reads it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relayed;

/// In the extensions of a response with the status 101: what its connection is continued with.
#[derive(Clone)]
pub(crate) struct Tunnel(Arc<Mutex<Option<TunnelEnd>>>);

/// The other end of a tunnel.
pub(crate) struct TunnelEnd {
    /// Dropped first, so that it is given back when the other end sees the end.
    held: Box<dyn Any + Send>,
    io: TokioIo<Upgraded>,
}

impl Tunnel {
    /// `held` is dropped with the tunnel.
    pub(crate) fn to(upgraded: Upgraded, held: Box<dyn Any + Send>) -> Self {
        Self(Arc::new(Mutex::new(Some(TunnelEnd { held, io: TokioIo::new(upgraded) }))))
    }

    /// Drops this, too, with the tunnel.
    pub(crate) fn hold(&self, more: Box<dyn Any + Send>) {
        if let Some(end) = &mut *self.0.lock().expect("nothing panics while it holds this") {
            let held = std::mem::replace(&mut end.held, Box::new(()));
            end.held = Box::new((held, more));
        }
    }

    /// The other end, unless it was taken already.
    pub(crate) fn take(&self) -> Option<TunnelEnd> {
        self.0.lock().expect("nothing panics while it holds this").take()
    }
}

impl TunnelEnd {
    /// Passes on everything in both directions, until both have ended or one has failed. `headers`
    /// are sent to the client first; `early` is what it has sent already.
    pub(crate) async fn carry(
        mut self,
        mut client: impl AsyncRead + AsyncWrite + Unpin,
        headers: &[u8],
        early: &[u8],
    ) -> io::Result<()> {
        client.write_all(headers).await?;
        client.flush().await?;
        self.io.write_all(early).await?;
        copy_bidirectional(&mut client, &mut self.io).await.map(|_| ())
    }
}
