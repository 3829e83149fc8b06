//! Content negotiation: which encoding, and whether as a `Table` or `PartialObjectMetadata`. Pure.

use coracle_api::status::Status;

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

impl Media {
    /// What upstream tries in turn for a wildcard.
    const ALL: [Media; 3] = [Media::Json, Media::Yaml, Media::Protobuf];

    /// The media type of one object.
    pub fn name(self) -> &'static str {
        match self {
            Media::Json => "application/json",
            Media::Yaml => "application/yaml",
            Media::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// The media type of a watch; YAML has none.
    pub fn stream(self) -> Option<&'static str> {
        match self {
            Media::Json => Some("application/json"),
            Media::Yaml => None,
            Media::Protobuf => Some("application/vnd.kubernetes.protobuf;stream=watch"),
        }
    }

    /// The first that a media range names.
    pub fn of(range: &str) -> Option<Media> {
        Media::ALL.into_iter().find(|media| media.matches(range))
    }

    fn matches(self, range: &str) -> bool {
        range == self.name() || matches!(range, "application/*" | "*/*" | "*")
    }
}

/// In what shape objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As they are.
    Object,
    /// `meta.k8s.io Table`
    Table,
    /// `meta.k8s.io PartialObjectMetadata`: of one object, or of those in a watch.
    Partial,
    /// `meta.k8s.io PartialObjectMetadataList`
    PartialList,
}

/// What the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Encoding.
    pub media: Media,
    /// Shape.
    pub shape: Shape,
    /// `apiVersion` of a table or of partial objects.
    pub meta: &'static str,
}

impl Accepted {
    /// Objects as they are.
    pub fn plain(media: Media) -> Accepted {
        Accepted { media, shape: Shape::Object, meta: META_V1 }
    }
}

const META_V1: &str = "meta.k8s.io/v1";

/// What an endpoint can answer with.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Its objects have a protobuf encoding; custom ones have none.
    pub protobuf: bool,
    /// Tables and partial objects.
    pub shapes: bool,
}

impl Offer {
    /// Discovery, errors, reviews: kinds of our own that are no table.
    pub const PLAIN: Offer = Offer { protobuf: true, shapes: false };
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
    // Of equal quality, what is named comes before wildcards.
    clauses.sort_by_key(|clause| (std::cmp::Reverse(clause.quality), clause.media.ends_with('*')));
    clauses
}

/// The best that can be served. No header means JSON.
pub fn negotiate(header: Option<&str>, offer: Offer) -> Result<Accepted, Status> {
    let header = header.unwrap_or("").trim();
    if header.is_empty() {
        return Ok(Accepted::plain(Media::Json));
    }
    if header.len() > MAX_LENGTH {
        return Err(Status::bad_request(format!("the Accept header is longer than {MAX_LENGTH} bytes")));
    }
    clauses(header).iter().find_map(|clause| serve(clause, offer)).ok_or_else(not_acceptable)
}

/// As [`negotiate`], for a watch: what is best must have a form for streams, as upstream has it.
pub fn negotiate_stream(header: Option<&str>, offer: Offer) -> Result<Accepted, Status> {
    let accepted = negotiate(header, offer)?;
    match accepted.media.stream() {
        Some(_) => Ok(accepted),
        None => Err(refuse("application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch")),
    }
}

fn serve(clause: &Clause<'_>, offer: Offer) -> Option<Accepted> {
    let media = Media::ALL.into_iter().filter(|media| media.matches(clause.media));
    media.filter_map(|media| acceptable(clause, media, offer)).next()
}

fn acceptable(clause: &Clause<'_>, media: Media, offer: Offer) -> Option<Accepted> {
    match clause.parameter("stream") {
        "" => {}
        "watch" if media.stream().is_some() => {}
        _ => return None,
    }
    let (name, group, version) = (clause.parameter("as"), clause.parameter("g"), clause.parameter("v"));
    if (name, group, version) == ("", "", "") {
        return (media != Media::Protobuf || offer.protobuf).then(|| Accepted::plain(media));
    }
    let meta = match (group, version) {
        ("meta.k8s.io", "v1") => META_V1,
        ("meta.k8s.io", "v1beta1") => "meta.k8s.io/v1beta1",
        _ => return None,
    };
    let shape = match name {
        // Tables have no protobuf encoding.
        "Table" if media != Media::Protobuf => Shape::Table,
        "PartialObjectMetadata" => Shape::Partial,
        "PartialObjectMetadataList" => Shape::PartialList,
        _ => return None,
    };
    offer.shapes.then_some(Accepted { media, shape, meta })
}

