//! `metav1.ListOptions`: what a list, watch or deletecollection asks for, read from the query and checked as upstream does
//! (`apimachinery/pkg/apis/meta/internalversion/{defaults,validation}`).

use super::Filter;
use crate::pipeline::{Request, Verb, flag};
use coracle_api::status::{Cause, Status};

/// How `resourceVersion` is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// `Exact`
    Exact,
    /// `NotOlderThan`
    NotOlderThan,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// `labelSelector` and `fieldSelector`.
    pub filter: Filter,
    /// `resourceVersion`; None is the newest, 0 any.
    pub revision: Option<u64>,
    /// `resourceVersionMatch`
    pub matching: Option<Match>,
    /// `limit`; 0 is none.
    pub limit: usize,
    /// `continue`
    pub token: Option<String>,
    /// `timeoutSeconds`; 0 is none.
    pub timeout: i64,
    /// `allowWatchBookmarks`
    pub bookmarks: bool,
    /// `sendInitialEvents`: None is a watch from a revision that begins after it.
    pub initial: Option<bool>,
}

impl ListOptions {
    /// From the query of a request.
    ///
    /// # Errors
    /// 400 for what cannot be read, 422 for what does not go together.
    pub fn of(request: &Request) -> Result<Self, Status> {
        let given = |name: &str| request.param(name).filter(|text| !text.is_empty());
        let number = |name: &str| request.param(name).map_or(Ok(0), integer);
        let mut options = Self {
            filter: Filter::of(request)?,
            revision: given("resourceVersion").map(revision).transpose()?,
            matching: None,
            limit: usize::try_from(number("limit")?).unwrap_or(0),
            token: given("continue").map(str::to_string),
            timeout: number("timeoutSeconds")?,
            bookmarks: request.param("allowWatchBookmarks").is_some_and(flag),
            initial: request.param("sendInitialEvents").map(flag),
        };
        let word = given("resourceVersionMatch");
        let watch = request.verb == Verb::Watch;
        let causes = if watch { options.wrong_for_watch(word) } else { options.wrong_for_list(word) };
        if !causes.is_empty() {
            return Err(Status::invalid("meta.k8s.io", "ListOptions", "", causes));
        }
        options.matching = word.map(|word| if word == "Exact" { Match::Exact } else { Match::NotOlderThan });
        // An old watch without a revision is one that begins with what is there.
        if watch && options.initial.is_none() && options.matching.is_none() && options.revision.unwrap_or(0) == 0 {
            options.initial = Some(true);
            options.matching = Some(Match::NotOlderThan);
        }
        Ok(options)
    }

