//! A TCP proxy on loopback that can refuse, reset, stall, slow down, or cut an answer: after some bytes, or to a certain
//! question.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

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
    /// Passes everything on, each piece of a request (4 KiB at most) after this pause.
    Slow(Duration),
}

/// A running proxy; ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port and forwards to `target` (`host:port`).
    pub async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("cannot bind the proxy");
        let address = listener.local_addr().expect("the proxy has no address");
        let (mode, watched) = watch::channel(Mode::Forward);
        let target = target.to_owned();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, target.clone(), watched.clone()));
            }
        });
        Self { address, mode, task }
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
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(client: TcpStream, target: String, mut mode: watch::Receiver<Mode>) {
    let now = *mode.borrow_and_update();
    match now {
        Mode::Refuse => {}
        Mode::Reset => reset(client),
        // Held open, nothing read: the peer's own time limit has to end it.
        Mode::Stall => {
            let _changed = mode.changed().await;
        }
        Mode::Forward | Mode::CutAnswerAfter(_) | Mode::CutAnswerTo(_) | Mode::Slow(_) => {
            let answer_max = if let Mode::CutAnswerAfter(bytes) = now {
                bytes
            } else {
                usize::MAX
            };
            let Ok(server) = TcpStream::connect(&target).await else {
                return;
            };
            let (mut client_read, mut client_write) = client.into_split();
            let (mut server_read, mut server_write) = server.into_split();
            let asked = AtomicBool::new(false);
            let up = copy_requests(&mut client_read, &mut server_write, mode.clone(), &asked);
            let down = copy_some(&mut server_read, &mut client_write, answer_max, &asked);
            tokio::select! {
                _ = up => {}
                _ = down => {}
                () = another_mode(now, &mut mode) => {
                    if *mode.borrow() == Mode::Stall {
                        let _changed = mode.changed().await;
                    }
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
        to.write_all(piece).await?;
    }
}

async fn copy_some(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut left: usize,
    cut_now: &AtomicBool,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        // Read first, also when nothing is to pass: an answer that begins tells that the request has arrived whole.
        let read = from.read(&mut buffer).await?;
        if cut_now.load(Ordering::Relaxed) {
            return Ok(());
        }
        let passed = read.min(left);
        to.write_all(&buffer[..passed]).await?;
        left -= passed;
        if read == 0 || left == 0 {
            return Ok(());
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
    use crate::{fake_elasticsearch::FakeElasticsearch, search::Search};

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
        ] {
            proxy.set(mode);
            let before = fake.requests().len();
            assert!(
                through().call("GET", "/", None).await.is_err(),
                "{mode:?} gives no whole answer"
            );
            let arrived = fake.requests().len() - before;
            let passes = matches!(mode, Mode::CutAnswerAfter(_) | Mode::CutAnswerTo(_));
            assert_eq!(arrived > 0, passes, "{mode:?}");
            for passing in [
                Mode::Forward,
                Mode::CutAnswerTo("never asked"),
                Mode::Slow(Duration::from_millis(1)),
            ] {
                proxy.set(passing);
                through().ok("GET", "/", None).await;
            }
        }
    }
}
