//! `healthcheck`: asks a running service whether it is alive; made for containers without a shell or curl.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use url::Url;

use super::{Given, block_on};
use crate::telemetry::summary::reachable;

/// Below the 3 s that the image gives the command, so that it ends with a message of its own.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Enough for the status line.
const ANSWER_BYTES_MAX: u64 = 1024;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to ask instead of /health at the configured address, for example <http://127.0.0.1:8080/ready>
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
}

impl Arguments {
    pub(super) fn run(&self, given: &Given) -> anyhow::Result<()> {
        let url = match &self.url {
            Some(url) => url.clone(),
            None => {
                let config = given.load()?.config;
                let (listen, scheme) = (
                    reachable(config.http.listen),
                    if config.tls.enabled { "https" } else { "http" },
                );
                Url::parse(&format!("{scheme}://{listen}/health")).context("making the URL to ask")?
            }
        };
        block_on(async move {
            match timeout(TIMEOUT, ask(&url)).await {
                Ok(answer) => answer.with_context(|| format!("{url} did not answer 200; is the service running?")),
                Err(_) => bail!("{url} did not answer within {} s", TIMEOUT.as_secs()),
            }
        })
    }
}

async fn ask(url: &Url) -> anyhow::Result<()> {
    if url.scheme() == "https" {
        return ask_by_tls(url).await;
    }
    ensure!(url.scheme() == "http", "only http:// and https:// can be asked");
    let host = url.host_str().context("the URL has no host")?;
    let port = url.port_or_known_default().context("the URL has no port")?;
    let mut stream = TcpStream::connect((host.trim_matches(['[', ']']), port))
        .await
        .with_context(|| format!("connecting to {host}:{port}"))?;
    let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
    let request = format!(
        "GET {}{query} HTTP/1.1\r\nhost: {host}:{port}\r\nuser-agent: healthcheck\r\nconnection: close\r\n\r\n",
        url.path()
    );
    stream
        .write_all(request.as_bytes())
        .await
        .context("sending the request")?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await
        .context("reading the answer")?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.lines().next().unwrap_or_default();
    ensure!(
        status.split(' ').nth(1) == Some("200") && status.starts_with("HTTP/1."),
        "the answer was `{}`",
        status.escape_debug()
    );
    Ok(())
}

/// Whoever answers is not asked to prove itself: nothing is told it, and its certificate need not be for this address.
async fn ask_by_tls(url: &Url) -> anyhow::Result<()> {
    let client = reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .context("making a client")?;
    let answer = client.get(url.clone()).send().await.context("asking")?;
    ensure!(answer.status() == 200, "the answer was `{}`", answer.status());
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn verdict_on(answer: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/health", listener.local_addr().unwrap())).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(request[..read].starts_with(b"GET /health HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let (verdict, ()) = tokio::join!(ask(&url), serve);
        verdict.map_err(|error| format!("{error:#}"))
    }

    #[tokio::test]
    async fn only_a_200_is_healthy() {
        assert_eq!(
            verdict_on("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await,
            Ok(())
        );
        for answer in [
            "HTTP/1.1 503 Service Unavailable\r\n\r\n",
            "",
            "SSH-2.0-x 200\r\n",
            "HTTP/1.1 2000 x\r\n",
        ] {
            assert!(verdict_on(answer).await.is_err(), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_told_with_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = ask(&Url::parse(&format!("http://{address}/health")).unwrap())
            .await
            .unwrap_err();
        assert!(
            format!("{error:#}").contains(&format!("connecting to {address}")),
            "{error:#}"
        );
    }
}
