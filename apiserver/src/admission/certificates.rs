//! Certificate requests: who may approve (CertificateApproval) and sign (CertificateSigning) is told by rights over the signer, and nobody asks for the
//! masters' group (CertificateSubjectRestriction).

use super::{Plugin, lookup};
use crate::{
    auth::Attributes,
    resources::{
        Cx,
        certificates::{REQUESTS, request_of},
    },
};
use coracle_api::status::Status;
use serde_json::Value;

/// CertificateApproval.
pub struct CertificateApproval;
/// CertificateSigning.
pub struct CertificateSigning;
/// CertificateSubjectRestriction.
pub struct CertificateSubjectRestriction;

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// Whether the user has this right over the signer, by its name or by all of its domain.
fn may(cx: &Cx<'_>, verb: &str, signer: &str) -> bool {
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    [signer, &domain].into_iter().any(|name| {
        let ask = Attributes { verb, group: "certificates.k8s.io", version: "*", resource: "signers", name, ..Attributes::default() };
        cx.core.auth.authorize(cx.user(), &ask).allowed()
    })
}

fn signer(object: &Value) -> &str {
    object["spec"]["signerName"].as_str().unwrap_or_default()
}

impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<(), Status> {
        let (Some(old), Some(new)) = (old, new) else { return Ok(()) };
        if cx.subresource() != "approval" || cx.row().id() != REQUESTS || may(cx, "approve", signer(old)) {
            return Ok(());
        }
        Err(lookup::forbidden(cx, new, &format!("user not permitted to approve requests with signerName {:?}", signer(old))))
    }
}

impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<(), Status> {
        let (Some(old), Some(new)) = (old, new) else { return Ok(()) };
        let same = ["certificate", "conditions"].iter().all(|field| old["status"][*field] == new["status"][*field]);
        if cx.subresource() != "status" || cx.row().id() != REQUESTS || same || may(cx, "sign", signer(old)) {
            return Ok(());
        }
        Err(lookup::forbidden(cx, new, &format!("user not permitted to sign requests with signerName {:?}", signer(old))))
    }
}

impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }
    fn validate(&self, cx: &Cx<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<(), Status> {
        let Some(new) = new.filter(|new| old.is_none() && cx.row().id() == REQUESTS && signer(new) == CLIENT) else { return Ok(()) };
        let request = request_of(new).map_err(|why| lookup::forbidden(cx, new, &format!("failed to parse CSR: {why}")))?;
        match request.organizations.iter().any(|group| group == "system:masters") {
            true => Err(lookup::forbidden(cx, new, &format!("use of {CLIENT} signer with system:masters group is not allowed"))),
            false => Ok(()),
        }
    }
}
