//! What webhooks of admission answer.

use coracle_apiserver::admission::review;

/// An answer to a question with the uid `u`. A no is never a success, and an answer means the same to both kinds of webhooks, but for patches.
pub fn webhook_answers(data: &[u8]) {
    for version in ["v1", "v1beta1"] {
        let [mutating, validating] = [true, false].map(|mutating| review::verdict(data, version, "u", mutating));
        if let Ok(verdict) = &validating {
            assert!(verdict.patch.is_none(), "a validating webhook patches");
        }
        if let (Ok(one), Ok(other)) = (&mutating, &validating) {
            assert_eq!((one.denied.is_some(), &one.warnings, &one.annotations), (other.denied.is_some(), &other.warnings, &other.annotations));
        }
        for denied in [mutating, validating].into_iter().flatten().filter_map(|verdict| verdict.denied) {
            let status = denied.status("a.b.c");
            assert!((400..600).contains(&status.code) && status.message.starts_with("admission webhook \"a.b.c\" denied the request"));
        }
    }
}
