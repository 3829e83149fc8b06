//! Bytes made by hand, from the field numbers and rules of `generated.proto` and `generated.pb.go`.

use super::envelope::MAGIC;
use crate::{FieldValidation, Schemas};
use serde_json::json;

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, content.len() as u8];
    out.extend_from_slice(content);
    out
}

fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), field(1, &type_meta), field(2, raw), field(3, b""), field(4, b"")].concat()
}

#[test]
fn a_pod_is_read_with_embedded_structs_and_special_forms() {
    let secret_volume = field(6, &field(1, b"token"));
    let volume = [field(1, b"v"), field(2, &secret_volume)].concat();
    let limit = [field(1, b"cpu"), field(2, &field(1, b"100m"))].concat();
    let probe_port = [&[8u8, 1][..], &field(3, b"http")].concat();
    let probe = field(1, &field(2, &[field(1, b"/"), field(2, &probe_port)].concat()));
    let container = [field(1, b"c"), field(2, b"image"), field(8, &field(1, &limit)), field(10, &probe)].concat();
    let spec = [field(1, &volume), field(2, &container), vec![4 << 3, 30]].concat();
    let created = field(8, &[8, 0xe0, 0xd4, 3]);
    let metadata = [field(1, b"p"), created, field(11, &[field(1, b"a"), field(2, b"b")].concat())].concat();
    let raw = [field(1, &metadata), field(2, &spec)].concat();
    let schema = Schemas::builtin().get("", "v1", "Pod").unwrap();
    let (pod, _) = schema.decode_protobuf(&body("v1", "Pod", &raw), FieldValidation::Strict).unwrap();
    assert_eq!(pod["metadata"]["name"], "p");
    assert_eq!(pod["metadata"]["creationTimestamp"], "1970-01-01T16:40:00Z");
    assert_eq!(pod["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!(pod["spec"]["volumes"][0]["secret"]["secretName"], "token");
    assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["cpu"], "100m");
    assert_eq!(pod["spec"]["containers"][0]["livenessProbe"]["httpGet"]["port"], "http");
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 30);
}

#[test]
fn maps_of_bytes_and_named_lists_are_read() {
    let data = [field(1, b"k"), field(2, b"\x00v")].concat();
    let schema = Schemas::builtin().get("", "v1", "Secret").unwrap();
    let (secret, _) = schema.decode_protobuf(&body("v1", "Secret", &field(2, &data)), FieldValidation::Strict).unwrap();
    assert_eq!(secret["data"], json!({"k": "AHY="}));
    let extra = [field(1, b"k"), field(2, &[field(1, b"a"), field(1, b"b")].concat())].concat();
    let schema = Schemas::builtin().get("authorization.k8s.io", "v1", "SubjectAccessReview").unwrap();
    let raw = field(2, &field(5, &extra));
    let (review, _) = schema.decode_protobuf(&body("authorization.k8s.io/v1", "SubjectAccessReview", &raw), FieldValidation::Strict).unwrap();
    assert_eq!(review["spec"]["extra"], json!({"k": ["a", "b"]}));
}

#[test]
fn what_is_broken_is_refused() {
    let schema = Schemas::builtin().get("", "v1", "ConfigMap").unwrap();
    let good = body("v1", "ConfigMap", &field(1, &field(1, b"a")));
    assert!(schema.decode_protobuf(&good, FieldValidation::Strict).is_ok());
    for end in 0..good.len() - 4 {
        // Cut anywhere it is either refused or lacks only trailing fields; it never panics.
        let _ = schema.decode_protobuf(good.get(..end).unwrap(), FieldValidation::Strict);
    }
    for bad in [&b"{}"[..], b"k8s", b"k8s\0\x0a\xff", b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
        assert_eq!(schema.decode_protobuf(bad, FieldValidation::Strict).unwrap_err().code, 400);
    }
    let wrong = body("v1", "Secret", b"");
    assert_eq!(schema.decode_protobuf(&wrong, FieldValidation::Strict).unwrap_err().code, 400);
}

