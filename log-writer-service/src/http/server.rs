//! The listener: bounded connections, bounded time for the handshake and the head, an orderly end.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, http::Request};
use axum_server::{
    Handle, Server,
    accept::Accept,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use hyper_util::rt::TokioTimer;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower::Service;

use super::heard::Heard;
use crate::{
    auth::{Subject, subjects},
    config,
};

/// A listener with its address.
#[derive(Debug)]
pub struct Served {
    /// Where it listens; the port is the one taken if the configuration said 0.
    pub address: SocketAddr,
    listener: TcpListener,
    limits: Limits,
    tls: Option<RustlsConfig>,
}

/// What one connection, and all together, may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    connections: usize,
    head_bytes: usize,
    head_time: Duration,
    read_time: Duration,
}

/// Who is at the other end of a connection; an extension of each of its requests.
#[derive(Debug, Clone, Default)]
pub(super) struct Peer {
    /// It has proven itself with a certificate of one of `tls.client_ca_file`.
    pub(super) has_certificate: bool,
    /// The names in that certificate.
    pub(super) subjects: Arc<[Subject]>,
}

/// Binds the listener.
///
/// # Errors
/// If the address can't be bound.
pub fn listen(settings: &config::Http, tls: Option<RustlsConfig>) -> io::Result<Served> {
    let listener = TcpListener::bind(settings.listen)?;
    listener.set_nonblocking(true)?;
    Ok(Served {
        address: listener.local_addr()?,
        listener,
        limits: Limits {
            connections: settings.connections_max,
            head_bytes: settings.head_bytes_max,
            head_time: settings.header_timeout,
            read_time: settings.body_timeout,
        },
        tls,
    })
}

impl Served {
    /// Serves until `handle` is told to shut down.
    ///
    /// # Errors
    /// If the listener breaks.
    pub async fn run(self, router: Router, handle: Handle<SocketAddr>) -> io::Result<()> {
        let limited = Limited {
            connections: Arc::new(Semaphore::new(self.limits.connections)),
            read_time: self.limits.read_time,
        };
        let server = axum_server::from_tcp(self.listener)?.handle(handle);
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        match self.tls {
            None => {
                let server = bound(server.acceptor(limited), self.limits);
                server.serve(service).await
            }
            Some(tls) => {
                // The permit is taken before the handshake, so that those are bounded too.
                let proven = Proven(RustlsAcceptor::new(tls).acceptor(limited));
                let server = bound(server.acceptor(proven), self.limits);
                server.serve(service).await
            }
        }
    }
}

/// HTTP/1.1 only: finding out which version a client speaks has no limit of time, nor has an idle HTTP/2 connection.
///
/// What a connection has read and not yet handed on is outside of `http.inflight_bytes_max`, hence the small buffer.
fn bound<A>(server: Server<SocketAddr, A>, limits: Limits) -> Server<SocketAddr, A> {
    let mut server = server.http1_only();
    server
        .http_builder()
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_buf_size(limits.head_bytes);
    server
}

/// Lets a bounded number of connections be served; each holds its permit as long as it lives.
#[derive(Debug, Clone)]
struct Limited {
    connections: Arc<Semaphore>,
    read_time: Duration,
}

impl<S: Send + 'static> Accept<TcpStream, S> for Limited {
    type Stream = Heard;
    type Service = Held<S>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Heard, Held<S>)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let connections = Arc::clone(&self.connections);
        let read_time = self.read_time;
        Box::pin(async move {
            // Small answers must not wait for the client's delayed acknowledgement.
            stream.set_nodelay(true)?;
            // One too many is closed at once: waiting here would hold it, and its memory.
            let permit = connections.try_acquire_owned().map_err(io::Error::other)?;
            Ok((
                Heard::new(stream, read_time),
                Held {
                    service,
                    peer: Peer::default(),
                    _permit: Arc::new(permit),
                },
            ))
        })
    }
}

/// TLS, and who proved itself by it.
#[derive(Debug, Clone)]
struct Proven(RustlsAcceptor<Limited>);

impl<S: Send + 'static> Accept<TcpStream, S> for Proven {
    type Stream = <RustlsAcceptor<Limited> as Accept<TcpStream, S>>::Stream;
    type Service = Held<S>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Held<S>)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let accepting = self.0.accept(stream, service);
        Box::pin(async move {
            let (stream, mut held) = accepting.await?;
            let (_, connection) = stream.get_ref();
            if let Some(certificate) = connection.peer_certificates().and_then(<[_]>::first) {
                held.peer = Peer {
                    has_certificate: true,
                    subjects: subjects(certificate).into(),
                };
            }
            Ok((stream, held))
        })
    }
}

/// A connection's service with its permit.
#[derive(Debug, Clone)]
struct Held<S> {
    service: S,
    peer: Peer,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for Held<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        self.service.call(request)
    }
}
