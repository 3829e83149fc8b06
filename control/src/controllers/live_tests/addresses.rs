//! Addresses of Services.

use super::{Cluster, run};
use coracle_apiserver::{
    pipeline::object,
    resources::networking::address::{IP_ADDRESSES, for_service},
    view::stamp,
};
use coracle_store::{Expect, Key, Op, Txn};
use jiff::Timestamp;

#[test]
fn an_address_that_no_service_has_goes() {
    run(async {
        let cluster = Cluster::new().await;
        let row = cluster.client.core().registry.by_kind("networking.k8s.io", "v1", "IPAddress").expect("a row");
        let key = |ip: &str| Key::new(IP_ADDRESSES, "", ip);
        // As a server leaves them that stopped between an address and its Service; old, young, and one that somebody else manages.
        let old = "2020-01-02T03:04:05Z".to_owned();
        let mut ops = Vec::new();
        for (ip, made, ours) in [("10.96.7.1", &old, true), ("10.96.7.2", &stamp(Timestamp::now()), true), ("10.96.7.3", &old, false)] {
            let mut address = for_service(&ip.parse().expect("an address"), "default", "gone");
            address["metadata"]["uid"] = ip.into();
            address["metadata"]["creationTimestamp"] = made.as_str().into();
            if !ours {
                address["metadata"]["labels"] = serde_json::json!({});
            }
            ops.push(Op::Put { key: key(ip), expect: Expect::Absent, draft: object::draft(&row, &address) });
        }
        cluster.client.store().commit(Txn { ops }).await.expect("written");
        let there = |ip: &str| cluster.client.store().snapshot().get(&key(ip)).is_some();
        cluster.until("the orphan goes", |_| (!there("10.96.7.1")).then_some(())).await;
        assert!(there("10.96.7.2"), "its Service may still come");
        assert!(there("10.96.7.3"), "it is not this server's");
        cluster.stop().await;
    });
}
