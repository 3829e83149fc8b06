//! Get, list and the start of a watch.

use super::{
    Answer, Core, Request, handle,
    list::{self, Page},
    watch::{self, Stream},
};
use coracle_api::status::Status;
use std::sync::Arc;

impl Core {
    pub(super) async fn get(self: &Arc<Self>, request: &Request) -> Result<Answer, Status> {
        let key = handle::key(request);
        let revision = request.param("resourceVersion").filter(|text| !text.is_empty()).map(list::options::revision).transpose()?;
        let snapshot = list::snapshot(self, revision, false).await?;
        let object = snapshot.get(&key).ok_or_else(|| handle::missing(request))?;
        self.answer(request, object).await
    }

    pub(super) async fn list(self: &Arc<Self>, request: &Request) -> Result<Page, Status> {
        list::page(self, request).await
    }

    pub(super) async fn watch(self: &Arc<Self>, request: &Request) -> Result<Stream, Status> {
        watch::start(self, request).await
    }
}
