//! Messages in and out, over UDP and TCP (RFC 1035, 7766; EDNS of RFC 6891).

use super::{
    forward::Upstreams,
    gate::Gate,
    zone::{Answer, Zone},
};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};
use parking_lot::RwLock;
use rand::seq::SliceRandom;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time::timeout,
};

/// What fits a datagram on any path (DNS flag day 2020).
const DATAGRAM: u16 = 1232;
/// Questions that others are being asked at once, of all pods and of one; one more is told to try again.
const ASKING: (usize, usize) = (512, 64);
/// Connections at once, likewise; one more is closed.
const CONNECTIONS: (usize, usize) = (256, 16);
/// Random ports that are tried for both ways in.
const PORTS: usize = 16;
/// A connection that says nothing for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// Aliases that are followed one after the other.
const ALIASES: usize = 8;
/// First and longest wait before it is tried again to listen.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// What answers.
pub struct Server {
    /// The cluster's names.
    pub zone: Arc<RwLock<Zone>>,
    /// Everybody else's.
    pub upstreams: Upstreams,
}

/// Both ways in.
pub struct Sockets {
    datagrams: std::net::UdpSocket,
    connections: std::net::TcpListener,
    address: SocketAddr,
}

impl Sockets {
    /// Both at one port, whatever it is when that is 0.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bind(wanted: SocketAddr) -> io::Result<Self> {
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::both(wanted) {
                // The port that one of them was given may be somebody's for the other.
                Err(why) if wanted.port() == 0 && why.kind() == io::ErrorKind::AddrInUse && tries < PORTS => {}
                done => return done,
            }
        }
    }

    fn both(wanted: SocketAddr) -> io::Result<Self> {
        let datagrams = std::net::UdpSocket::bind(wanted)?;
        let address = datagrams.local_addr()?;
        let connections = std::net::TcpListener::bind(address)?;
        datagrams.set_nonblocking(true)?;
        connections.set_nonblocking(true)?;
        Ok(Self { datagrams, connections, address })
    }

    /// With its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Serves; listens first if that could not be done yet.
pub async fn run(server: Arc<Server>, address: SocketAddr, first: Option<Sockets>) {
    let mut wait = AGAIN.0;
    let mut next = first.map(Ok);
    loop {
        let opened = next.take().unwrap_or_else(|| Sockets::bind(address));
        let why = match opened.and_then(|sockets| Ok((UdpSocket::from_std(sockets.datagrams)?, TcpListener::from_std(sockets.connections)?))) {
            Ok((datagrams, connections)) => {
                wait = AGAIN.0;
                tokio::select! {
                    why = serve_datagrams(&server, datagrams) => why,
                    why = serve_connections(&server, connections) => why,
                }
            }
            Err(why) => why,
        };
        tracing::error!(%why, %address, "cluster DNS cannot listen; it is tried again");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(AGAIN.1);
    }
}

async fn serve_datagrams(server: &Arc<Server>, socket: UdpSocket) -> io::Error {
    let (socket, gate) = (Arc::new(socket), Gate::new(ASKING.0, ASKING.1));
    let mut asking = JoinSet::new();
    // More than any question has.
    let mut buffer = [0; 4096];
    loop {
        while asking.try_join_next().is_some() {}
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An earlier reply found nobody any more.
            Err(why) if matches!(why.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset) => continue,
            Err(why) => return why,
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        match server.first(bytes) {
            First::Silence => {}
            First::Reply(query, reply) => {
                // A reply that is lost is asked for again.
                let _ = socket.send_to(&fit(reply, limit(&query)), from).await;
            }
            First::Ask(query, begun) => {
                let Some(place) = gate.enter(from.ip()) else {
                    let _ = socket.send_to(&fit(failed(&query, ResponseCode::ServFail), limit(&query)), from).await;
                    continue;
                };
                let (server, socket, bytes) = (server.clone(), socket.clone(), bytes.to_vec());
                asking.spawn(async move {
                    let reply = server.ask(&query, &bytes, begun, false).await;
                    let _ = socket.send_to(&reply, from).await;
                    drop(place);
                });
            }
        }
    }
}

