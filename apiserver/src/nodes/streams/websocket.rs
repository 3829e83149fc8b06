//! WebSockets whose messages begin with a channel's number: what one message is, and the socket itself.

use super::{hung_up, negotiate::Messages};
use crate::http::upgrade::IDLE;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, Stream, StreamExt, stream};
use std::pin::pin;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

/// Largest message that a client may send; what kubectl sends has 32 KiB.
const MAX_MESSAGE: usize = 1 << 20;
/// What an idle socket keeps.
const BUFFER: usize = 8 << 10;
/// The number that says that a channel ends (v5).
const END: u8 = 255;

/// The server's end of a socket whose handshake is done.
pub async fn socket<T: AsyncRead + AsyncWrite + Unpin>(io: T) -> WebSocketStream<T> {
    let config = WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(0);
    let config = config.max_write_buffer_size(4 * MAX_MESSAGE).max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// The end that was meant to be. Without its code, clients take it for a broken connection.
pub fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// A sentence about why a connection broke off, for the log alone.
pub type Broken = Box<dyn std::error::Error + Send + Sync>;

/// Sends these messages to a client that has nothing to say itself, then the goodbye. When the client goes, what makes the messages is dropped.
pub async fn tell(io: impl AsyncRead + AsyncWrite + Unpin, messages: impl Stream<Item = Result<Message, Broken>>) -> Result<(), Broken> {
    let (mut client, mut from_client) = socket(io).await.split();
    let outward = async {
        let mut messages = pin!(messages.chain(stream::iter([Ok(goodbye())])));
        while let Some(message) = messages.next().await {
            timeout(IDLE, client.send(message?)).await??;
        }
        Ok::<_, Broken>(())
    };
    let inward = async {
        while let Some(said) = from_client.next().await {
            said?;
        }
        Ok::<_, Broken>(())
    };
    tokio::select! {
        gone = inward => return gone,
        done = outward => done?,
    }
    hung_up(from_client, Message::len).await;
    Ok(())
}

/// What a client said.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// Bytes on a channel.
    Data(u8, Bytes),
    /// No more on a channel.
    End(u8),
    /// Nothing of meaning: a ping, or something that is passed over as upstream does.
    Nothing,
}

impl Messages {
    /// What a message says. An error ends the connection.
    pub fn read(self, message: Message) -> Result<Said, &'static str> {
        let data = match message {
            Message::Binary(data) => data,
            Message::Text(text) => Bytes::from(text),
            _ => return Ok(Said::Nothing),
        };
        Ok(match data.first() {
            None => Said::Nothing,
            Some(digit) if self.base64 => match STANDARD.decode(data.get(1..).unwrap_or_default()) {
                Ok(bytes) => Said::Data(digit.wrapping_sub(b'0'), bytes.into()),
                Err(_) => return Err("a message is not base64"),
            },
            Some(&END) if self.ends => match data.as_ref() {
                [_, channel] => Said::End(*channel),
                _ => return Err("a channel's end names one channel"),
            },
            Some(channel) => Said::Data(*channel, data.slice(1..)),
        })
    }

    /// The message for bytes on a channel.
    pub fn write(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            let mut text = String::from(char::from(channel.wrapping_add(b'0')));
            STANDARD.encode_string(data, &mut text);
            return Message::text(text);
        }
        let mut message = BytesMut::with_capacity(1 + data.len());
        message.put_u8(channel);
        message.put_slice(data);
        Message::Binary(message.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_channels() {
        let form = |base64, ends| Messages { base64, ends, status: true };
        let (v5, v4, base64) = (form(false, true), form(false, false), form(true, false));
        let binary = |bytes: &'static [u8]| Message::Binary(Bytes::from_static(bytes));
        assert_eq!(v5.read(binary(b"\x00hi")), Ok(Said::Data(0, "hi".into())));
        assert_eq!(v5.read(binary(b"\xff\x00")), Ok(Said::End(0)));
        assert!(v5.read(binary(b"\xff")).is_err() && v5.read(binary(b"\xff\x00\x00")).is_err());
        assert_eq!(v4.read(binary(b"\xff\x00")), Ok(Said::Data(255, Bytes::from_static(b"\0"))));
        assert_eq!((v5.read(binary(b"")), v5.read(Message::Ping(Bytes::new()))), (Ok(Said::Nothing), Ok(Said::Nothing)));
        assert_eq!(base64.read(Message::text("0Zm9vCgo=")), Ok(Said::Data(0, "foo\n\n".into())));
        assert!(base64.read(Message::text("0!")).is_err());
        assert_eq!(base64.write(1, b"\n"), Message::text("1Cg=="));
        assert_eq!(v5.write(3, b"{}"), binary(b"\x03{}"));
    }
}
