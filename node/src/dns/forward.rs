//! Questions about the world: asked of the machine's own name servers, as its resolv.conf has them (a machine moves between networks).

use super::resolv::ResolvConf;
use hickory_proto::op::{Message, ResponseCode};
use parking_lot::Mutex;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{Instant, timeout},
};

/// One server may take this long, once.
const PATIENCE: Duration = Duration::from_millis(1500);
/// All of them together: resolvers give up after 5 s.
const ALTOGETHER: Duration = Duration::from_millis(4500);
/// Rounds over all servers; a datagram may be lost.
const ROUNDS: usize = 2;
/// What resolv.conf said is believed for so long.
const FRESH: Duration = Duration::from_secs(1);
/// Servers that are looked at, as a resolver of libc does.
const SERVERS: usize = 3;

/// The machine's name servers.
pub struct Upstreams {
    resolv_conf: PathBuf,
    /// This server's address: a machine that asks us would have us ask ourselves.
    own: IpAddr,
    port: u16,
    /// Who answered last is asked first: one that is dead costs its patience once, not with every question.
    answered: Mutex<Option<IpAddr>>,
    /// What resolv.conf said, and when.
    known: Mutex<Option<(Instant, Vec<IpAddr>)>>,
}

/// A reply as it came, but for its id, and what it says.
pub struct Reply {
    /// With the question's id.
    pub bytes: Vec<u8>,
    /// Understood.
    pub message: Message,
}

impl Upstreams {
    /// Nothing is read yet.
    pub fn new(resolv_conf: PathBuf, own: IpAddr) -> Self {
        Self { resolv_conf, own, port: 53, answered: Mutex::default(), known: Mutex::default() }
    }

    /// The machine's servers, the one that answered last first.
    async fn servers(&self) -> Vec<IpAddr> {
        let fresh = self.known.lock().clone().filter(|(when, _)| when.elapsed() < FRESH);
        let mut servers = match fresh {
            Some((_, servers)) => servers,
            None => {
                let (path, own) = (self.resolv_conf.clone(), self.own);
                let read =
                    tokio::task::spawn_blocking(move || ResolvConf::read(&path).servers.into_iter().filter(|ip| *ip != own).take(SERVERS).collect());
                let servers: Vec<IpAddr> = read.await.unwrap_or_default();
                *self.known.lock() = Some((Instant::now(), servers.clone()));
                servers
            }
        };
        let last = *self.answered.lock();
        servers.sort_by_key(|server| Some(*server) != last);
        servers
    }

    /// Asks one server after the other; the first answer that is one, else what was said last. None: nobody answered in time.
    pub async fn ask(&self, query: &[u8], asked: &Message, stream: bool) -> Option<Reply> {
        let servers = self.servers().await;
        let mut refused = None;
        let all = async {
            for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
                match timeout(PATIENCE, exchange(SocketAddr::new(*server, self.port), query, asked, stream)).await {
                    Ok(Ok(reply)) if matches!(reply.message.metadata.response_code, ResponseCode::ServFail | ResponseCode::Refused) => {
                        refused = Some(reply);
                    }
                    Ok(Ok(reply)) => {
                        *self.answered.lock() = Some(*server);
                        return Some(reply);
                    }
                    Ok(Err(why)) => tracing::debug!(%why, %server, "ask a name server"),
                    Err(_) => {}
                }
            }
            None
        };
        timeout(ALTOGETHER, all).await.ok().flatten().or(refused)
    }
}

async fn exchange(server: SocketAddr, query: &[u8], asked: &Message, stream: bool) -> io::Result<Reply> {
    // With a random port and a connected socket: who guesses an answer has to guess this too.
    let id: u16 = rand::random();
    let mut sent = query.to_vec();
    set_id(&mut sent, id);
    let fits = |bytes: Vec<u8>| {
        let message = Message::from_vec(&bytes).ok()?;
        (message.metadata.id == id && message.queries == asked.queries).then_some((bytes, message))
    };
    let (mut bytes, message) = if stream {
        let mut connection = TcpStream::connect(server).await?;
        let length = u16::try_from(sent.len()).map_err(io::Error::other)?;
        connection.write_all(&[&length.to_be_bytes(), &*sent].concat()).await?;
        let mut reply = vec![0; usize::from(connection.read_u16().await?)];
        connection.read_exact(&mut reply).await?;
        fits(reply).ok_or_else(|| io::Error::other("the reply is none to this question"))?
    } else {
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
        socket.connect(server).await?;
        socket.send(&sent).await?;
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let length = socket.recv(&mut buffer).await?;
            // Not a reply to us: somebody guesses.
            if let Some(reply) = buffer.get(..length).and_then(|reply| fits(reply.to_vec())) {
                break reply;
            }
        }
    };
    set_id(&mut bytes, asked.metadata.id);
    Ok(Reply { bytes, message })
}

fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::{
        op::Query,
        rr::{Name, RData, Record, RecordType, rdata::A},
    };

    /// Answers every question with `code` and, first, with a datagram of somebody who guesses.
    async fn name_server(ip: IpAddr, port: u16, code: ResponseCode) -> u16 {
        let socket = UdpSocket::bind((ip, port)).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let asked = Message::from_vec(&buffer[..length]).unwrap();
                let mut reply = Message::response(asked.metadata.id, asked.metadata.op_code);
                reply.add_queries(asked.queries.iter().cloned());
                reply.metadata.response_code = code;
                reply.add_answer(Record::from_rdata(asked.queries[0].name.clone(), 5, RData::A(A([1, 2, 3, 4].into()))));
                let mut guess = reply.clone();
                guess.metadata.id = asked.metadata.id.wrapping_add(1);
                for message in [guess, reply] {
                    socket.send_to(&message.to_vec().unwrap(), from).await.unwrap();
                }
            }
        });
        port
    }

    #[tokio::test]
    async fn others_are_asked_until_one_answers_and_that_one_first_from_then_on() {
        let ips: [IpAddr; 3] = ["127.0.53.1".parse().unwrap(), "127.0.53.2".parse().unwrap(), "127.0.53.3".parse().unwrap()];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        std::fs::write(&path, format!("nameserver {}\nnameserver {}\nnameserver {}\n", ips[0], ips[1], ips[2])).unwrap();
        // Nobody listens at the first, the second fails, the third is well.
        let port = name_server(ips[1], 0, ResponseCode::ServFail).await;
        name_server(ips[2], port, ResponseCode::NoError).await;
        let upstreams = Upstreams { port, ..Upstreams::new(path, [127, 0, 0, 10].into()) };
        let mut asked = Message::query();
        asked.add_query(Query::query(Name::from_ascii("example.org.").unwrap(), RecordType::A));
        let reply = upstreams.ask(&asked.to_vec().unwrap(), &asked, false).await.unwrap();
        assert_eq!((reply.message.metadata.response_code, reply.message.answers.len()), (ResponseCode::NoError, 1));
        assert_eq!(Message::from_vec(&reply.bytes).unwrap().metadata.id, asked.metadata.id, "the asker's id");
        assert_eq!(upstreams.servers().await, [ips[2], ips[0], ips[1]]);
    }
}
