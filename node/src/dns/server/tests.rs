use super::*;
use crate::mirror::Key;
use hickory_proto::rr::{RData, Record, rdata::A};
use serde_json::json;

fn query(name: &str, of: RecordType) -> Message {
    let mut query = Message::query();
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), of));
    query
}

fn server(resolv_conf: &std::path::Path) -> Arc<Server> {
    let mut zone = Zone::new("cluster.local", [127, 0, 0, 10].into(), Vec::new()).unwrap();
    let service = |name: &str, spec: serde_json::Value| (Key::new("services", "d", name), Some(json!({ "spec": spec }).to_string().into()));
    let many: Vec<_> = (0..200).map(|n| json!({ "addresses": [format!("10.0.{}.{}", n / 100, n % 100)] })).collect();
    let slice = json!({ "metadata": { "labels": { "kubernetes.io/service-name": "many" } }, "endpoints": many });
    zone.apply(&[
        service("web", json!({ "clusterIP": "10.96.0.5" })),
        service("many", json!({ "clusterIP": "None" })),
        service("near", json!({ "type": "ExternalName", "externalName": "web.d.svc.cluster.local" })),
        service("far", json!({ "type": "ExternalName", "externalName": "example.org" })),
        service("a", json!({ "type": "ExternalName", "externalName": "b.d.svc.cluster.local" })),
        service("b", json!({ "type": "ExternalName", "externalName": "a.d.svc.cluster.local" })),
        (Key::new("endpointslices.discovery.k8s.io", "d", "many-1"), Some(slice.to_string().into())),
    ]);
    Arc::new(Server { zone: Arc::new(RwLock::new(zone)), upstreams: Upstreams::new(resolv_conf.into(), [127, 0, 0, 10].into()) })
}

fn nowhere() -> Arc<Server> {
    server(std::path::Path::new("/nonexistent"))
}

/// The reply that needs nobody else.
fn reply(server: &Server, query: &Message) -> Message {
    match server.first(&query.to_vec().unwrap()) {
        First::Reply(_, reply) => reply,
        First::Ask(..) => panic!("others are asked"),
        First::Silence => panic!("silence"),
    }
}

#[test]
fn names_of_the_cluster_are_answered_here() {
    let server = nowhere();
    let found = reply(&server, &query("web.d.svc.cluster.local.", RecordType::A));
    assert_eq!((found.metadata.response_code, found.answers.len(), found.metadata.authoritative), (ResponseCode::NoError, 1, true));
    assert!(found.metadata.recursion_available && found.metadata.recursion_desired && found.authorities.is_empty());
    let none = reply(&server, &query("web.d.svc.cluster.local.", RecordType::AAAA));
    assert_eq!((none.metadata.response_code, none.answers.len(), none.authorities.len()), (ResponseCode::NoError, 0, 1));
    let gone = reply(&server, &query("gone.d.svc.cluster.local.", RecordType::A));
    assert_eq!((gone.metadata.response_code, gone.answers.len(), gone.authorities.len()), (ResponseCode::NXDomain, 0, 1));
    let alias = reply(&server, &query("near.d.svc.cluster.local.", RecordType::A));
    let text: Vec<String> = alias.answers.iter().map(|record| record.data.to_string()).collect();
    assert_eq!(text, ["web.d.svc.cluster.local.", "10.96.0.5"]);
    let round = reply(&server, &query("a.d.svc.cluster.local.", RecordType::A));
    assert_eq!(round.answers.len(), ALIASES, "a circle ends");
}

#[test]
fn what_is_no_question_is_refused_or_left() {
    let server = nowhere();
    let mut class = query("web.d.svc.cluster.local.", RecordType::A);
    class.queries[0].query_class = DNSClass::CH;
    assert_eq!(reply(&server, &class).metadata.response_code, ResponseCode::Refused);
    let mut two = query("web.d.svc.cluster.local.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(reply(&server, &two).metadata.response_code, ResponseCode::FormErr);
    let mut notify = query("web.d.svc.cluster.local.", RecordType::SOA);
    notify.metadata.op_code = OpCode::Notify;
    assert_eq!(reply(&server, &notify).metadata.response_code, ResponseCode::NotImp);
    let answer = Message::response(7, OpCode::Query);
    assert!(matches!(server.first(&answer.to_vec().unwrap()), First::Silence));
    assert!(matches!(server.first(b"\0\x07\x01\0\0\x01"), First::Silence));
    let First::Reply(_, broken) = server.first(b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\xff\xff") else { panic!("a reply") };
    assert_eq!((broken.metadata.id, broken.metadata.response_code), (7, ResponseCode::FormErr));
}

#[test]
fn a_datagram_that_is_too_small_says_so() {
    let server = nowhere();
    let mut asked = query("many.d.svc.cluster.local.", RecordType::A);
    let whole = reply(&server, &asked);
    assert_eq!(whole.answers.len(), 200);
    let small = Message::from_vec(&fit(whole.clone(), limit(&asked))).unwrap();
    assert!(small.metadata.truncation && small.answers.is_empty());
    assert_eq!(limit(&asked), Some(512));
    let mut edns = Edns::new();
    edns.set_max_payload(60_000);
    asked.set_edns(edns);
    assert_eq!(limit(&asked), Some(1232), "no more than a path takes");
    assert_eq!(Message::from_vec(&fit(whole.clone(), None)).unwrap().answers.len(), 200);
    let mut huge = whole;
    let record = |n: u32| Record::from_rdata(Name::from_ascii(format!("{n}.{}.", "x".repeat(60))).unwrap(), 5, RData::A(A([1, 2, 3, 4].into())));
    huge.answers = (0..5000).map(record).collect();
    let cut = fit(huge, None);
    assert!(cut.len() <= usize::from(u16::MAX) && !Message::from_vec(&cut).unwrap().answers.is_empty(), "a stream has as many as it takes");
}

#[tokio::test]
async fn nobody_to_ask_is_a_failure_of_the_server_and_an_alias_stays_one() {
    let server = nowhere();
    let asked = query("example.org.", RecordType::A);
    let bytes = asked.to_vec().unwrap();
    let told = Message::from_vec(&server.ask(&asked, &bytes, None, false).await).unwrap();
    assert_eq!((told.metadata.response_code, told.metadata.id), (ResponseCode::ServFail, asked.metadata.id));
    let asked = query("far.d.svc.cluster.local.", RecordType::A);
    let First::Ask(asked, begun) = server.first(&asked.to_vec().unwrap()) else { panic!("others are asked") };
    let told = Message::from_vec(&server.ask(&asked, &[], begun, false).await).unwrap();
    assert_eq!((told.metadata.response_code, told.answers.len()), (ResponseCode::NoError, 1));
}

#[tokio::test]
async fn both_ways_in_answer() {
    let server = nowhere();
    let sockets = Sockets::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = sockets.address();
    let running = tokio::spawn(run(server, address, Some(sockets)));
    let asked = query("many.d.svc.cluster.local.", RecordType::A).to_vec().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(address).await.unwrap();
    socket.send(&asked).await.unwrap();
    let mut buffer = [0; 2000];
    let length = socket.recv(&mut buffer).await.unwrap();
    assert!(Message::from_vec(&buffer[..length]).unwrap().metadata.truncation);
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Two questions, one after the other.
    for _ in 0..2 {
        stream.write_all(&[&u16::try_from(asked.len()).unwrap().to_be_bytes(), &*asked].concat()).await.unwrap();
        let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut reply).await.unwrap();
        assert_eq!(Message::from_vec(&reply).unwrap().answers.len(), 200);
    }
    running.abort();
}
