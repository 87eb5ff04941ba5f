//! The listener: bounded connections, bounded time for the head, an orderly end.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::Router;
use axum_server::{Handle, Server, accept::Accept};
use hyper_util::rt::TokioTimer;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower::Service;

use crate::config;

/// A listener with its address.
#[derive(Debug)]
pub struct Served {
    /// Where it listens; the port is the one taken if the configuration said 0.
    pub address: SocketAddr,
    listener: TcpListener,
    connections_max: usize,
    header_timeout: std::time::Duration,
}

/// Binds the listener.
///
/// # Errors
/// If the address can't be bound.
pub fn listen(settings: &config::Http) -> io::Result<Served> {
    let listener = TcpListener::bind(settings.listen)?;
    listener.set_nonblocking(true)?;
    Ok(Served {
        address: listener.local_addr()?,
        listener,
        connections_max: settings.connections_max,
        header_timeout: settings.header_timeout,
    })
}

impl Served {
    /// Serves until `handle` is told to shut down.
    ///
    /// # Errors
    /// If the listener breaks.
    pub async fn run(self, router: Router, handle: Handle<SocketAddr>) -> io::Result<()> {
        let acceptor = Limited {
            connections: Arc::new(Semaphore::new(self.connections_max)),
        };
        let mut server: Server<SocketAddr, Limited> =
            axum_server::from_tcp(self.listener)?.acceptor(acceptor).handle(handle);
        server
            .http_builder()
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout);
        server.http_builder().http2().timer(TokioTimer::new());
        server
            .serve(router.into_make_service_with_connect_info::<SocketAddr>())
            .await
    }
}

/// Lets a bounded number of connections be served; each holds its permit as long as it lives.
#[derive(Debug, Clone)]
struct Limited {
    connections: Arc<Semaphore>,
}

impl<S: Send + 'static> Accept<TcpStream, S> for Limited {
    type Stream = TcpStream;
    type Service = Held<S>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(TcpStream, Held<S>)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let connections = Arc::clone(&self.connections);
        Box::pin(async move {
            // Small answers must not wait for the client's delayed acknowledgement.
            stream.set_nodelay(true)?;
            let permit = connections.acquire_owned().await.map_err(io::Error::other)?;
            Ok((
                stream,
                Held {
                    service,
                    _permit: Arc::new(permit),
                },
            ))
        })
    }
}

/// A connection's service with its permit.
#[derive(Debug, Clone)]
struct Held<S> {
    service: S,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl<S: Service<R>, R> Service<R> for Held<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        self.service.call(request)
    }
}
