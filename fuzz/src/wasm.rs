//! What the processes of the runtimes read: each other's messages, components, answers of name servers.

use coracle_runtime::wire::socket::Link;
use coracle_runtime_oci::wire as shim;
use coracle_runtime_wasm::{
    classify,
    host::resolve,
    wire::{Answered, Order, Request, Said, VERSION},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io::{ErrorKind, Write},
    os::unix::net::UnixStream,
};

/// What arrives when these bytes are sent.
fn received<M: DeserializeOwned>(data: &[u8]) -> Vec<M> {
    let (mut from, to) = UnixStream::pair().expect("sockets");
    from.set_nonblocking(true).expect("non-blocking");
    to.set_nonblocking(true).expect("non-blocking");
    let mut link = Link::new(to.into());
    let mut found = Vec::new();
    for part in data.chunks(16 << 10) {
        from.write_all(part).expect("a socket takes a piece");
        match link.fill() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return found,
            _ => {}
        }
        while let Ok(Some((message, descriptors))) = link.receive() {
            assert!(descriptors.is_empty(), "none were sent");
            found.push(message);
        }
    }
    found
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&0x0c0_7ac1e_u32.to_le_bytes()[..], &VERSION.to_le_bytes(), &[0; 2], &(body.len() as u32).to_le_bytes(), body].concat()
}

/// A message, written again, is read as the same.
fn again<M: Serialize + DeserializeOwned>(data: &[u8]) {
    for message in received::<M>(data) {
        let once = serde_json::to_string(&message).expect("a message is JSON");
        let back = received::<M>(&frame(once.as_bytes()));
        assert_eq!(back.iter().map(|m| serde_json::to_string(m).expect("JSON")).collect::<Vec<_>>(), [once]);
    }
}

pub fn control_socket(data: &[u8]) {
    for data in [data, &frame(data)] {
        again::<Request>(data);
        again::<Answered>(data);
        again::<Order>(data);
        again::<Said>(data);
        again::<shim::Request>(data);
        again::<shim::Answered>(data);
    }
}

pub fn modules(data: &[u8]) {
    if let Err(why) = classify::look(data) {
        assert!(!why.is_empty() && why.len() < 2048 + data.len(), "a reason one can read: {why}");
    }
}

pub fn name_answers(data: &[u8]) {
    if let Ok(addresses) = resolve::answers(data) {
        // A header of 12 bytes, and a record is at least a name, 10 bytes and an address of 4.
        assert!(addresses.len() * 15 <= data.len().saturating_sub(12), "{addresses:?}");
    }
}
