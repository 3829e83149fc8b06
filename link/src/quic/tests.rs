use super::*;
use crate::{
    Connector,
    pki::{Authority, Identity, KeyPair},
    protocol::{Open, Reply},
};
use bytes::Bytes;
use std::net::SocketAddr;

/// One that stays.
fn fixed(pair: &KeyPair) -> Arc<Identity> {
    let pair = pair.clone();
    Identity::new(Authority::LEAF_VALID, move || Ok(pair.clone())).unwrap()
}

struct World {
    _dir: tempfile::TempDir,
    ca: Authority,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::open(dir.path()).unwrap();
        Self { _dir: dir, ca }
    }
    fn server(&self) -> Server {
        let pair = self.ca.server(&["127.0.0.1".into()], Authority::LEAF_VALID).unwrap();
        Server::bind("127.0.0.1:0".parse().unwrap(), self.ca.ca_pem(), fixed(&pair)).unwrap()
    }
    fn node(&self) -> KeyPair {
        self.ca.client("system:node:n1", &["system:nodes".into()], Authority::LEAF_VALID).unwrap()
    }
    fn dial(&self, to: SocketAddr, identity: &KeyPair) -> Arc<dyn Connector> {
        connector(to, self.ca.ca_pem(), fixed(identity)).unwrap()
    }
}

async fn within<T>(what: &str, f: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(15), f).await.unwrap_or_else(|_| panic!("{what}: too long"))
}

#[tokio::test]
async fn both_sides_open_streams_and_know_the_peer() {
    let world = World::new();
    let server = world.server();
    let node = world.dial(server.local_addr(), &world.node()).connect().await.unwrap();
    let seen = within("accept", server.accept()).await.unwrap();
    assert_eq!(seen.peer().common_name, "system:node:n1");
    assert_eq!(seen.peer().organizations, ["system:nodes"]);
    assert_eq!(node.peer().common_name, "coracle");

    // node → control, a body of many windows
    let big = Bytes::from(vec![7u8; 3 << 20]);
    let call = Open::Call { method: "POST".into(), path: "/x".into(), content_type: "application/json".into(), body: big.clone() };
    let answer = tokio::spawn(async move {
        let mut stream = node.open().await.unwrap();
        stream.send(call.encode()).await.unwrap();
        stream.finish().await.unwrap();
        let reply = Reply::decode(&stream.recv().await.unwrap().unwrap()).unwrap();
        assert!(stream.recv().await.unwrap().is_none());
        (reply, node)
    });
    let mut stream = within("stream", seen.accept()).await.unwrap();
    let Open::Call { body, .. } = Open::decode(&stream.recv().await.unwrap().unwrap()).unwrap() else { panic!("not a call") };
    assert_eq!(body, big);
    assert!(stream.recv().await.unwrap().is_none());
    stream.send(Reply { code: 201, body }.encode()).await.unwrap();
    stream.finish().await.unwrap();
    let (reply, node) = within("reply", answer).await.unwrap();
    assert_eq!((reply.code, reply.body.len()), (201, 3 << 20));

    // control → node
    let mut logs = seen.open().await.unwrap();
    logs.send(Open::Stats.encode()).await.unwrap();
    let mut at_node = within("stream", node.accept()).await.unwrap();
    assert_eq!(Open::decode(&at_node.recv().await.unwrap().unwrap()).unwrap(), Open::Stats);
    // the reader goes away: the writer is told
    drop(logs);
    assert!(within("end", at_node.recv()).await.unwrap().is_none());

    node.close("node says goodbye");
    assert_eq!(within("closed", seen.closed()).await, "node says goodbye");
    assert!(seen.open().await.is_err());
}