/// 406 in upstream's words.
pub fn not_acceptable() -> Status {
    refuse("application/json, application/yaml, application/vnd.kubernetes.protobuf")
}

fn refuse(accepted: &str) -> Status {
    Status::new(406, "NotAcceptable", format!("only the following media types are accepted: {accepted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Offer = Offer { protobuf: true, shapes: true };

    fn with(header: &str, offer: Offer) -> Option<(Media, Shape)> {
        negotiate(Some(header), offer).ok().map(|a| (a.media, a.shape))
    }

    fn of(header: &str) -> Option<(Media, Shape)> {
        with(header, ALL)
    }

    #[test]
    fn clients_get_the_first_thing_they_ask_for_that_exists() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(of(kubectl), Some((Media::Json, Shape::Table)));
        assert_eq!(of("application/vnd.kubernetes.protobuf,application/json"), Some((Media::Protobuf, Shape::Object)));
        assert_eq!(of("application/json;q=0.5,application/vnd.kubernetes.protobuf;q=0.9"), Some((Media::Protobuf, Shape::Object)));
        assert_eq!(of("application/vnd.kubernetes.protobuf;q=0, application/yaml"), Some((Media::Yaml, Shape::Object)));
        assert_eq!(of("*/*"), Some((Media::Json, Shape::Object)));
        assert_eq!(of("*/*, application/yaml"), Some((Media::Yaml, Shape::Object)));
        assert_eq!(of("application/yaml;q=0.5, application/json"), Some((Media::Json, Shape::Object)));
        assert_eq!(of("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), Some((Media::Json, Shape::PartialList)));
        assert_eq!(of("application/json;as=Poem;g=meta.k8s.io;v=v1"), None);
        assert_eq!(of("application/json;as=Table;g=meta.k8s.io;v=v2"), None);
        assert_eq!(of("text/html"), None);
        assert_eq!(of(""), Some((Media::Json, Shape::Object)));
        assert_eq!(negotiate(Some(&"a".repeat(5000)), ALL).expect_err("long").code, 400);
    }

    #[test]
    fn shapes_come_in_the_version_and_encoding_they_have() {
        let beta = negotiate(Some("application/json;as=Table;v=v1beta1;g=meta.k8s.io"), ALL).expect("a table");
        assert_eq!((beta.shape, beta.meta), (Shape::Table, "meta.k8s.io/v1beta1"));
        let table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1";
        assert_eq!(of(table), None);
        assert_eq!(of(&format!("{table},application/vnd.kubernetes.protobuf")), Some((Media::Protobuf, Shape::Object)));
        let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(of(partial), Some((Media::Protobuf, Shape::Partial)));
        assert_eq!(with(partial, Offer { protobuf: true, shapes: false }), Some((Media::Json, Shape::Object)));
        let custom = Offer { protobuf: false, shapes: true };
        assert_eq!(with(partial, custom), Some((Media::Protobuf, Shape::Partial)), "metadata is no custom kind");
        assert_eq!(with("application/vnd.kubernetes.protobuf,application/json", custom), Some((Media::Json, Shape::Object)));
        assert_eq!(with("application/vnd.kubernetes.protobuf", custom), None);
    }

    #[test]
    fn watches_are_framed_or_refused() {
        let stream = |header: &str| negotiate_stream(Some(header), ALL).map(|a| a.media).map_err(|status| status.code);
        assert_eq!(stream("application/vnd.kubernetes.protobuf;stream=watch"), Ok(Media::Protobuf));
        assert_eq!(stream("application/json;stream=watch"), Ok(Media::Json));
        assert_eq!(stream("application/yaml, application/json;q=0.1"), Err(406), "the best has no form for streams");
        assert_eq!(stream("application/json;stream=tail"), Err(406));
        assert_eq!(stream("*/*"), Ok(Media::Json));
    }
}