    fn wrong_for_list(&self, word: Option<&str>) -> Vec<Cause> {
        let mut causes = Vec::new();
        if let Some(word) = word {
            if self.revision.is_none() {
                causes.push(forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided"));
            }
            if self.token.is_some() {
                causes.push(forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided"));
            }
            if !matches!(word, "Exact" | "NotOlderThan") {
                causes.push(unsupported(word, "\"Exact\", \"NotOlderThan\", \"\""));
            }
            if word == "Exact" && self.revision == Some(0) {
                causes.push(forbidden("resourceVersionMatch", "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
            }
        }
        if self.initial.is_some() {
            causes.push(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
        causes
    }

    fn wrong_for_watch(&self, word: Option<&str>) -> Vec<Cause> {
        let mut causes = Vec::new();
        if self.initial.is_some() && word != Some("NotOlderThan") {
            causes.push(forbidden("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
        }
        if let Some(word) = word {
            if self.initial.is_none() {
                causes.push(forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"));
            }
            if word != "NotOlderThan" {
                causes.push(unsupported(word, "\"NotOlderThan\""));
            }
            if self.token.is_some() {
                causes.push(forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided"));
            }
        }
        causes
    }
}

fn forbidden(field: &str, why: &str) -> Cause {
    Cause { reason: "FieldValueForbidden".into(), message: format!("Forbidden: {why}"), field: field.into() }
}

fn unsupported(word: &str, supported: &str) -> Cause {
    let message = format!("Unsupported value: \"{word}\": supported values: {supported}");
    Cause { reason: "FieldValueNotSupported".into(), message, field: "resourceVersionMatch".into() }
}

/// A number in a query, or 400 in Go's words.
fn integer(text: &str) -> Result<i64, Status> {
    text.parse().map_err(|_| Status::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax")))
}

/// A revision in a query.
pub fn revision(text: &str) -> Result<u64, Status> {
    text.parse().map_err(|_| {
        let why = format!("Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax");
        Status::bad_request(format!("invalid resource version: resourceVersion: {why}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn read(verb: Verb, query: &str) -> Result<ListOptions, Status> {
        let row = coracle_api::registry::builtin().into_iter().find(|row| &*row.plural == "pods").expect("row");
        ListOptions::of(&Request {
            user: Default::default(),
            verb,
            resource: Arc::new(row),
            subresource: "".into(),
            namespace: String::new(),
            name: String::new(),
            query: crate::http::route::query(query),
            write: Default::default(),
            body: crate::pipeline::Body::None,
            http: None,
            warnings: Default::default(),
        })
    }

    #[test]
    fn options_are_read_as_go_reads_them() {
        let list = read(Verb::List, "limit=5&resourceVersion=7&resourceVersionMatch=Exact&timeoutSeconds=3").expect("options");
        assert_eq!((list.limit, list.revision, list.matching, list.timeout), (5, Some(7), Some(Match::Exact), 3));
        assert_eq!(read(Verb::List, "limit=-5").expect("none").limit, 0);
        let bookmarks = |query: &str| read(Verb::Watch, query).expect("options").bookmarks;
        assert_eq!(
            ["", "allowWatchBookmarks", "allowWatchBookmarks=yes", "allowWatchBookmarks=0", "allowWatchBookmarks=False"].map(bookmarks),
            [false, true, true, false, false]
        );
        for wrong in ["limit=x", "limit=", "timeoutSeconds=1s", "resourceVersion=x", "resourceVersion=-1", "labelSelector=a%20b", "fieldSelector=x"] {
            assert_eq!(read(Verb::List, wrong).expect_err(wrong).code, 400, "{wrong}");
        }
    }

    #[test]
    fn a_watch_from_nowhere_begins_with_what_is_there() {
        let initial = |query: &str| read(Verb::Watch, query).expect("options").initial;
        assert_eq!(initial(""), Some(true));
        assert_eq!(initial("resourceVersion=0"), Some(true));
        assert_eq!(initial("resourceVersion=7"), None);
        assert_eq!(initial("sendInitialEvents=false&resourceVersionMatch=NotOlderThan"), Some(false));
    }

    #[test]
    fn what_does_not_go_together_is_invalid_in_upstreams_words() {
        for (verb, query, words) in [
            (Verb::List, "resourceVersionMatch=Exact", "resourceVersionMatch is forbidden unless resourceVersion is provided"),
            (Verb::List, "resourceVersionMatch=Exact&resourceVersion=0", "is forbidden for resourceVersion \"0\""),
            (Verb::List, "resourceVersionMatch=Newest&resourceVersion=1", "supported values: \"Exact\", \"NotOlderThan\", \"\""),
            (Verb::List, "resourceVersionMatch=Exact&resourceVersion=1&continue=x", "forbidden when continue is provided"),
            (Verb::List, "sendInitialEvents=true", "sendInitialEvents is forbidden for list"),
            (Verb::Watch, "sendInitialEvents=true", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
            (Verb::Watch, "resourceVersionMatch=NotOlderThan", "forbidden for watch unless sendInitialEvents is provided"),
            (Verb::Watch, "sendInitialEvents=true&resourceVersionMatch=Exact", "Unsupported value: \"Exact\""),
        ] {
            let error = read(verb, query).expect_err(query);
            assert_eq!((error.code, error.reason), (422, "Invalid"), "{query}");
            assert!(error.message.starts_with("ListOptions.meta.k8s.io \"\" is invalid: ") && error.message.contains(words), "{}", error.message);
        }
    }
}
