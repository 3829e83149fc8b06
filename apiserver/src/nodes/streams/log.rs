//! A log over a WebSocket: what the node says, in messages of bytes or of base64, as upstream's `wsstream` sends what it streams.

use super::{
    HttpParts, NodeLink, Upgrade,
    negotiate::{self, LOG, Speech},
    websocket::{self, Broken},
};
use crate::nodes::{accepted, logs::frames};
use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use coracle_api::status::Status;
use coracle_link::{Stream, protocol::Open};
use futures::{StreamExt, TryStreamExt, stream};
use http::Response;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::Message;

/// Answers a client that asked for a WebSocket; without a node and what to ask of it there is no log yet.
pub(in crate::nodes) async fn serve(
    link: &dyn NodeLink,
    http: &HttpParts,
    upgrade: &Upgrade,
    from: Option<(&str, Open)>,
) -> Result<Response<Body>, Status> {
    let (speech, headers) = negotiate::agree(&LOG, &upgrade.to, &http.headers)?;
    let base64 = speech == Speech::Plain { base64: true };
    let stream = match from {
        Some((node, open)) => Some(accepted(link, node, open).await?),
        None => None,
    };
    Ok(upgrade.serve(headers, move |io| async move {
        if let Err(why) = over_websocket(io, base64, stream).await {
            tracing::debug!(%why, "a log over a WebSocket broke off");
        }
    }))
}

async fn over_websocket(io: impl AsyncRead + AsyncWrite + Unpin, base64: bool, stream: Option<Box<dyn Stream>>) -> Result<(), Broken> {
    let message = |data: Bytes| if base64 { Message::text(STANDARD.encode(data)) } else { Message::Binary(data) };
    // Clients wait for a first message to know that all went well.
    let first = stream::iter([Ok(message(Bytes::new()))]);
    let said = stream::iter(stream).flat_map(frames).err_into();
    websocket::tell(io, first.chain(said.map_ok(message))).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_link::{memory, pki::Subject};
    use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

    fn nobody() -> Subject {
        Subject { common_name: String::new(), organizations: Vec::new() }
    }

    /// What a client reads of a log whose node says these frames, and how the connection ends.
    async fn read(base64: bool, frames: &[&'static str]) -> (Vec<Message>, bool) {
        let (ours, theirs) = memory::pair(nobody(), nobody());
        let (mut node, stream) = (theirs.open().await.unwrap(), ours.accept().await.unwrap());
        for frame in frames {
            node.send(Bytes::from_static(frame.as_bytes())).await.unwrap();
        }
        let (client, server) = tokio::io::duplex(64);
        let served = tokio::spawn(async move { over_websocket(server, base64, Some(stream)).await.is_ok() });
        drop(node);
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let mut said = Vec::new();
        while let Some(Ok(message)) = client.next().await {
            said.push(message);
        }
        (said, served.await.unwrap())
    }

    #[tokio::test]
    async fn a_log_is_messages_and_an_end() {
        let (said, well) = read(false, &["container is ", "", "alive\n"]).await;
        let bytes = |text: &'static str| Message::Binary(Bytes::from_static(text.as_bytes()));
        assert_eq!((said, well), (vec![bytes(""), bytes("container is "), bytes("alive\n"), websocket::goodbye()], true));
        let (said, _) = read(true, &["alive\n"]).await;
        assert_eq!(said, [Message::text(""), Message::text("YWxpdmUK"), websocket::goodbye()]);
    }

    #[tokio::test]
    async fn a_client_that_goes_ends_it() {
        let (ours, theirs) = memory::pair(nobody(), nobody());
        let (mut node, stream) = (theirs.open().await.unwrap(), ours.accept().await.unwrap());
        node.send(Bytes::from_static(b"more to come")).await.unwrap();
        let (client, server) = tokio::io::duplex(1 << 10);
        let served = tokio::spawn(async move { _ = over_websocket(server, false, Some(stream)).await });
        drop(client);
        served.await.unwrap();
        while node.send(Bytes::from_static(b"more")).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