async fn serve_connections(server: &Arc<Server>, listener: TcpListener) -> io::Error {
    let (mut open, gate) = (JoinSet::new(), Gate::new(CONNECTIONS.0, CONNECTIONS.1));
    loop {
        while open.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => {
                let Some(place) = gate.enter(from.ip()) else { continue };
                let server = server.clone();
                open.spawn(async move {
                    let _place = place;
                    if let Err(why) = converse(&server, stream).await {
                        tracing::trace!(%why, "a connection to cluster DNS ended");
                    }
                });
            }
            // Gone before it was taken, or no descriptors left for a moment.
            Err(why) => {
                tracing::debug!(%why, "take a connection to cluster DNS");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn converse(server: &Server, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let length = timeout(IDLE, stream.read_u16()).await??;
        let mut bytes = vec![0; length.into()];
        timeout(IDLE, stream.read_exact(&mut bytes)).await??;
        let reply = match server.first(&bytes) {
            First::Silence => return Ok(()),
            First::Reply(_, reply) => fit(reply, None),
            First::Ask(query, begun) => server.ask(&query, &bytes, begun, true).await,
        };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        timeout(IDLE, stream.write_all(&[&length.to_be_bytes(), &*reply].concat())).await??;
    }
}

/// What a question comes to without asking anybody.
enum First {
    /// Not a question: an answer to it could go round for ever.
    Silence,
    Reply(Message, Message),
    /// Others have to be asked: for all of it, or for what this answer's alias leads to.
    Ask(Message, Option<(Message, Name)>),
}

impl Server {
    fn first(&self, bytes: &[u8]) -> First {
        let query = match Message::from_vec(bytes) {
            Ok(query) if query.metadata.message_type == MessageType::Query => query,
            Ok(_) => return First::Silence,
            Err(_) => return malformed(bytes).map_or(First::Silence, |reply| First::Reply(Message::query(), reply)),
        };
        let code = match (query.metadata.op_code, query.queries.as_slice()) {
            _ if query.version() > 0 => Some(ResponseCode::BADVERS),
            (OpCode::Query, [_]) => None,
            (OpCode::Query, _) => Some(ResponseCode::FormErr),
            _ => Some(ResponseCode::NotImp),
        };
        let [asked] = query.queries.as_slice() else {
            let reply = failed(&query, code.unwrap_or(ResponseCode::FormErr));
            return First::Reply(query, reply);
        };
        if let Some(code) = code.or((asked.query_class != DNSClass::IN).then_some(ResponseCode::Refused)) {
            let reply = failed(&query, code);
            return First::Reply(query, reply);
        }
        let mut reply = respond(&query);
        let (name, of) = (asked.name.clone(), asked.query_type);
        match self.extend(&mut reply, &name, of) {
            Some(next) if next == name => First::Ask(query, None),
            Some(next) => First::Ask(query, Some((reply, next))),
            None => First::Reply(query, reply),
        }
    }

    /// Puts what the zone says of a name, and of those that it is an alias of, into the reply. Returns the name that others must be asked for.
    fn extend(&self, reply: &mut Message, name: &Name, of: RecordType) -> Option<Name> {
        let zone = self.zone.read();
        let mut name = name.clone();
        for _ in 0..ALIASES {
            match zone.answer(&name, of) {
                Answer::Elsewhere => return Some(name),
                Answer::NoName => {
                    reply.metadata.response_code = ResponseCode::NXDomain;
                    reply.metadata.authoritative = true;
                    reply.add_authority(zone.authority());
                    return None;
                }
                Answer::Found(mut found) => {
                    reply.metadata.authoritative = true;
                    if found.records.is_empty() {
                        reply.add_authority(zone.authority());
                    }
                    // Many take the first one.
                    found.records.shuffle(&mut rand::rng());
                    reply.add_answers(found.records);
                    reply.add_additionals(found.additional);
                    name = found.alias?;
                }
            }
        }
        None
    }

    /// Asks others: for the whole question, or for where an alias leads.
    async fn ask(&self, query: &Message, bytes: &[u8], begun: Option<(Message, Name)>, stream: bool) -> Vec<u8> {
        let Some((mut reply, next)) = begun else {
            return match self.upstreams.ask(bytes, query, stream).await {
                Some(reply) => reply.bytes,
                None => fit(failed(query, ResponseCode::ServFail), limit(query)),
            };
        };
        let mut further = Message::query();
        further.metadata.recursion_desired = true;
        let of = query.queries.first().map_or(RecordType::A, |asked| asked.query_type);
        further.add_query(Query::query(next, of));
        // An alias whose target nobody can tell is still an answer.
        if let Ok(bytes) = further.to_vec()
            && let Some(told) = self.upstreams.ask(&bytes, &further, stream).await
        {
            reply.add_answers(told.message.answers);
            if told.message.metadata.response_code == ResponseCode::NXDomain {
                reply.metadata.response_code = ResponseCode::NXDomain;
            }
            reply.metadata.truncation = told.message.metadata.truncation;
        }
        fit(reply, limit(query).filter(|_| !stream))
    }
}

/// The beginning of a reply.
fn respond(query: &Message) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_queries(query.queries.iter().cloned());
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM);
        reply.set_edns(edns);
    }
    reply
}

fn failed(query: &Message, code: ResponseCode) -> Message {
    let mut reply = respond(query);
    reply.metadata.response_code = code;
    reply
}

/// To what cannot be read but looks like a question.
fn malformed(bytes: &[u8]) -> Option<Message> {
    let [high, low, flags, ..] = *bytes else { return None };
    (bytes.len() >= 12 && flags & 0x80 == 0).then(|| Message::error_msg(u16::from_be_bytes([high, low]), OpCode::Query, ResponseCode::FormErr))
}

/// What the asker takes in one datagram.
fn limit(query: &Message) -> Option<usize> {
    Some(query.edns.as_ref().map_or(512, |edns| edns.max_payload().clamp(512, DATAGRAM)).into())
}

/// The reply's bytes. What does not fit goes, addresses that nobody asked for first; a datagram that is too small says so. None: a stream.
fn fit(mut reply: Message, limit: Option<usize>) -> Vec<u8> {
    let most = limit.unwrap_or(usize::from(u16::MAX));
    let small = |reply: &Message| reply.to_vec().ok().filter(|bytes| bytes.len() <= most);
    if let Some(bytes) = small(&reply) {
        return bytes;
    }
    reply.additionals.clear();
    while limit.is_none() && reply.answers.len() > 1 {
        if let Some(bytes) = small(&reply) {
            return bytes;
        }
        reply.answers.truncate(reply.answers.len() / 2);
    }
    small(&reply).or_else(|| reply.truncate().to_vec().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