#[tokio::test]
async fn a_stranger_is_refused_and_does_not_disturb() {
    let (world, other) = (World::new(), World::new());
    let server = world.server();
    // a certificate of another CA, though it trusts ours
    let stranger = world.dial(server.local_addr(), &other.node());
    match stranger.connect().await {
        // in TLS 1.3 the client is done before the server has looked at its certificate
        Ok(connection) => {
            let why = within("refusal", connection.closed()).await;
            assert!(why.contains("certificate") || why.contains("authority"), "{why}");
        }
        Err(e) => assert!(matches!(e, Error::Tls(_)), "{e}"),
    }
    let _node = world.dial(server.local_addr(), &world.node()).connect().await.unwrap();
    let first = within("accept", server.accept()).await.unwrap();
    assert_eq!(first.peer().common_name, "system:node:n1");
}

#[tokio::test]
async fn a_server_certificate_is_no_client_certificate() {
    let world = World::new();
    let server = world.server();
    let wrong_use = world.ca.server(&[], Authority::LEAF_VALID).unwrap();
    let refused = match world.dial(server.local_addr(), &wrong_use).connect().await {
        Ok(connection) => within("refusal", connection.closed()).await,
        Err(e) => e.to_string(),
    };
    assert!(refused.to_lowercase().contains("cert"), "{refused}");
}

#[tokio::test]
async fn a_server_of_another_ca_is_refused() {
    let (world, other) = (World::new(), World::new());
    let server = other.server();
    let error = world.dial(server.local_addr(), &world.node()).connect().await.err().unwrap();
    assert!(matches!(error, Error::Tls(_)), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let world = World::new();
    let server = world.server();
    let expired = world.ca.client("system:node:n1", &[], Duration::ZERO).unwrap();
    // it is good to the end of this second
    let second = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let issued = second();
    while second() <= issued {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = match world.dial(server.local_addr(), &expired).connect().await {
        Ok(connection) => within("refusal", connection.closed()).await,
        Err(e) => e.to_string(),
    };
    assert!(refused.to_lowercase().contains("expired"), "{refused}");
}

#[tokio::test]
async fn the_servers_end_reaches_the_node() {
    let world = World::new();
    let server = world.server();
    let node = world.dial(server.local_addr(), &world.node()).connect().await.unwrap();
    let _seen = within("accept", server.accept()).await.unwrap();
    within("close", server.close()).await;
    assert_eq!(within("closed", node.closed()).await, "the server is shutting down");
    assert!(server.accept().await.is_none());
}

#[tokio::test]
async fn both_sides_go_on_beyond_the_life_of_their_certificates() {
    let world = World::new();
    let life = Duration::from_secs(3);
    let (server_ca, node_ca) = (world.ca.clone(), world.ca.clone());
    let serving = Identity::new(life, move || server_ca.server(&[], life)).unwrap();
    let dialling = Identity::new(life, move || node_ca.client("system:node:n1", &["system:nodes".into()], life)).unwrap();
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), world.ca.ca_pem(), serving.clone()).unwrap();
    let dialer = connector(server.local_addr(), world.ca.ca_pem(), dialling.clone()).unwrap();
    let first = dialer.connect().await.unwrap();
    let (old_server, old_node) = (serving.current(), dialling.current());
    let ends = |key: &rustls::sign::CertifiedKey| {
        use x509_parser::prelude::FromDer;
        let (_, certificate) = x509_parser::prelude::X509Certificate::from_der(&key.cert[0]).unwrap();
        certificate.validity().not_after.timestamp()
    };
    let end = ends(&old_server).max(ends(&old_node));
    for identity in [serving.clone(), dialling.clone()] {
        tokio::spawn(async move { identity.keep().await });
    }
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    while now() <= end {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!Arc::ptr_eq(&old_server, &serving.current()) && !Arc::ptr_eq(&old_node, &dialling.current()));
    let second = within("dial", dialer.connect()).await.unwrap();
    for _ in 0..2 {
        let seen = within("accept", server.accept()).await.unwrap();
        assert_eq!(seen.peer().common_name, "system:node:n1");
        // Those of the first connection have ended, and it has not.
        assert!(seen.open().await.is_ok());
    }
    drop((first, second));
}
