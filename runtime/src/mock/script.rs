//! The programs that a mocked container has: `echo WORDS`, `complain WORDS` (on standard error), `cat` (input to output), `size` (a terminal's sizes, as they come),
//! `exit CODE` (after its input has ended, if it holds that), and `sleep` (until it is killed).

use crate::{Error, ExecSpec, Resize, Session};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::{mpsc, oneshot},
};

/// What is on its way, bytes.
pub const BUFFER: usize = 16 << 10;

struct Size(mpsc::UnboundedSender<(u16, u16)>);

impl Resize for Size {
    fn resize(&self, width: u16, height: u16) {
        _ = self.0.send((width, height));
    }
}

struct Program {
    stdin: Option<DuplexStream>,
    stdout: DuplexStream,
    stderr: DuplexStream,
    sizes: mpsc::UnboundedReceiver<(u16, u16)>,
}

impl Program {
    async fn run(mut self, words: &[String]) -> i32 {
        let said = words.get(1..).unwrap_or_default().join(" ") + "\n";
        let written = match words.first().map(String::as_str) {
            Some("echo") => self.stdout.write_all(said.as_bytes()).await,
            Some("complain") => self.stderr.write_all(said.as_bytes()).await,
            Some("cat") => match &mut self.stdin {
                Some(stdin) => tokio::io::copy(stdin, &mut self.stdout).await.map(drop),
                None => Ok(()),
            },
            Some("size") => {
                while let Some((width, height)) = self.sizes.recv().await {
                    _ = self.stdout.write_all(format!("{width}x{height}\n").as_bytes()).await;
                }
                Ok(())
            }
            Some("sleep") => std::future::pending().await,
            _ => {
                if let Some(stdin) = &mut self.stdin {
                    _ = stdin.read_to_end(&mut Vec::new()).await;
                }
                return words.get(1).and_then(|code| code.parse().ok()).unwrap_or_default();
            }
        };
        if written.is_ok() { 0 } else { 141 }
    }
}

/// Starts one.
///
/// # Errors
/// There is no such program.
pub fn start(spec: &ExecSpec) -> Result<Session, Error> {
    let name = spec.command.first().cloned().unwrap_or_default();
    if !["echo", "complain", "cat", "size", "exit", "sleep"].contains(&&*name) {
        return Err(Error::fatal("ExecError", format!("exec {name:?}: executable file not found in $PATH")));
    }
    let ((stdin, input), (output, stdout), (complaints, stderr)) = (duplex(BUFFER), duplex(BUFFER), duplex(BUFFER));
    let (resize, sizes) = mpsc::unbounded_channel();
    let program = Program { stdin: spec.streams.stdin.then_some(input), stdout: output, stderr: complaints, sizes };
    let (over, exit) = oneshot::channel();
    let (words, timeout) = (spec.command.clone(), spec.timeout);
    tokio::spawn(async move {
        let killed = async {
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        let mut over = over;
        let code = tokio::select! {
            code = program.run(&words) => code,
            () = killed => 137,
            () = over.closed() => return,
        };
        _ = over.send(code);
    });
    Ok(Session {
        stdin: spec.streams.stdin.then(|| Box::new(stdin) as _),
        stdout: spec.streams.stdout.then(|| Box::new(stdout) as _),
        stderr: (spec.streams.stderr && !spec.tty).then(|| Box::new(stderr) as _),
        resize: spec.tty.then(|| Arc::new(Size(resize)) as _),
        exit: Box::pin(async move { exit.await.map_err(|_| Error::again("ExecError", "the program was lost".into())) }),
    })
}
