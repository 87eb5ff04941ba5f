//! The fake's HTTP: reads a request, writes an answer whole, in part, or not at all.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::{State, api, bulk};
use crate::client::{content_length, read_head};

/// What is written back.
pub(super) enum Reply {
    /// A whole answer.
    Whole(u16, Value),
    /// 413 as the real one sends it: no body, no product header.
    TooLarge,
    /// The first half of an answer, then the end of the connection.
    Half(Value),
    /// The end of the connection.
    Nothing,
}

pub(super) async fn listen(state: Arc<Mutex<State>>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("cannot bind the fake");
    let address = listener.local_addr().expect("the fake has no address");
    let task = tokio::spawn(async move {
        // Owned by this task, so that connections end with the fake.
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream, Arc::clone(&state)));
            while connections.try_join_next().is_some() {}
        }
    });
    (address, task)
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>) {
    let _nodelay = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    while let Ok((start, headers)) = read_head(&mut stream).await {
        let mut start = start.split(' ');
        let (method, path) = (start.next().unwrap_or_default(), start.next().unwrap_or_default());
        let mut body = vec![0; content_length(&headers).unwrap_or(0)];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let reply = if path.split('?').next().is_some_and(|path| path.ends_with("/_bulk")) {
            bulk::answer(&state, path, &body).await
        } else {
            api::answer(&state, method, path, &body)
        };
        match write(&mut stream, method, reply).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return,
        }
    }
}

/// Whether the connection goes on.
async fn write(stream: &mut BufReader<TcpStream>, method: &str, reply: Reply) -> io::Result<bool> {
    let (status, body, whole) = match reply {
        Reply::Nothing => return Ok(false),
        Reply::TooLarge => {
            stream
                .write_all(b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\n\r\n")
                .await?;
            return Ok(true);
        }
        Reply::Whole(status, body) => (status, body.to_string(), true),
        Reply::Half(body) => (200, body.to_string(), false),
    };
    let head = format!(
        "HTTP/1.1 {status} Status\r\nX-elastic-product: Elasticsearch\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let sent = if method == "HEAD" {
        ""
    } else if whole {
        &body
    } else {
        body.get(..body.len() / 2).unwrap_or_default()
    };
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(sent.as_bytes()).await?;
    stream.flush().await?;
    Ok(whole)
}
