//! What flows in a session with a program in a container: frames of `channel: u8 | bytes`, both ways, on one stream.
//!
//! These are the messages of Kubernetes' `v5.channel.k8s.io` (KEP-4006), so that what a client says passes through as it came. One stream for all channels keeps back-pressure and
//! order with the least machinery; who holds one channel up holds up the others, as in the WebSocket beyond.

use crate::Error;
use bytes::{BufMut, Bytes, BytesMut};

/// The number that says that a channel ends.
const END: u8 = 255;

/// A channel's meaning, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// control → node.
    Stdin = 0,
    /// node → control.
    Stdout = 1,
    /// node → control.
    Stderr = 2,
    /// node → control: how it ended, a `metav1.Status` as JSON. The last piece.
    Status = 3,
    /// control → node: the terminal's size, `{"Width": …, "Height": …}`.
    Resize = 4,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of a channel. An empty piece of output asks whether the other side is still there.
    Data(Channel, Bytes),
    /// Nothing more comes on a channel. The stream itself ends only when nobody wants the session any more.
    End(Channel),
}

fn channel(number: u8) -> Result<Channel, Error> {
    [Channel::Stdin, Channel::Stdout, Channel::Stderr, Channel::Status, Channel::Resize]
        .into_iter()
        .find(|channel| *channel as u8 == number)
        .ok_or_else(|| Error::Protocol(format!("there is no channel {number}")))
}

impl Piece {
    /// The frame's payload.
    pub fn encode(&self) -> Bytes {
        match self {
            Piece::Data(channel, data) => {
                let mut out = BytesMut::with_capacity(1 + data.len());
                out.put_u8(*channel as u8);
                out.put_slice(data);
                out.freeze()
            }
            Piece::End(channel) => Bytes::copy_from_slice(&[END, *channel as u8]),
        }
    }

    /// Without a copy.
    ///
    /// # Errors
    /// An empty frame, and a channel there is not.
    pub fn decode(frame: &Bytes) -> Result<Self, Error> {
        match frame.as_ref() {
            [END, number] => channel(*number).map(Piece::End),
            [END, ..] => Err(Error::Protocol("the end of a channel names one channel".into())),
            [number, ..] => Ok(Piece::Data(channel(*number)?, frame.slice(1..))),
            [] => Err(Error::Protocol("a frame without a channel".into())),
        }
    }
}
