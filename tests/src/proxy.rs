//! A TCP proxy on loopback that can refuse, reset, stall, slow down, or cut an answer: after some bytes, or to a certain
//! question.
//!
//! It can keep a request, too, and pass it on when its sender has long given it up.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use crate::conditions::{SOON, eventually};

/// What the proxy does with connections, those that stand and new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Forward,
    /// Closes every connection at once, without an answer.
    Refuse,
    /// Resets every connection (RST).
    Reset,
    /// Takes bytes and passes nothing on.
    Stall,
    /// Passes requests on whole and cuts the connection after this many bytes of the answer.
    CutAnswerAfter(usize),
    /// Passes everything on until a request has these bytes in it; cuts the connection when its answer begins.
    CutAnswerTo(&'static str),
    /// Passes everything on but the first request with these bytes at its beginning (4 KiB): it is kept whole and its
    /// connection closed; [`Proxy::send_kept`] passes it on.
    Keep(&'static str),
    /// Passes everything on, each piece of a request (4 KiB at most) after this pause.
    Slow(Duration),
}

/// A running proxy; ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    target: String,
    mode: watch::Sender<Mode>,
    kept: Arc<Kept>,
    struck: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// The request that is kept.
#[derive(Debug, Default)]
struct Kept {
    is_begun: AtomicBool,
    whole: OnceLock<Vec<u8>>,
}

impl Proxy {
    /// Listens on a free port and forwards to `target` (`host:port`).
    pub async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("cannot bind the proxy");
        let address = listener.local_addr().expect("the proxy has no address");
        let (mode, watched) = watch::channel(Mode::Forward);
        let (kept, struck) = (Arc::new(Kept::default()), Arc::new(AtomicUsize::new(0)));
        let (target, keeper, counter) = (target.to_owned(), Arc::clone(&kept), Arc::clone(&struck));
        let to = target.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to, mode, keeper, counter) =
                    (to.clone(), watched.clone(), Arc::clone(&keeper), Arc::clone(&counter));
                tokio::spawn(async move {
                    if serve(client, to, mode, keeper).await {
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self {
            address,
            target,
            mode,
            kept,
            struck,
            task,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Switches; connections of another mode end. Those that are only to become slow, or as they were, stay.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// How many connections have ended by what a mode does to them.
    #[must_use]
    pub fn struck(&self) -> usize {
        self.struck.load(Ordering::Relaxed)
    }

    /// Waits until a request is kept.
    pub async fn until_kept(&self) {
        eventually("a request to be kept", SOON, || {
            std::future::ready(self.kept.whole.get().map(|_| ()))
        })
        .await;
    }

    /// Passes the kept request on, to be answered to nobody but the test: the beginning of the answer.
    pub async fn send_kept(&self) -> String {
        let request = self.kept.whole.get().expect("a request was kept");
        let mut server = TcpStream::connect(&self.target).await.expect("the target is there");
        server.write_all(request).await.expect("sent");
        let mut buffer = vec![0; 4 * 1024];
        let read = server.read(&mut buffer).await.expect("an answer");
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves a connection to its end; whether that was what a mode does.
async fn serve(client: TcpStream, target: String, mut mode: watch::Receiver<Mode>, kept: Arc<Kept>) -> bool {
    let now = *mode.borrow_and_update();
    match now {
        Mode::Refuse => true,
        Mode::Reset => {
            reset(client);
            true
        }
        // Held open, nothing read: the peer's own time limit has to end it.
        Mode::Stall => {
            let _changed = mode.changed().await;
            true
        }
        Mode::Forward | Mode::CutAnswerAfter(_) | Mode::CutAnswerTo(_) | Mode::Keep(_) | Mode::Slow(_) => {
            let answer_max = if let Mode::CutAnswerAfter(bytes) = now {
                bytes
            } else {
                usize::MAX
            };
            let Ok(server) = TcpStream::connect(&target).await else {
                return false;
            };
            let (mut client_read, mut client_write) = client.into_split();
            let (mut server_read, mut server_write) = server.into_split();
            let asked = AtomicBool::new(false);
            let up = copy_requests(&mut client_read, &mut server_write, mode.clone(), &asked, &kept);
            let down = copy_some(&mut server_read, &mut client_write, answer_max, &asked);
            tokio::select! {
                _ = up => false,
                cut = down => cut.unwrap_or(false),
                () = another_mode(now, &mut mode) => {
                    let next = *mode.borrow();
                    if next == Mode::Stall {
                        let _changed = mode.changed().await;
                    }
                    matches!(next, Mode::Refuse | Mode::Reset | Mode::Stall)
                }
            }
        }
    }
}

/// Waits for a mode in which a connection of this mode can't go on.
async fn another_mode(now: Mode, mode: &mut watch::Receiver<Mode>) {
    let is_open = |mode: Mode| matches!(mode, Mode::Forward | Mode::Slow(_));
    while mode.changed().await.is_ok() && is_open(now) && is_open(*mode.borrow_and_update()) {}
}

/// Passes requests on; notes in `asked` when the one whose answer is to be cut comes by.
async fn copy_requests(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mode: watch::Receiver<Mode>,
    asked: &AtomicBool,
    kept: &Kept,
) -> io::Result<()> {
    let mut buffer = vec![0; 4 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let piece = &buffer[..read];
        let mode = *mode.borrow();
        if let Mode::Slow(pause) = mode {
            tokio::time::sleep(pause).await;
        }
        if let Mode::CutAnswerTo(question) = mode
            && piece.windows(question.len()).any(|bytes| bytes == question.as_bytes())
        {
            asked.store(true, Ordering::Relaxed);
        }
        if let Mode::Keep(question) = mode
            && piece.windows(question.len()).any(|bytes| bytes == question.as_bytes())
            && !kept.is_begun.swap(true, Ordering::Relaxed)
        {
            let mut whole = piece.to_vec();
            while !is_whole(&whole) {
                let read = from.read(&mut buffer).await?;
                whole.extend_from_slice(&buffer[..read]);
            }
            kept.whole.set(whole).expect("one is kept");
            return Ok(());
        }
        to.write_all(piece).await?;
    }
}

/// Whether a request has come to its end, by its `Content-Length`.
fn is_whole(request: &[u8]) -> bool {
    let Some(head) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return false;
    };
    let length = String::from_utf8_lossy(&request[..head])
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, length)| length.trim().parse().expect("a length"));
    request.len() >= head + 4 + length
}

/// Passes an answer on as far as it goes; whether it was cut.
async fn copy_some(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut left: usize,
    cut_now: &AtomicBool,
) -> io::Result<bool> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        // Read first, also when nothing is to pass: an answer that begins tells that the request has arrived whole.
        let read = from.read(&mut buffer).await?;
        if cut_now.load(Ordering::Relaxed) {
            return Ok(read > 0);
        }
        let passed = read.min(left);
        to.write_all(&buffer[..passed]).await?;
        left -= passed;
        if read == 0 || left == 0 {
            return Ok(read > 0);
        }
    }
}

fn reset(stream: TcpStream) {
    // Linger of zero makes close send RST.
    let _unsupported = stream.set_zero_linger();
    drop(stream);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Mode, Proxy};
    use crate::{
        conditions::{SOON, eventually},
        fake_elasticsearch::FakeElasticsearch,
        search::Search,
    };

    #[tokio::test]
    async fn each_mode_does_what_it_says_and_forwarding_goes_on_afterwards() {
        let fake = FakeElasticsearch::start().await;
        let proxy = Proxy::start(&fake.address()).await;
        let through = || Search::new(&format!("http://{}", proxy.address()));
        for mode in [
            Mode::Refuse,
            Mode::Reset,
            Mode::CutAnswerAfter(0),
            Mode::CutAnswerAfter(40),
            Mode::CutAnswerTo("GET /"),
            Mode::Keep("GET /"),
        ] {
            proxy.set(mode);
            let (before, struck) = (fake.requests().len(), proxy.struck());
            assert!(
                through().call("GET", "/", None).await.is_err(),
                "{mode:?} gives no whole answer"
            );
            let arrived = fake.requests().len() - before;
            let passes = matches!(mode, Mode::CutAnswerAfter(_) | Mode::CutAnswerTo(_));
            assert_eq!(arrived > 0, passes, "{mode:?}");
            if !matches!(mode, Mode::Keep(_)) {
                eventually("it to be counted", SOON, || {
                    std::future::ready((proxy.struck() > struck).then_some(()))
                })
                .await;
            }
            for passing in [
                Mode::Forward,
                Mode::CutAnswerTo("never asked"),
                Mode::Slow(Duration::from_millis(1)),
            ] {
                proxy.set(passing);
                let struck = proxy.struck();
                through().ok("GET", "/", None).await;
                assert_eq!(proxy.struck(), struck, "{passing:?} breaks nothing");
            }
        }
    }

    #[tokio::test]
    async fn a_kept_request_arrives_when_it_is_sent_and_others_pass_meanwhile() {
        let fake = FakeElasticsearch::start().await;
        let proxy = Proxy::start(&fake.address()).await;
        let through = Search::new(&format!("http://{}", proxy.address()));
        proxy.set(Mode::Keep("PUT /_ilm/policy/late"));
        let policy = serde_json::json!({ "text": "x".repeat(20_000) });
        assert!(through.call("PUT", "/_ilm/policy/late", Some(&policy)).await.is_err());
        proxy.until_kept().await;
        through.ok("PUT", "/_ilm/policy/other", Some(&policy)).await;
        assert!(fake.object("_ilm/policy/late").is_none());
        assert!(proxy.send_kept().await.starts_with("HTTP/1.1 200"));
        assert_eq!(fake.object("_ilm/policy/late"), Some(policy));
    }
}
