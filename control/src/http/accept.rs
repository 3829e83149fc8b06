//! Content negotiation: which encoding, and whether as a `Table` or `PartialObjectMetadata`. Pure.

use coracle_api::status::Status;

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
}

/// In what shape objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As they are.
    Object,
    /// `meta.k8s.io/v1 Table`
    Table,
    /// `meta.k8s.io/v1 PartialObjectMetadata`, or its list.
    Partial,
}

/// What the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Encoding.
    pub media: Media,
    /// Shape.
    pub shape: Shape,
}

/// Longest header that is looked at, clauses and parameters bounded by it.
const MAX_LENGTH: usize = 4096;

/// One media range with its parameters.
#[derive(Debug, Default)]
pub struct Clause<'a> {
    /// `application/json`
    pub media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: u32,
}

impl Clause<'_> {
    /// A parameter's value, or the empty string.
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }
}

/// The clauses of an Accept header, best first.
pub fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<Clause<'_>> = header
        .split(',')
        .filter_map(|part| {
            let mut pieces = part.split(';').map(str::trim);
            let media = pieces.next().filter(|media| !media.is_empty())?;
            let parameters: Vec<(&str, &str)> =
                pieces.filter_map(|piece| piece.split_once('=')).map(|(k, v)| (k.trim(), v.trim().trim_matches('"'))).collect();
            let quality = parameters.iter().find(|(key, _)| *key == "q").and_then(|(_, q)| q.parse::<f32>().ok()).unwrap_or(1.0);
            Some(Clause { media, parameters, quality: (quality.clamp(0.0, 1.0) * 1000.0) as u32 })
        })
        .filter(|clause| clause.quality > 0)
        .collect();
    clauses.sort_by_key(|clause| std::cmp::Reverse(clause.quality));
    clauses
}

/// The first clause that can be served. No header means JSON. `shapes` is false where only objects make sense (writes of reviews, discovery).
pub fn negotiate(header: Option<&str>, shapes: bool) -> Result<Accepted, Status> {
    let header = header.unwrap_or("").trim();
    if header.is_empty() {
        return Ok(Accepted { media: Media::Json, shape: Shape::Object });
    }
    if header.len() > MAX_LENGTH {
        return Err(Status::bad_request(format!("the Accept header is longer than {MAX_LENGTH} bytes")));
    }
    clauses(header).iter().find_map(|clause| serve(clause, shapes)).ok_or_else(not_acceptable)
}

fn serve(clause: &Clause<'_>, shapes: bool) -> Option<Accepted> {
    let media = match clause.media {
        "application/json" | "application/*" | "*/*" | "text/*" | "text/plain" => Media::Json,
        "application/yaml" => Media::Yaml,
        _ => return None,
    };
    let shape = match clause.parameter("as") {
        "" => Shape::Object,
        name if shapes && clause.parameter("g") == "meta.k8s.io" && matches!(clause.parameter("v"), "v1" | "v1beta1") => match name {
            "Table" => Shape::Table,
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Shape::Partial,
            _ => return None,
        },
        _ => return None,
    };
    Some(Accepted { media, shape })
}

/// 406 in upstream's words.
pub fn not_acceptable() -> Status {
    Status::new(406, "NotAcceptable", "only the following media types are accepted: application/json, application/yaml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(header: &str) -> Option<(Media, Shape)> {
        negotiate(Some(header), true).ok().map(|a| (a.media, a.shape))
    }

    #[test]
    fn clients_get_the_first_thing_they_ask_for_that_exists() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(of(kubectl), Some((Media::Json, Shape::Table)));
        assert_eq!(of("application/vnd.kubernetes.protobuf,application/json"), Some((Media::Json, Shape::Object)));
        assert_eq!(of("application/vnd.kubernetes.protobuf"), None);
        assert_eq!(of("*/*"), Some((Media::Json, Shape::Object)));
        assert_eq!(of("application/yaml"), Some((Media::Yaml, Shape::Object)));
        assert_eq!(of("application/yaml;q=0.5, application/json"), Some((Media::Json, Shape::Object)));
        assert_eq!(of("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), Some((Media::Json, Shape::Partial)));
        assert_eq!(of("application/json;as=Poem;g=meta.k8s.io;v=v1"), None);
        assert_eq!(of(""), Some((Media::Json, Shape::Object)));
        assert_eq!(negotiate(Some(&"a".repeat(5000)), true).expect_err("long").code, 400);
        assert_eq!(negotiate(Some(kubectl), false).expect("falls back").shape, Shape::Object);
    }
}
