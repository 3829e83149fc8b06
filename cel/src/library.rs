//! The libraries of functions that Kubernetes has in its expressions (`k8s.io/apiserver/pkg/cel/library`, and CEL's own extensions).

pub(crate) mod authz;
pub(crate) mod encoding;
pub(crate) mod format;
mod lists;
pub(crate) mod network;
mod operators;
mod optional;
mod quantity;
pub(crate) mod regex;
mod semver;
mod sets;
mod strings;
mod text_format;
pub(crate) mod time;
pub(crate) mod url;

use crate::functions::Library;

/// All of them.
pub(crate) const ALL: &[Library] = &[
    operators::LIBRARY,
    time::LIBRARY,
    optional::LIBRARY,
    strings::LIBRARY,
    text_format::LIBRARY,
    lists::LIBRARY,
    sets::LIBRARY,
    regex::LIBRARY,
    url::LIBRARY,
    network::LIBRARY,
    quantity::LIBRARY,
    semver::LIBRARY,
    format::LIBRARY,
    authz::LIBRARY,
    encoding::LIBRARY,
];