/// The message of an object as Go writes it, zeros and all: what etcd holds of such a namespace.
#[test]
fn zeros_that_are_no_pointers_are_on_the_wire() {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "creationTimestamp": "1970-01-01T00:16:40Z",
        "labels": {"b": "2", "a": "1"}}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
    let labels = [field(11, b"\x0a\x01a\x12\x011"), field(11, b"\x0a\x01b\x12\x012")].concat();
    let metadata = [
        &field(1, b"default")[..],
        // generateName, namespace, selfLink, uid, resourceVersion, generation
        b"\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x38\x00",
        &field(8, b"\x08\xe8\x07\x10\x00"),
        &labels,
    ]
    .concat();
    let raw = [field(1, &metadata), field(2, &field(1, b"kubernetes")), field(3, &field(1, b"Active"))].concat();
    assert_eq!(super::of_value(&namespace).unwrap().escape_ascii().to_string(), body("v1", "Namespace", &raw).escape_ascii().to_string());
    // Nothing set at all: structs are there, lists, maps and pointers are not, a time nobody set is empty.
    let empty = json!({"apiVersion": "v1", "kind": "Namespace"});
    let raw = b"\x0a\x10\x0a\x00\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00\x12\x00\x1a\x02\x0a\x00";
    assert_eq!(super::of_value(&empty).unwrap().escape_ascii().to_string(), body("v1", "Namespace", raw).escape_ascii().to_string());
}

#[test]
fn pointers_and_forms_of_their_own_are_written_as_go_does() {
    let message = |value: serde_json::Value| super::message_of_value(&value).unwrap();
    // A rolling update: `maxUnavailable` 0 behind a pointer, `maxSurge` in words; type 1 is a string.
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 0,
        "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}}}});
    let bytes = message(deployment);
    let update = [field(1, b"\x08\x00\x10\x00\x1a\x00"), field(2, b"\x08\x01\x10\x00\x1a\x0325%")].concat();
    let strategy = field(4, &[field(1, b""), field(2, &update)].concat());
    let has = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    assert!(has(&bytes, &strategy), "{}", bytes.escape_ascii());
    assert!(has(&bytes, b"\x08\x00"), "replicas 0");
    // Microseconds, a negative number (ten bytes), and what is no pointer though a number.
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"leaseDurationSeconds": -1, "renewTime": "1970-01-01T00:00:01.000002Z"}});
    let spec = [&b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..], &field(4, b"\x08\x01\x10\xd0\x0f")].concat();
    assert!(has(&message(lease), &field(2, &spec)));
    // Lengths over 127 take two bytes, at every level.
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "x".repeat(300)}});
    assert!(has(&message(map), &[&b"\x12\xb2\x02\x0a\x01k\x12\xac\x02"[..], "x".repeat(300).as_bytes()].concat()));
}

#[test]
fn lists_and_events_frame_messages() {
    let metadata = json!({"resourceVersion": "7", "continue": "t", "remainingItemCount": 0});
    let items = [field(2, b"ab"), field(2, b"")].concat();
    let head = super::envelope::list_head("v1", "PodList", &metadata, items.len());
    // selfLink comes first; the count is a pointer.
    let list = field(1, b"\x0a\x00\x12\x017\x1a\x01t\x20\x00");
    assert_eq!([&head[..], &items, super::envelope::TAIL].concat(), body("v1", "PodList", &[list, items.clone()].concat()));
    assert_eq!(super::envelope::item_head(2), b"\x12\x02");
    let (mut event, mut frame) = (Vec::new(), Vec::new());
    super::envelope::event("ADDED", b"k8s\0x", &mut event);
    super::envelope::event_frame("ADDED", b"k8s\0x", &mut frame);
    assert_eq!(event, [&b"\x0a\x05ADDED"[..], &field(2, &field(1, b"k8s\0x"))].concat());
    assert_eq!(frame, [&b"\0\0\0\x10"[..], &event].concat());
}
