//! An identity that outlives its certificates: made anew at two thirds of their life, for connections that begin from then on.
//!
//! What is connected stays so: TLS judges a certificate at the handshake.

use super::{Error, KeyPair};
use parking_lot::RwLock;
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

/// The clock is looked at this often: a machine that slept, or was set right, finds out in time.
const LOOK: Duration = Duration::from_secs(3600);
/// Before a renewal that failed is tried again.
const AGAIN: Duration = Duration::from_secs(60);

type Issue = Box<dyn Fn() -> Result<KeyPair, Error> + Send + Sync>;

/// A certificate and its key, and how to have new ones. As server and as client.
pub struct Identity {
    issue: Issue,
    life: Duration,
    current: RwLock<Issued>,
}

#[derive(Clone)]
struct Issued {
    key: Arc<CertifiedKey>,
    at: SystemTime,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("life", &self.life).finish_non_exhaustive()
    }
}

impl Identity {
    /// `issue` makes certificates that live for `life`; the first is made now.
    ///
    /// # Errors
    /// Those of `issue`; a key that is not its certificate's.
    pub fn new(life: Duration, issue: impl Fn() -> Result<KeyPair, Error> + Send + Sync + 'static) -> Result<Arc<Self>, Error> {
        let current = RwLock::new(issued(&issue()?)?);
        Ok(Arc::new(Self { issue: Box::new(issue), life, current }))
    }

    /// What is shown to peers now.
    pub fn current(&self) -> Arc<CertifiedKey> {
        self.current.read().key.clone()
    }

    /// Until it is to be renewed; nothing when that is due. (A clock that was set back has made it older than it says.)
    fn left(&self) -> Duration {
        let age = SystemTime::now().duration_since(self.current.read().at).unwrap_or(self.life);
        (self.life / 3 * 2).saturating_sub(age)
    }

    /// Makes a new certificate and shows that from now on.
    fn renew(&self) -> Result<(), Error> {
        let fresh = issued(&(self.issue)()?)?;
        *self.current.write() = fresh;
        Ok(())
    }

    /// Renews it whenever that is due. Ends never.
    pub async fn keep(&self) {
        loop {
            let left = self.left();
            if !left.is_zero() {
                tokio::time::sleep(left.min(LOOK)).await;
            } else if let Err(error) = self.renew() {
                tracing::error!(%error, "renew a certificate: the old one is shown until that succeeds");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

fn issued(pair: &KeyPair) -> Result<Issued, Error> {
    let (chain, key) = pair.to_der()?;
    let key = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider());
    let key = key.map_err(|error| Error(format!("a certificate and its key: {error}")))?;
    Ok(Issued { key: Arc::new(key), at: SystemTime::now() })
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Authority;

    #[test]
    fn renewal_is_due_by_the_clock_on_the_wall_and_may_fail() {
        use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
        let dir = tempfile::tempdir().unwrap();
        let ca = Authority::open(dir.path()).unwrap();
        let (asked, life) = (AtomicUsize::new(0), Duration::from_secs(300));
        let issue = move || match asked.fetch_add(1, Relaxed) {
            1 => Err(Error("the disk is full".into())),
            _ => ca.client("n", &[], life),
        };
        let identity = Identity::new(life, issue).unwrap();
        let (first, fresh) = (identity.current(), Duration::from_secs(100)..=Duration::from_secs(200));
        assert!(fresh.contains(&identity.left()));
        identity.current.write().at -= Duration::from_secs(200);
        assert!(identity.left().is_zero());
        identity.renew().unwrap_err();
        assert!(Arc::ptr_eq(&first, &identity.current()) && identity.left().is_zero());
        identity.renew().unwrap();
        assert!(!Arc::ptr_eq(&first, &identity.current()) && fresh.contains(&identity.left()));
        // A clock that was set back.
        identity.current.write().at += Duration::from_secs(1000);
        assert!(identity.left().is_zero());
    }
}
